// Eight answers to one question: click right or wrong, drag a length, and see what pushes each token
// under GRPO, Dr. GRPO and DAPO; then one token's clipped objective. Tested against dsnotes.rl.grpo
// and dsnotes.rl.objective.
const GroupLab = (() => {
  const SIZE = 8; // answers, G
  const FORMAT = 0.1; // every answer keeps the format; a right one gets 1 more
  const LONGEST = 40; // the longest answer, and the constant of Dr. GRPO
  const PROMPT = 8; // tokens of the question: a ball, six swaps, "="
  const RIGHT = [1, 0, 0, 1, 0, 1, 0, 0]; // as it opens
  const LENGTHS = [14, 10, 36, 18, 6, 11, 22, 13];
  const RATE = 0.05; // of one step up the objective, on the log-prob

  // --- the mathematics ---
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const mean = (values) => sum(values) / values.length;
  const rewards = (right) => right.map((one) => (one ? 1 + FORMAT : FORMAT));

  // V3 (28). "trap5" normalises the way one writes it first: with the rounding error of the mean.
  function advantages(scores, { scale = true, wrong = "none" } = {}) {
    const low = Math.min(...scores);
    const equal = low === Math.max(...scores);
    if (equal && wrong !== "trap5") return scores.map(() => 0);
    const above = wrong === "trap5" ? scores : scores.map((score) => score - low);
    const centre = mean(above);
    const centred = above.map((score) => score - centre);
    const std = Math.sqrt(mean(centred.map((one) => one * one)));
    return scale ? centred.map((one) => one / (std || 1)) : centred;
  }

  // What one token's log-prob of each answer is pushed by: the gradient of the objective at rho = 1.
  function pushes(right, lengths, objective, wrong) {
    const scale = objective !== "dr";
    const tokens = lengths.map((length) => length + (wrong === "trap2" ? PROMPT : 0));
    return advantages(rewards(right), { scale, wrong }).map((advantage, i) => {
      if (objective === "dr") return advantage / (SIZE * LONGEST);
      return objective === "dapo" ? advantage / sum(tokens) : advantage / (SIZE * tokens[i]);
    });
  }

  // How much a question with `count` right answers of 8 weighs: the sum of |A|.
  function weight(count, objective) {
    const right = Array.from({ length: SIZE }, (_, i) => (i < count ? 1 : 0));
    return sum(advantages(rewards(right), { scale: objective !== "dr" }).map(Math.abs));
  }

  // PPO (7): min(rho A, clip(rho) A), and what one writes instead.
  function surrogate(rho, advantage, low, high, form) {
    const clipped = Math.min(Math.max(rho, 1 - low), 1 + high) * advantage;
    if (form === "clip") return clipped;
    return form === "max" ? Math.max(rho * advantage, clipped) : Math.min(rho * advantage, clipped);
  }

  // The derivative by rho; on a corner that of the unclipped side, as autograd has it.
  function slope(rho, advantage, low, high, form) {
    if (rho >= 1 - low && rho <= 1 + high) return advantage;
    const clipped = surrogate(rho, advantage, low, high, "clip");
    const chosen = surrogate(rho, advantage, low, high, form);
    return form !== "clip" && chosen === rho * advantage && chosen !== clipped ? advantage : 0;
  }

  // One step of gradient ascent on the log-prob: d objective / d log pi = rho * slope.
  const stepped = (rho, ...rest) => rho * Math.exp(RATE * rho * slope(rho, ...rest));

  // --- the figure ---
  const NAMES = { grpo: "GRPO", dr: "Dr. GRPO", dapo: "DAPO" };
  const px = (value) => Math.round(value * 10) / 10;
  const put = (x, y, words, { anchor = "start", ...rest } = {}) => Kit.text(x, y - 5, words, { anchor, ...rest });
  function signed(value, decimals) {
    const shown = Number(value.toFixed(decimals));
    return (shown > 0 ? "+" : "") + (shown ? Kit.fix(shown, decimals) : "0");
  }

  function drawGroup(state, width) {
    const narrow = width < 520;
    const { right, lengths, objective, wrong } = state;
    const scores = rewards(right);
    const gains = advantages(scores, { scale: objective !== "dr", wrong });
    const push = pushes(right, lengths, objective, wrong);
    // Arrows of length 1 stand for an advantage of 1 and 16 tokens (8 times 40 for Dr. GRPO).
    const unit = push.map((one) => one * SIZE * (objective === "dr" ? LONGEST : 16));
    const tall = Math.min(11, 20 / Math.max(...unit.map(Math.abs), 1e-9));
    const [left, top, row] = [narrow ? 40 : 46, 44, narrow ? 47 : 46];
    const columns = narrow ? [width - 2] : [width - 146, width - 90, width - 2];
    const step = (columns[0] - (narrow ? 80 : 50) - left) / LONGEST;
    let body = "";
    const head = (x, text, options) => put(x, 16, text, { class: "muted", ...options });
    body += head(2, narrow ? "点：对错　拖：长度" : "点一下换对错，拖圆点改长度；一支箭头是一个 token");
    const titles = narrow ? ["优势，推力"] : ["得分", "优势", "每个 token"];
    titles.forEach((title, i) => { body += head(columns[i], title, { anchor: "end" }); });
    for (let i = 0; i < SIZE; i++) {
      const y = top + row * i + row / 2 - 12;
      const color = push[i] > 0 ? "blue" : "red";
      const good = Boolean(right[i]);
      body += Kit.press({
        name: `right.${i}`, value: good ? 0 : 1, label: `第 ${i + 1} 份：${good ? "对" : "错"}`, pressed: good,
        body: Kit.rect({ x: 1, y: y - 14, width: 30, height: 28, rx: 6, class: good ? "f-blue" : "f-ground s-red" })
          + put(16, y + 5, good ? "对" : "错", { anchor: "middle", class: good ? "on-dark" : "t-red" }),
      });
      const end = left + step * lengths[i];
      body += Kit.line({ x1: left, y1: y, x2: end, y2: y, class: "s-grey thin" });
      const high = -unit[i] * tall;
      const tip = Math.sign(high) * Math.min(3, Math.abs(high), step);
      let arrows = "";
      for (let t = 0; t < lengths[i]; t++) {
        const x = left + step * (t + 0.5);
        const side = Math.min(2.5, step / 2.6);
        arrows += Math.abs(high) < 0.3 ? `M${px(x - 1)} ${y}h2`
          : `M${px(x)} ${y}v${px(high)}m${px(-side)} ${px(-tip)}l${px(side)} ${px(tip)}l${px(side)} ${px(-tip)}`;
      }
      body += Kit.path({ d: arrows, class: Math.abs(high) < 0.3 ? "s-grey" : `s-${color}` });
      body += Kit.handle({
        name: `lengths.${i}`, label: `第 ${i + 1} 份的长度`, x: end + 8, y, value: lengths[i],
        min: 4, max: LONGEST, step: 1, axis: "x", from: left + step * 4 + 8, to: left + step * LONGEST + 8,
        body: Kit.circle({ cx: end + 8, cy: y, r: 6, class: push[i] ? `f-${color}` : "f-grey" }),
      });
      body += put(end + 18, y + 5, lengths[i], { class: "muted" });
      const tint = push[i] ? `t-${color}` : "muted";
      if (narrow) {
        body += put(columns[0], y - 3, signed(gains[i], 2), { anchor: "end", class: tint });
        body += put(columns[0], y + 13, signed(push[i], 4), { anchor: "end", class: tint });
      } else {
        body += put(columns[0], y + 5, Kit.fix(scores[i], 1), { anchor: "end" });
        body += put(columns[1], y + 5, signed(gains[i], 2), { anchor: "end", class: tint });
        body += put(columns[2], y + 5, signed(push[i], 4), { anchor: "end", class: tint });
      }
    }
    const base = top + row * SIZE + 58;
    body += drawWeights(state, width, base);
    const label = `八份回答与每个 token 受的推力，${NAMES[objective]}`;
    return Kit.svg(width, base + 24, label, body);
  }

  // What this question weighs among others: nine bars, one for each number of right answers.
  function drawWeights({ right, objective }, width, base) {
    const narrow = width < 520;
    const x0 = narrow ? 8 : 300;
    const pitch = (width - x0 - 8) / (SIZE + 1);
    const count = sum(right);
    let body = narrow ? "" : put(2, base - 24, "全组的推力 Σ|A|，随答对几份", {})
      + put(2, base - 6, objective === "dr" ? "不除以标准差：两端落得快" : "虚线：不除以标准差的形状", { class: "muted" });
    if (narrow) body += put(2, base - 54, "全组的推力 Σ|A|，随答对几份", {});
    const shape = [];
    for (let k = 0; k <= SIZE; k++) {
      const x = x0 + pitch * k;
      const share = (kind) => (44 * weight(k, kind)) / weight(SIZE / 2, kind);
      const high = share(objective);
      shape.push(`${k ? "L" : "M"}${px(x + pitch / 2)} ${px(base - share("dr"))}`);
      body += Kit.rect({
        x: x + pitch * 0.18, y: base - high, width: pitch * 0.64, height: high, class: k === count ? "f-green" : "f-grey faint",
      });
      body += put(x + pitch / 2, base + 16, k, { anchor: "middle", class: k === count ? "t-green" : "muted" });
    }
    if (objective !== "dr") body += Kit.path({ d: shape.join(""), class: "s-ink dash" });
    return body + Kit.line({ x1: x0, y1: base, x2: width - 8, y2: base, class: "s-ink" });
  }

  const FORMS = { none: "min", clip: "clip", max: "max" };
  const REACH = 2.2; // the largest ratio that is drawn

  function drawClip(state, width) {
    const narrow = width < 520;
    const { rho, low, high } = state;
    const form = FORMS[state.form];
    const advantage = Number(state.sign);
    const [left, foot, height] = [40, 292, 340];
    const x = Kit.scale([0, REACH], [left, width - 14]);
    const edge = REACH * advantage;
    const y = Kit.scale(advantage > 0 ? [0, edge] : [edge, 0], [foot, 26]);
    const value = (at) => surrogate(at, advantage, low, high, form);
    const curve = (f) => [0, 1 - low, 1 + high, REACH]
      .map((at, i) => `${i ? "L" : "M"}${px(x(at))} ${px(y(f(at)))}`).join("");
    let body = "";
    for (const [from, to] of [[0, 1 - low], [1 + high, REACH]]) {
      const [over, pull] = [from > 0, slope((from + to) / 2, advantage, low, high, form)];
      if (!pull) body += Kit.rect({ x: x(from), y: 26, width: x(to) - x(from), height: foot - 26, class: "f-grey faint" });
      const far = over === advantage > 0;
      const what = far ? (over ? "涨够了" : "降够了") : "走错了";
      const does = far ? (pull ? "还推" : "放手") : (pull ? "拉回来" : "也放手");
      const bad = Boolean(pull) === far;
      const words = x(to) - x(from) > 110 ? `${what}：${does}` : does;
      body += put(x(from) + 8, (advantage > 0) === over ? foot - 26 : 46, words, { class: bad ? "t-red" : "" });
    }
    body += Kit.line({ x1: left, y1: foot, x2: width - 14, y2: foot, class: "s-ink" });
    body += Kit.line({ x1: left, y1: 26, x2: left, y2: foot, class: "s-ink" });
    for (const at of [1 - low, 1, 1 + high]) {
      body += Kit.line({ x1: x(at), y1: 26, x2: x(at), y2: foot, class: "s-grey thin dash" });
    }
    const names = [[1 - low, "1−ε", "end"], [1, "1", "middle"], [1 + high, low === high ? "1+ε" : "1+ε′", "start"]];
    for (const [at, name, anchor] of names) body += put(x(at), foot + 18, name, { anchor });
    for (const at of [0, 2]) body += put(x(at), foot + 18, at, { anchor: "middle", class: "muted" });
    for (const at of [0, advantage, 2 * advantage]) {
      body += put(left - 6, y(at) + 5, Kit.num(at), { anchor: "end", class: "muted" });
    }
    body += put(2, 14, "目标 ℓ(ρ)", { class: "muted" });
    body += put(width - 14, foot + 40, narrow ? "ρ：概率是旧策略的几倍" : "ρ：这个 token 的概率是旧策略的几倍", { anchor: "end", class: "muted" });
    body += Kit.path({ d: curve((at) => at * advantage), class: "s-grey thin dash" });
    if (form !== "min") body += Kit.path({ d: curve((at) => surrogate(at, advantage, low, high, "min")), class: "s-blue faint thick" });
    body += Kit.path({ d: curve(value), class: `${form === "min" ? "s-blue" : "s-red"} thick` });
    const [ax, ay, pull] = [x(rho), y(value(rho)), slope(rho, advantage, low, high, form)];
    const reach = Math.sign(pull) * Math.min(70, 22 * Math.abs(rho * pull));
    body += Kit.line({ x1: ax, y1: ay, x2: ax, y2: foot, class: "s-grey thin" });
    if (pull) body += Kit.arrow({ x1: ax, y1: foot - 10, x2: ax + reach, y2: foot - 10, class: "s-green thick" });
    body += Kit.handle({
      name: "rho", label: "比率 ρ", x: ax, y: ay, value: rho, min: 0.05, max: REACH - 0.05, step: 0.01, axis: "x",
      from: x(0.05), to: x(REACH - 0.05), body: Kit.circle({ cx: ax, cy: ay, r: 8, class: pull ? "f-green" : "f-grey" }),
    });
    return Kit.svg(width, height, "截断的目标随比率", body);
  }

  // --- what just happened ---
  function sayGroup({ right, lengths, objective, wrong }) {
    const count = sum(right);
    const name = `<b>${NAMES[objective]}</b>`;
    if (count % SIZE === 0) {
      const all = count ? "全对" : "全错";
      if (wrong === "trap5" && objective !== "dr") {
        const score = count ? "1.1" : "0.1";
        const gap = Kit.num(Math.abs(mean(rewards(right)) - (count ? 1 + FORMAT : FORMAT)), 2);
        return `${all}，本不该有方向；可是八个 ${score} 的浮点均值差了 ${gap}，再除以同样小的标准差，<b>舍入误差</b>成了大小为 1 的优势。`;
      }
      return `${all}：每份都正好等于平均分，优势是 0，<b>一支箭头也没有</b>；这道题这一步什么也没有教。`;
    }
    const push = pushes(right, lengths, objective, wrong);
    const bad = [...right.keys()].filter((i) => !right[i]).sort((a, b) => lengths[a] - lengths[b]);
    const [short, long] = [bad[0], bad[bad.length - 1]];
    const share = Math.abs(push[long] / push[short]);
    if (wrong === "trap2") {
      const kept = lengths[short] / (lengths[short] + PROMPT);
      if (objective === "dr") return `题目的 ${PROMPT} 个 token 也受了推力；${name} 的分母是常数，回答里的箭头没有变，可推力本不该落在题目上。`;
      if (objective === "dapo") return `题目也算进了分母：全组的推力摊到 ${Kit.int(sum(lengths) + SIZE * PROMPT)} 个 token 上，本该是 ${Kit.int(sum(lengths))} 个。`;
      return `题目的 ${PROMPT} 个 token 也算进了分母，短的回答吃亏最多：第 ${short + 1} 份的推力只剩 ${Kit.percent(kept)}。`;
    }
    if (wrong === "trap5") return "有对有错时，舍入误差看不出来，与正确的写法一样。把八份都点成<b>错</b>，再看。";
    const pair = `第 ${short + 1} 份与第 ${long + 1} 份同样答错`;
    if (objective === "dr") return `${name} 除以常数 ${LONGEST}，也不除以标准差：答错的每个 token 受同样的罚，与<b>谁的长度</b>都无关。`;
    if (objective === "dapo") return `${name} 的分母是全组的 ${Kit.int(sum(lengths))} 个 token：答错的每个 token 受同样的罚，可随便拉长哪一份，<b>所有的</b>箭头都变短。`;
    if (lengths[short] === lengths[long]) return `答对 ${count} 份：优势只看对错，再<b>平摊</b>到这一份的每个 token 上。把一份答错的拉长，看它的箭头。`;
    return `${pair}，写 ${lengths[long]} 个 token 的，每个受的罚只有写 ${lengths[short]} 个的 ${Kit.percent(share)}：除以 |o|，<b>长的错误回答罚得轻</b>。`;
  }

  function sayClip({ rho, sign, low, high, form }) {
    const advantage = Number(sign);
    const where = rho > 1 + high ? "over" : rho < 1 - low ? "under" : "inside";
    const pull = slope(rho, advantage, low, high, FORMS[form]);
    const head = `A = ${Kit.num(advantage)}，ρ = ${Kit.fix(rho, 2)}，目标 ${Kit.fix(surrogate(rho, advantage, low, high, FORMS[form]), 2)}，斜率 ${Kit.num(pull)}：`;
    if (where === "inside") return `${head}比率还在界内，截断不起作用，照常${advantage > 0 ? "往上" : "往下"}推。`;
    const far = (where === "over") === advantage > 0;
    const moved = `${where === "over" ? "涨" : "降"}得太多`;
    if (pull && far) return `${head}概率已经${moved}，<b>还在推</b>；取了大的，该放手的地方不放手。`;
    if (pull) return `${head}走错了方向，取小留下没有截断的一项，<b>照样拉回来</b>。`;
    if (far) return `${head}概率已经${moved}，还想走同一个方向：<b>放手</b>。`;
    return `${head}走错了方向，却没有梯度，<b>再也拉不回来</b>。`;
  }

  const inGroup = (state) => state.tab === "group";
  const inClip = (state) => state.tab === "clip";
  const bare = (state) => slope(state.rho, Number(state.sign), state.low, state.high, FORMS[state.form]);
  const moved = (state) => {
    const next = stepped(state.rho, Number(state.sign), state.low, state.high, FORMS[state.form]);
    return { ...state, rho: Math.min(Math.max(Math.round(next * 100) / 100, 0.05), REACH - 0.05) };
  };

  return {
    rewards, advantages, pushes, weight, surrogate, slope, stepped, moved,
    name: "group",
    title: "一组回答",
    state: {
      tab: "group", right: RIGHT, lengths: LENGTHS, objective: "grpo", wrong: "none",
      rho: 1.5, sign: "-2", form: "none", low: 0.2, high: 0.2,
    },
    range: { right: [0, 1], lengths: [4, LONGEST], rho: [0.05, REACH - 0.05] },
    controls: [
      { kind: "tabs", name: "tab", label: "看什么", options: [["group", "一组回答"], ["clip", "一个 token 的截断"]] },
      { kind: "choice", name: "objective", label: "目标", options: Object.entries(NAMES), when: inGroup },
      { kind: "choice", name: "wrong", label: "写法", options: [["none", "正确"], ["trap2", "常见错误 2：题目也算"], ["trap5", "常见错误 5：舍入"]], when: inGroup },
      { kind: "choice", name: "sign", label: "优势", options: [["2", "A = 2"], ["-2", "A = −2"]], when: inClip },
      { kind: "choice", name: "form", label: "写法", options: [["none", "正确：取小"], ["clip", "常见错误 1：只截断"], ["max", "常见错误 1：取大"]], when: inClip },
      { kind: "slider", name: "low", label: "往下 ε", min: 0.05, max: 0.9, step: 0.01, show: (v) => Kit.fix(v, 2), when: inClip },
      { kind: "slider", name: "high", label: "往上 ε′", min: 0.05, max: 0.9, step: 0.01, show: (v) => Kit.fix(v, 2), when: inClip },
      { kind: "button", label: "按梯度走一步", act: moved, when: inClip },
    ],
    tidy: (state) => ({ ...state, right: state.right.map(Math.round), lengths: state.lengths.map(Math.round) }),
    presets: [
      { label: "正确", state: {} },
      { label: "常见错误 2", state: { wrong: "trap2" } },
      { label: "常见错误 5", state: { right: [0, 0, 0, 0, 0, 0, 0, 0], wrong: "trap5" } },
      { label: "截断", state: { tab: "clip" } },
      { label: "常见错误 1", state: { tab: "clip", form: "clip" } },
    ],
    draw: (state, data, width) => (inGroup(state) ? drawGroup : drawClip)(state, width),
    say: (state) => (inGroup(state) ? sayGroup : sayClip)(state),
    goals: [
      {
        ask: "让所有的箭头消失。有几种办法？",
        reached: (state) => inGroup(state) && pushes(state.right, state.lengths, state.objective, state.wrong).every((one) => !one),
        reply: "全对，或者全错：没有谁比谁好。DAPO 的动态采样把这样的题扔掉再抽。",
      },
      {
        ask: "GRPO，不改对错：让第 5 份（答错的）每个 token 受的罚减到一半以下。再换成 Dr. GRPO，还能吗？",
        reached: (state) => {
          if (!inGroup(state) || state.objective !== "grpo" || state.wrong !== "none") return false;
          if (state.right.some((one, i) => one !== RIGHT[i])) return false;
          const [before, after] = [LENGTHS, state.lengths].map((lengths) => pushes(RIGHT, lengths, "grpo", "none")[4]);
          return 2 * after >= before;
        },
        reply: "只要把它拉长一倍：一样的错，分母 |o| 大了，罚就轻了。Dr. GRPO 的分母是常数，怎么拉都不变。",
      },
      {
        ask: "另一页：A = −2，从 ρ = 1.5 起按梯度一步一步走，它停在哪里？换成只截断的写法呢？",
        reached: (state) => inClip(state) && state.form === "none" && state.sign === "-2" && bare(state) === 0,
        reply: "正确的写法先退回 1，再退到 1−ε 以下才停。只截断的写法在 ρ = 1.5 一步也走不动：那里梯度是 0。",
      },
    ],
  };
})();
Kit.add(GroupLab);
