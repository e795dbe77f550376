// Writing with a model of engine.js: the distribution of the next token, drafts by the prediction module and their check,
// one step at a time with all that a page may want to show of it. The rules are those of dsnotes.model.speculative.
const Decode = (() => {
  // softmax(logits / temperature), at 0 all on the largest; with `topP` only the likeliest that together reach it.
  function probabilities(logits, temperature, topP = 1) {
    const p = new Float64Array(logits.length);
    let most = 0, all = 0;
    for (let v = 1; v < logits.length; v++) if (logits[v] > logits[most]) most = v;
    if (temperature === 0) {
      p[most] = 1;
      return p;
    }
    for (let v = 0; v < p.length; v++) all += p[v] = Math.exp((logits[v] - logits[most]) / temperature);
    for (let v = 0; v < p.length; v++) p[v] /= all;
    if (topP === 1) return p;
    const order = [...p.keys()].sort((a, b) => p[b] - p[a] || a - b);
    let before = 0, kept = 0;
    for (const v of order) { // a token stays if those before it fall short
      const mass = p[v];
      if (before >= topP) p[v] = 0;
      else kept += mass;
      before += mass;
    }
    return p.map((mass) => mass / kept);
  }

  // The token at which the running sum passes a uniform number; weights need not sum to 1.
  function draw(weights, u) {
    let all = 0, last = 0;
    for (const weight of weights) all += weight;
    let rest = u * all;
    for (let v = 0; v < weights.length; v++) {
      if (weights[v] === 0) continue;
      last = v;
      rest -= weights[v];
      if (rest < 0) break;
    }
    return last;
  }

  // A draft from q against the model's own p: kept, or what is written in its place.
  function verify(draft, q, p, random) {
    if (random() < p[draft] / q[draft]) return { kept: true };
    const residual = p.map((mass, v) => Math.max(0, mass - q[v]));
    return { kept: false, token: draw(residual.some((mass) => mass > 0) ? residual : p, random()) };
  }

  // A text that grows by `step()`. tokens: prompt and text. trace[i], of token i: { by: "given" | "model" | "draft";
  // refused: the draft that stood there, or null; step: which one wrote it, 0 for the prompt; routing: what the gates
  // chose as it was read, null before }. steps: passes of the model after the prompt. offered, accepted: drafts.
  function writer(model, prompt, { temperature, topP = 1, random, stop, limit, drafts = Boolean(model.module) }) {
    const room = prompt.length + limit + 1, cache = DeepSeek.new_cache(model.config, room);
    const ahead = drafts && DeepSeek.new_cache(model.config, room, 1);
    const tokens = [...prompt], trace = prompt.map(() => ({ by: "given", refused: null, step: 0, routing: null })), hidden = [];
    const text = { tokens, trace, cache, steps: 0, offered: 0, accepted: 0, done: limit < 1, step };
    const distribution = (state) => probabilities(DeepSeek.logits(model, state), temperature, topP);
    const full = () => tokens.length === prompt.length + limit || tokens.at(-1) === stop;

    function read(position, token) { // by the model; what it then says of the next token
      const found = DeepSeek.feed(model, cache, token);
      hidden[position] = found.hidden;
      return found;
    }
    function write(token, by, refused = null) {
      if (text.done) return;
      tokens.push(token);
      trace.push({ by, refused, step: text.steps, routing: null });
      text.done = full();
    }

    function step() {
      if (text.done) return text;
      if (!text.steps) { // the prompt, all but its last token
        for (let i = cache.length; i < tokens.length - 1; i++) trace[i].routing = read(i, tokens[i]).routing;
      }
      text.steps++;
      const last = tokens.length - 1;
      if (!drafts || last < 1) { // the module needs a token and the one after it
        const found = read(last, tokens[last]);
        trace[last].routing = found.routing;
        write(draw(distribution(found.hidden), random()), "model");
        return text;
      }
      // what the module has not read yet: the last position is about the token behind the text
      let state;
      while (ahead.length < last) state = DeepSeek.predict(model, ahead, hidden[ahead.length], tokens[ahead.length + 1]);
      const q = distribution(state), draft = draw(q, random());
      // one pass of the model over the last token and the draft
      const first = read(last, tokens[last]), second = read(last + 1, draft);
      trace[last].routing = first.routing;
      const checked = verify(draft, q, distribution(first.hidden), random);
      text.offered++;
      if (checked.kept) {
        text.accepted++;
        write(draft, "draft");
        if (!text.done) {
          trace[last + 1].routing = second.routing;
          write(draw(distribution(second.hidden), random()), "model"); // the bonus token
        }
      } else {
        cache.length = last + 1; // takes the draft back
        write(checked.token, "model", draft);
      }
      return text;
    }
    return text;
  }

  return { probabilities, draw, verify, writer };
})();
