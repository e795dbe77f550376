// A DeepSeek model in plain JavaScript: reads the tensors of a safetensors file in the released layout and runs them token
// by token over a latent cache, with the weights of attention absorbed as in dsnotes.model.mla. FP8 weights are multiplied
// by their scales on reading; all else is float32, sums are float64. Tested against dsnotes.
const DeepSeek = (() => {
  // --- reading ---
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

  function bytes(base64) {
    const value = new Uint8Array(128), end = base64.length - (base64.match(/=*$/)[0].length);
    for (let i = 0; i < 64; i++) value[LETTERS.charCodeAt(i)] = i;
    const out = new Uint8Array(Math.floor((end * 3) / 4));
    for (let i = 0, o = 0; i < end; i += 4) {
      const n = (value[base64.charCodeAt(i)] << 18) | (value[base64.charCodeAt(i + 1)] << 12)
        | (i + 2 < end ? value[base64.charCodeAt(i + 2)] << 6 : 0) | (i + 3 < end ? value[base64.charCodeAt(i + 3)] : 0);
      out[o++] = n >> 16; // what lies beyond the end is not kept
      out[o++] = n >> 8;
      out[o++] = n;
    }
    return out;
  }

  // What each of the 256 codes stands for: 1 sign, 4 exponent bits (bias 7), 3 of fraction; no infinities, one NaN a sign.
  const E4M3 = Float32Array.from({ length: 256 }, (_, code) => {
    const sign = code & 128 ? -1 : 1, exponent = (code >> 3) & 15, fraction = (code & 7) / 8;
    if ((code & 127) === 127) return NaN;
    return sign * (exponent ? (1 + fraction) * 2 ** (exponent - 7) : fraction * 2 ** -6);
  });
  const BLOCK = 128, SCALE = "_scale_inv";

  const numbers = { // from the bytes of a tensor; plain loops, for there are millions
    F32: (file) => new Float32Array(file.slice().buffer),
    BF16(file) { // the upper half of a float32
      const bits = new Uint32Array(file.length / 2);
      for (let i = 0; i < bits.length; i++) bits[i] = (file[2 * i] << 16) | (file[2 * i + 1] << 24);
      return new Float32Array(bits.buffer);
    },
    F8_E4M3(file) {
      const out = new Float32Array(file.length);
      for (let i = 0; i < out.length; i++) out[i] = E4M3[file[i]];
      return out;
    },
  };

  // Name → { shape, data, type } of a safetensors file: eight bytes with the length of a JSON header, the header, the numbers.
  function tensors(file) {
    const view = new DataView(file.buffer, file.byteOffset), length = view.getUint32(0, true);
    let header = "";
    for (let i = 0; i < length; i++) header += String.fromCharCode(file[8 + i]); // names are ASCII
    const found = {};
    for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(JSON.parse(header))) {
      if (!numbers[dtype]) throw new Error(`${name} is of type ${dtype}; known are ${Object.keys(numbers).join(", ")}`);
      found[name] = { shape, type: dtype, data: numbers[dtype](file.subarray(8 + length + from, 8 + length + to)) };
    }
    for (const [name, { shape: [rows, columns], type, data }] of Object.entries(found)) {
      if (type !== "F8_E4M3") continue;
      const scale = found[name + SCALE].data, wide = Math.ceil(columns / BLOCK);
      for (let i = 0; i < rows; i++)
        for (let j = 0; j < columns; j++) data[i * columns + j] *= scale[(i >> 7) * wide + (j >> 7)]; // of its block
    }
    return found;
  }

  function check(config) {
    const asked = { scoring_func: "sigmoid", topk_method: "noaux_tc", rope_scaling: null };
    for (const [field, value] of Object.entries(asked))
      if ((config[field] ?? null) !== value) throw new Error(`${field} must be ${value}, got ${config[field]}`);
    if (config.num_nextn_predict_layers > 1)
      throw new Error(`num_nextn_predict_layers must be 0 or 1, got ${config.num_nextn_predict_layers}`);
  }

  // The model of a config.json and the tensors of its checkpoint. A file without lm_head.weight has tied embeddings; the
  // prediction module reads the main model's embedding and head.
  function load(config, found) {
    check(config);
    const at = (name) => {
      if (!found[name]) throw new Error(`the file lacks ${name}`);
      return found[name].data;
    };
    const mlp = (path) => ({ gate: at(`${path}.gate_proj.weight`), up: at(`${path}.up_proj.weight`),
      down: at(`${path}.down_proj.weight`) });
    const layer = (index, dense) => {
      const path = `model.layers.${index}`, attention = `${path}.self_attn`;
      const norm = (name) => at(`${path}.${name}.weight`);
      return {
        input_layernorm: norm("input_layernorm"), post_attention_layernorm: norm("post_attention_layernorm"),
        ...(config.q_lora_rank === null ? { q: at(`${attention}.q_proj.weight`) } : {
          q_a: at(`${attention}.q_a_proj.weight`), q_a_layernorm: at(`${attention}.q_a_layernorm.weight`),
          q_b: at(`${attention}.q_b_proj.weight`) }),
        kv_a: at(`${attention}.kv_a_proj_with_mqa.weight`), kv_a_layernorm: at(`${attention}.kv_a_layernorm.weight`),
        kv_b: at(`${attention}.kv_b_proj.weight`), o: at(`${attention}.o_proj.weight`),
        ...(dense ? { mlp: mlp(`${path}.mlp`) } : {
          gate: at(`${path}.mlp.gate.weight`), bias: at(`${path}.mlp.gate.e_score_correction_bias`),
          experts: Array.from({ length: config.n_routed_experts }, (_, e) => mlp(`${path}.mlp.experts.${e}`)),
          shared: config.n_shared_experts ? mlp(`${path}.mlp.shared_experts`) : null }),
      };
    };
    const embedding = at("model.embed_tokens.weight"), path = `model.layers.${config.num_hidden_layers}`;
    return { config, embedding, norm: at("model.norm.weight"), head: found["lm_head.weight"]?.data ?? embedding,
      layers: Array.from({ length: config.num_hidden_layers }, (_, i) => layer(i, i < config.first_k_dense_replace)),
      module: config.num_nextn_predict_layers ? { ...layer(config.num_hidden_layers, false),
        enorm: at(`${path}.enorm.weight`), hnorm: at(`${path}.hnorm.weight`), eh_proj: at(`${path}.eh_proj.weight`),
        norm: at(`${path}.shared_head.norm.weight`) } : null };
  }

  // --- arithmetic ---
  const LATENT_EPS = 1e-6; // of the norms on latents, whatever rms_norm_eps says

  // W x, the rows of W one after the other; four sums at a time keep the processor busy.
  function times(w, x) {
    const columns = x.length, out = new Float32Array(w.length / columns), even = columns - (columns % 4);
    for (let i = 0, at = 0; i < out.length; i++, at += columns) {
      let a = 0, b = 0, c = 0, d = 0, j = 0;
      for (; j < even; j += 4) {
        a += w[at + j] * x[j];
        b += w[at + j + 1] * x[j + 1];
        c += w[at + j + 2] * x[j + 2];
        d += w[at + j + 3] * x[j + 3];
      }
      for (; j < columns; j++) a += w[at + j] * x[j];
      out[i] = a + b + c + d;
    }
    return out;
  }

  function rms_norm(x, weight, eps) {
    let squares = 0;
    for (const value of x) squares += value * value;
    const by = 1 / Math.sqrt(squares / x.length + eps);
    return x.map((value, i) => value * by * weight[i]);
  }

  const sum = (x, y) => x.map((value, i) => value + y[i]);
  const sigmoid = (x) => 1 / (1 + Math.exp(-x));

  function swiglu({ gate, up, down }, x) { // Shazeer (6)
    const a = times(gate, x), b = times(up, x);
    return times(down, a.map((value, i) => value * sigmoid(value) * b[i]));
  }

  // Turns the pairs (x_0, x_1), (x_2, x_3), … from `from` on by the angle of the position.
  function rotate(x, from, config, position) {
    const width = config.qk_rope_head_dim;
    for (let m = 0; m < width; m += 2) {
      const angle = Math.fround(position * Math.fround(config.rope_theta ** (-m / width)));
      const cos = Math.cos(angle), sin = Math.sin(angle), a = x[from + m], b = x[from + m + 1];
      x[from + m] = a * cos - b * sin;
      x[from + m + 1] = a * sin + b * cos;
    }
  }

  // --- attention ---
  const cache_width = (config) => config.kv_lora_rank + config.qk_rope_head_dim;
  // One vector a token and layer. `length` tokens are held; a smaller one takes tokens back.
  const new_cache = (config, capacity, layers = config.num_hidden_layers) => ({ length: 0, capacity,
    latents: Array.from({ length: layers }, () => new Float32Array(capacity * cache_width(config))) });

  // V3 eq 1, 3, 6-11, the latents read as they are (V2 section 2.1.2): W^UK goes into the query, W^UV behind the sum.
  function attention(config, layer, x, latents, position) {
    const { num_attention_heads: heads, qk_nope_head_dim: n, qk_rope_head_dim: r, v_head_dim: v, kv_lora_rank: c } = config;
    const width = c + r, past = position + 1, scale = 1 / Math.sqrt(n + r);
    const both = times(layer.kv_a, x);
    latents.set(rms_norm(both.subarray(0, c), layer.kv_a_layernorm, LATENT_EPS), position * width);
    rotate(both, c, config, position);
    latents.set(both.subarray(c), position * width + c);
    const query = layer.q ? times(layer.q, x) : times(layer.q_b, rms_norm(times(layer.q_a, x), layer.q_a_layernorm, LATENT_EPS));
    const out = new Float32Array(heads * v), scores = new Float64Array(past);
    for (let h = 0; h < heads; h++) {
      const from = h * (n + r), up = h * (n + v) * c; // of this head: its query, W^UK and below it W^UV
      rotate(query, from + n, config, position);
      const q = new Float32Array(width);
      for (let i = 0; i < n; i++)
        for (let j = 0; j < c; j++) q[j] += query[from + i] * layer.kv_b[up + i * c + j];
      q.set(query.subarray(from + n, from + n + r), c);
      let most = -Infinity, all = 0;
      for (let t = 0; t < past; t++) {
        let score = 0;
        for (let j = 0; j < width; j++) score += q[j] * latents[t * width + j];
        scores[t] = score * scale;
        most = Math.max(most, scores[t]);
      }
      for (let t = 0; t < past; t++) all += scores[t] = Math.exp(scores[t] - most);
      const mean = new Float64Array(c);
      for (let t = 0; t < past; t++)
        for (let j = 0; j < c; j++) mean[j] += (scores[t] / all) * latents[t * width + j];
      for (let i = 0; i < v; i++) {
        let value = 0;
        for (let j = 0; j < c; j++) value += mean[j] * layer.kv_b[up + (n + i) * c + j];
        out[h * v + i] = value;
      }
    }
    return times(layer.o, out);
  }

  // --- experts ---
  const best = (scores, count) => [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b).slice(0, count);

  // V3 eq 13, 15, 16 and its node-limited routing: [expert, gate value] of the chosen, the best first.
  function route(config, layer, x) {
    const scores = Array.from(times(layer.gate, x), sigmoid), biased = scores.map((s, e) => s + layer.bias[e]);
    const size = scores.length / config.n_group;
    const groups = Array.from({ length: config.n_group }, (_, g) => biased.slice(g * size, (g + 1) * size));
    const open = config.n_group === 1 ? [0] // a group counts as the sum of its two best
      : best(groups.map((group) => best(group, 2).reduce((all, e) => all + group[e], 0)), config.topk_group);
    const chosen = best(biased.map((s, e) => (open.includes(Math.floor(e / size)) ? s : -Infinity)), config.num_experts_per_tok);
    const all = config.norm_topk_prob ? chosen.reduce((total, e) => total + scores[e], 1e-20) : 1;
    return chosen.map((e) => [e, (scores[e] / all) * config.routed_scaling_factor]);
  }

  // One block on one token; what its gate chose goes into `routing`.
  function block(config, layer, x, latents, position, routing) {
    x = sum(x, attention(config, layer, rms_norm(x, layer.input_layernorm, config.rms_norm_eps), latents, position));
    const normed = rms_norm(x, layer.post_attention_layernorm, config.rms_norm_eps);
    if (layer.mlp) return sum(x, swiglu(layer.mlp, normed));
    const chosen = route(config, layer, normed);
    routing.push(chosen);
    for (const [e, g] of chosen) {
      const out = swiglu(layer.experts[e], normed);
      x = x.map((value, i) => value + g * out[i]); // (12)
    }
    return layer.shared ? sum(x, swiglu(layer.shared, normed)) : x;
  }

  const embedded = ({ config: { hidden_size: d }, embedding }, token) => embedding.subarray(token * d, (token + 1) * d);

  // One token behind those in the cache: its final hidden state, and what each gate chose.
  function feed(model, cache, token) {
    const { config } = model, routing = [];
    if (cache.length >= cache.capacity) throw new Error(`the cache is full: capacity ${cache.capacity}`);
    let x = embedded(model, token);
    model.layers.forEach((layer, i) => { x = block(config, layer, x, cache.latents[i], cache.length, routing); });
    cache.length++;
    return { hidden: rms_norm(x, model.norm, config.rms_norm_eps), routing };
  }

  const logits = (model, hidden) => times(model.head, hidden);

  // The prediction module at its next position: from the model's hidden state there and the token after it to the hidden
  // state whose logits are about the token after that (V3 eq 21-23).
  function predict(model, cache, hidden, token) {
    const { config, module } = model, eps = config.rms_norm_eps, pair = new Float32Array(2 * config.hidden_size);
    pair.set(rms_norm(embedded(model, token), module.enorm, eps));
    pair.set(rms_norm(hidden, module.hnorm, eps), config.hidden_size);
    const x = block(config, module, times(module.eh_proj, pair), cache.latents[0], cache.length, []);
    cache.length++;
    return rms_norm(x, module.norm, eps);
  }

  // --- scripts with weights ---
  const received = {};
  // Called by such a script (dsnotes.weights.script): a name, a header, the file as base64.
  function receive(name, header, base64) { received[name] = { ...header, model: load(header.config, tensors(bytes(base64))) }; }

  return { bytes, tensors, load, times, route, cache_width, new_cache, feed, logits, predict, receive, received };
})();
