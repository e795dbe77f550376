// The numbers of a config.json to turn: how large the model is, how much of it one token uses, what it keeps of each
// token. Tested against dsnotes.model.counts.
const SizeLab = (() => {
  // --- the mathematics: `c` has the names of config.json; q_lora_rank 0 means none ---
  const mlp = (width, inner) => 3 * width * inner;

  function attention(c) {
    const heads = c.num_attention_heads, query = heads * (c.qk_nope_head_dim + c.qk_rope_head_dim);
    const q = c.q_lora_rank ? c.q_lora_rank * (c.hidden_size + query) + c.q_lora_rank : c.hidden_size * query;
    const kv = c.hidden_size * (c.kv_lora_rank + c.qk_rope_head_dim) + c.kv_lora_rank
      + c.kv_lora_rank * heads * (c.qk_nope_head_dim + c.v_head_dim);
    return q + kv + heads * c.v_head_dim * c.hidden_size;
  }

  // The parts of the model: [name, in all, used by one token].
  function parts(c) {
    const moe = c.num_hidden_layers - c.first_k_dense_replace, expert = mlp(c.hidden_size, c.moe_intermediate_size);
    const router = c.n_routed_experts * (c.hidden_size + (c.bias ? 1 : 0)), words = c.vocab_size * c.hidden_size;
    const both = (name, size) => [name, size, size];
    return [
      ["routed", moe * c.n_routed_experts * expert, moe * c.num_experts_per_tok * expert],
      both("attention", c.num_hidden_layers * attention(c)),
      both("shared", moe * c.n_shared_experts * expert),
      both("dense", c.first_k_dense_replace * mlp(c.hidden_size, c.intermediate_size)),
      both("head", words),
      ["embedding", words, 0],
      both("rest", moe * router + (2 * c.num_hidden_layers + 1) * c.hidden_size),
    ];
  }
  const total = (c) => parts(c).reduce((sum, [, all]) => sum + all, 0);
  const activated = (c) => parts(c).reduce((sum, [, , used]) => sum + used, 0);

  // Numbers kept of each token, over all layers.
  const cached = (c) => c.num_hidden_layers * (c.kv_lora_rank + c.qk_rope_head_dim);

  // Multiply-adds of one token that looks at `past` tokens, keys and values decompressed once.
  function multiply_adds(c, past) {
    const latent = attention(c) - c.kv_lora_rank - c.q_lora_rank
      + c.num_attention_heads * past * (c.qk_nope_head_dim + c.qk_rope_head_dim + c.v_head_dim);
    const experts = (c.num_experts_per_tok + c.n_shared_experts) * mlp(c.hidden_size, c.moe_intermediate_size);
    return c.num_hidden_layers * latent + c.vocab_size * c.hidden_size
      + c.first_k_dense_replace * mlp(c.hidden_size, c.intermediate_size)
      + (c.num_hidden_layers - c.first_k_dense_replace) * (experts + c.n_routed_experts * c.hidden_size);
  }

  // --- the figure ---
  const NAMES = { routed: "路由专家", attention: "注意力", shared: "共享专家", dense: "稠密前馈", head: "输出头",
    embedding: "词嵌入", rest: "其余" };
  const COLOUR = { routed: "orange", attention: "blue", shared: "sky", dense: "green", head: "purple", embedding: "grey",
    rest: "ink" };
  const V3 = { vocab_size: 129280, hidden_size: 7168, num_hidden_layers: 61, first_k_dense_replace: 3,
    intermediate_size: 18432, moe_intermediate_size: 2048, n_shared_experts: 1, n_routed_experts: 256,
    num_experts_per_tok: 8, bias: true, num_attention_heads: 128, q_lora_rank: 1536, kv_lora_rank: 512,
    qk_nope_head_dim: 128, qk_rope_head_dim: 64, v_head_dim: 128 };
  const V2 = { ...V3, vocab_size: 102400, hidden_size: 5120, num_hidden_layers: 60, first_k_dense_replace: 1,
    intermediate_size: 12288, moe_intermediate_size: 1536, n_shared_experts: 2, n_routed_experts: 160,
    num_experts_per_tok: 6, bias: false };
  const LITE = { ...V2, hidden_size: 2048, num_hidden_layers: 27, intermediate_size: 10944, moe_intermediate_size: 1408,
    n_routed_experts: 64, num_attention_heads: 16, q_lora_rank: 0 };

  const size = (x) => (x >= 1e9 ? `${Kit.fix(x / 1e9, x < 1e11 ? 1 : 0)}B` : `${Kit.fix(x / 1e6, 1)}M`);
  const gigabytes = (x) => `${Kit.num(x / 1e9, 3)} GB`;

  function draw(s, data, width) {
    const list = parts(s), all = total(s), used = activated(s), left = 4, right = width - 4;
    const at = Kit.scale([0, all], [left, right]);
    const bar = (y, which) => {
      let sum = 0, body = "";
      for (const part of list) {
        const [name] = part, from = at(sum), to = at((sum += part[which]));
        body += Kit.rect({ x: from, y, width: Math.max(0, to - from), height: 34, class: `f-${COLOUR[name]}` });
        const wide = to - from > 15 * NAMES[name].length;
        if (wide) body += Kit.text((from + to) / 2, y + 17, NAMES[name], { class: name === "attention" || name === "rest" ? "on-dark" : "on" });
      }
      return body;
    };
    const zoomed = () => { // what one token uses, over the full width
      const wide = Kit.scale([0, used], [left, right]);
      let sum = 0, body = "";
      for (const [name, , part] of list) {
        const from = wide(sum), to = wide((sum += part));
        body += Kit.rect({ x: from, y: 152, width: Math.max(0, to - from), height: 30, class: `f-${COLOUR[name]}` });
        if (to - from > 14 * NAMES[name].length)
          body += Kit.text((from + to) / 2, 167, NAMES[name], { class: name === "attention" ? "on-dark" : "on" });
      }
      return body;
    };
    const legend = () => { // what is too narrow for its name
      let x = left, body = "";
      for (const [name, , part] of list) {
        if (part === 0 || (part / used) * (right - left) > 14 * NAMES[name].length) continue;
        body += Kit.rect({ x, y: 190, width: 11, height: 11, class: `f-${COLOUR[name]}` })
          + Kit.text(x + 16, 196, NAMES[name], { anchor: "start", class: "small" });
        x += 30 + 12 * NAMES[name].length;
      }
      return body;
    };
    const edge = at(used), cache = cached(s) * 2 * s.context, weights = all * s.width;
    const rows = [
      ["权重占的显存", gigabytes(weights), "grey", weights],
      [`${Kit.int(s.context)} 个 token 的缓存`, gigabytes(cache), "sky", cache],
    ];
    const most = Math.max(weights, cache), memory = Kit.scale([0, most], [0, right - left - 110]);
    return Kit.svg(width, 336, `总参数 ${size(all)}，一个 token 激活 ${size(used)}`,
      Kit.text(left, 14, `总参数 ${size(all)}`, { anchor: "start", class: "big" }) + bar(28, 1)
      + Kit.text(left, 84, `一个 token 用到 ${size(used)}（${Kit.percent(used / all, 1)}）`, { anchor: "start", class: "big" })
      + Kit.rect({ x: left, y: 98, width: edge - left, height: 16, class: "f-ink" })
      + Kit.path({ d: `M${left} 118L${left} 150M${edge} 118L${right} 150`, class: "thin dash" }) + zoomed() + legend()
      + rows.map(([label, words, colour, value], i) => {
        const y = 228 + i * 50;
        return Kit.text(left, y, label, { anchor: "start" })
          + Kit.rect({ x: left, y: y + 11, width: Math.max(1, memory(value)), height: 16, class: `f-${colour}` })
          + Kit.text(left + memory(value) + 8, y + 19, words, { anchor: "start" });
      }).join("")
      + Kit.text(left, 324, `每个 token：缓存 ${Kit.num(cached(s) * 2 / 1000, 3)} KB，乘加 ${size(multiply_adds(s, s.context))}`, { anchor: "start" }));
  }

  function say(s) {
    const used = activated(s), all = total(s), expert = (s.num_hidden_layers - s.first_k_dense_replace)
      * mlp(s.hidden_size, s.moe_intermediate_size);
    if (s.num_experts_per_tok === s.n_routed_experts)
      return "每个专家都用：激活的与总的只差一张词嵌入，这就是一个稠密模型的价钱。";
    return `多存一个专家，总参数多 ${size(expert)}，激活的几乎不变；多选一个专家，激活的也多 ${size(expert)}。`
      + `现在每 ${Kit.num(all / used, 3)} 个参数里用到一个。`;
  }

  const integer = (name, label, min, max, step = 1) => ({ kind: "slider", name, label, min, max, step, show: Kit.int });
  return {
    parts, total, activated, cached, multiply_adds, V3, V2, LITE,
    name: "size", title: "配置计算器",
    state: { ...V3, context: 32768, width: 1 },
    range: { vocab_size: [1, 1e6], intermediate_size: [1, 1e5], first_k_dense_replace: [0, 3], hidden_size: [64, 16384],
      q_lora_rank: [0, 1e4], qk_nope_head_dim: [1, 512], qk_rope_head_dim: [0, 512], v_head_dim: [1, 512] },
    controls: [
      integer("n_routed_experts", "路由专家数 N<sub>r</sub>", 8, 512, 8),
      { kind: "slider", name: "num_experts_per_tok", label: "每个 token 选几个 K<sub>r</sub>", min: 1, max: (s) => s.n_routed_experts, step: 1, show: Kit.int },
      integer("moe_intermediate_size", "一个专家的内宽", 128, 4096, 128),
      integer("num_hidden_layers", "层数 L", 4, 96),
      integer("num_attention_heads", "头数 n<sub>h</sub>", 8, 256, 8),
      integer("kv_lora_rank", "潜在向量的宽 d<sub>c</sub>", 64, 2048, 64),
      { kind: "slider", name: "context", label: "上下文（token）", min: 1024, max: 131072, step: 1024, show: Kit.int },
      { kind: "choice", name: "width", label: "权重存成", options: [[1, "FP8"], [2, "BF16"]] },
    ],
    presets: [
      { label: "V3", state: {} },
      { label: "V2", state: V2 },
      { label: "V2-Lite", state: LITE },
      { label: "每个专家都用", state: { num_experts_per_tok: 256 } },
    ],
    tidy: (s) => ({ ...s, num_experts_per_tok: Math.min(s.num_experts_per_tok, s.n_routed_experts) }),
    draw, say,
    goals: [
      { ask: "从 V3 出发，让激活参数不到 200 亿，总参数仍在 6000 亿以上。",
        reached: (s) => activated(s) < 20e9 && total(s) > 600e9,
        reply: "少选几个专家就够：选几个只管每个 token 的价钱，存多少由专家数管。" },
      { ask: "总参数不变，让长文的缓存减到一半以下。",
        reached: (s) => cached(s) * s.context <= 0.5 * cached(V3) * 32768 && s.context >= 32768 && s.num_hidden_layers === 61 && s.n_routed_experts === 256,
        reply: "缩小潜在向量：缓存只与它的宽、层数和 token 数有关，与头数、专家数无关。" },
    ],
  };
})();
Kit.add(SizeLab);
