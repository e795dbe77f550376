// What the tests of 让它写诗 call: whole texts through a model, numbers back as the bytes of float32.
var hex = (floats) => Array.from(new Uint8Array(floats.buffer), (b) => (b + 256).toString(16).slice(1)).join("");

// Every prompt a token at a time: logits, those of the module, what the gates chose.
function run(name, prompts) {
  const { model } = DeepSeek.received[name];
  return prompts.map((tokens) => {
    const cache = DeepSeek.new_cache(model.config, tokens.length), states = [], routing = [];
    const ahead = DeepSeek.new_cache(model.config, tokens.length, 1);
    const logits = tokens.map((token) => {
      const found = DeepSeek.feed(model, cache, token);
      states.push(found.hidden);
      routing.push(found.routing);
      return hex(DeepSeek.logits(model, found.hidden));
    });
    const drafts = !model.module ? [] : tokens.slice(1)
      .map((token, i) => hex(DeepSeek.logits(model, DeepSeek.predict(model, ahead, states[i], token))));
    return { logits, drafts, routing };
  });
}

function write(name, prompt, options, seed) {
  const { model } = DeepSeek.received[name];
  const text = Decode.writer(model, prompt, { ...options, random: Kit.random(seed) });
  while (!text.done) text.step();
  const { tokens, trace, steps, offered, accepted } = text;
  return { tokens: tokens.slice(prompt.length), trace, steps, offered, accepted, held: text.cache.length };
}

// How often each text of `limit` tokens was written.
function count(name, prompt, limit, times) {
  const random = Kit.random(5), counts = {}, { model } = DeepSeek.received[name];
  let accepted = 0, offered = 0;
  for (let i = 0; i < times; i++) {
    const text = Decode.writer(model, prompt, { temperature: 1, random, stop: -1, limit });
    while (!text.done) text.step();
    const written = text.tokens.slice(prompt.length).join();
    counts[written] = (counts[written] ?? 0) + 1;
    accepted += text.accepted;
    offered += text.offered;
  }
  return { counts, rate: accepted / offered };
}

const given_numbers = (numbers) => () => numbers.shift();
const refused = (config) => {
  try {
    DeepSeek.load(config, {});
    return "";
  } catch (error) {
    return error.message;
  }
};
