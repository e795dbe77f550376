// Drag the affinities and biases of 16 experts on 4 nodes: which nodes stay, who is chosen, what each
// one weighs. `route` is dsnotes.model.moe.Gate with groups, for one token; wrong: its traps 1, 3, 4.
const RouterLab = (() => {
  const NODES = 4, SIZE = 4; // experts of node n: 4n … 4n + 3

  // The k largest, largest first; of equals the first.
  const top = (values, k) => [...values.keys()].sort((i, j) => values[j] - values[i] || i - j).slice(0, k);
  const sum = (values) => values.reduce((a, b) => a + b, 0);

  // scores: s = sigmoid(u·e); softmax is of the same u·e, and e^(u·e) = s / (1 − s).
  function route(scores, bias, { nodes, experts, scoring, normalise, wrong }) {
    const odds = scores.map((s) => s / (1 - s));
    const affinity = scoring === "softmax" ? odds.map((o) => o / sum(odds)) : scores;
    const biased = affinity.map((s, i) => s + bias[i]);
    const counted = [...Array(NODES).keys()].map((n) =>
      top(biased.slice(n * SIZE, (n + 1) * SIZE), wrong === "trap3" ? 1 : 2).map((i) => n * SIZE + i));
    const nodeScores = counted.map((best) => sum(best.map((i) => biased[i])));
    const kept = top(nodeScores, nodes);
    const closed = wrong === "trap4" ? 0 : -Infinity;
    const masked = biased.map((x, i) => (kept.includes(Math.floor(i / SIZE)) ? x : closed));
    const indices = top(masked, experts);
    const taken = indices.map((i) => (wrong === "trap1" ? biased : affinity)[i]);
    const total = normalise ? sum(taken) + 1e-20 : 1;
    return { affinity, biased, counted, nodeScores, kept, indices, taken, total,
      weights: taken.map((x) => x / total) };
  }

  const SCORES = [0.62, 0.18, 0.35, 0.27, 0.48, 0.71, 0.12, 0.3, 0.81, 0.09, 0.22, 0.15, 0.41, 0.52, 0.33, 0.58];
  const BIAS = SCORES.map((_, i) => ({ 8: -0.1, 14: 0.2 })[i] ?? 0);
  const START = { scores: SCORES, bias: BIAS, nodes: 2, experts: 4, scoring: "sigmoid", normalise: true, wrong: "none" };

  // What the state gives, and what the right code gives.
  const both = (state) => ({ mine: route(state.scores, state.bias, state),
    right: route(state.scores, state.bias, { ...state, wrong: "none" }) });
  const node = (i) => Math.floor(i / SIZE);
  const two = (x) => Kit.fix(x, 2);
  const short = (x) => two(x).replace(/^(−?)0\./, "$1."); // .62
  const names = (experts) => [...experts].sort((i, j) => i - j).join("、");
  const weight = (routing, i) => routing.weights[routing.indices.indexOf(i)] ?? 0;

  // --- the figure ---

  const HIGH = 1.28, LOW = -0.9; // of the axis: s + b lies in it
  const HINTS = ["拖柱顶：亲和度 s", "拖圆圈：偏置 b", "粗线：节点计分的两个", "虚线框：s + b"];
  const TITLE = 26, NUMBER = 20, ROW = 24;

  function draw(state, _data, width) {
    const { mine, right } = both(state);
    const columns = width < 620 ? 2 : 4, gap = 8;
    const unit = columns === 2 ? 60 : 78, wide = (width - (columns - 1) * gap - 2) / columns;
    const tall = TITLE + (HIGH - LOW) * unit + NUMBER;
    const parts = mine.nodeScores.map((_, n) => drawNode(state, mine, right, n, {
      x: 1 + (n % columns) * (wide + gap), y: 1 + Math.floor(n / columns) * (tall + gap), wide, tall, unit }));
    const from = (NODES / columns) * (tall + gap) + 10;
    const [rows, height] = drawWeights(state, mine, right, from, width);
    return Kit.svg(width, height, label(mine), parts.join("") + rows);
  }

  const label = ({ kept, indices, weights }) => `四个节点，十六个专家。留下节点 ${names(kept)}；选中` +
    indices.map((i, at) => `专家 ${i}（权重 ${two(weights[at])}）`).join("、");

  function drawNode(state, mine, right, n, { x, y, wide, tall, unit }) {
    const open = mine.kept.includes(n), zero = y + TITLE + HIGH * unit;
    const terms = mine.counted[n].map((i) => short(mine.biased[i])).join("+").replace("+−", "−");
    const score = short(mine.nodeScores[n]), fits = 6.3 * (terms.length + score.length) + 87 < wide;
    const whole = (mine.counted[n].length > 1 && fits ? `<tspan class="plain">${terms} = </tspan>` : "") + score;
    const hint = Math.min(...state.bias.slice(n * SIZE, (n + 1) * SIZE)) > -0.2 ? HINTS[n] : ""; // where there is room
    const pitch = (wide - 12) / SIZE;
    return Kit.rect({ x, y, width: wide, height: tall, rx: 5, class: open ? "f-none s-blue thick" : "f-none s-grey dash" }) +
      Kit.text(x + 8, y + 14, `${open ? "✓" : "✗"} 节点 ${n}`, { anchor: "start", class: open ? "bold" : "muted" }) +
      Kit.text(x + wide - 8, y + 14, whole, { anchor: "end", class: open ? "bold" : "muted" }) +
      Kit.text(x + wide / 2, zero + 0.55 * unit, hint, { class: "small muted" }) +
      Kit.line({ x1: x + 4, x2: x + wide - 4, y1: zero, y2: zero, class: "s-soft" }) +
      [0, 1, 2, 3].map((k) => drawExpert(state, mine, right, n * SIZE + k, {
        x: x + 6 + k * pitch, pitch, zero, unit, bottom: y + tall, open })).join("");
  }

  function drawExpert(state, mine, right, i, { x, pitch, zero, unit, bottom, open }) {
    const at = (value) => zero - value * unit;
    const s = mine.affinity[i], b = state.bias[i], chosen = mine.indices.includes(i);
    const stray = chosen && !right.indices.includes(i);
    const left = x + 3, thick = pitch - 20, middle = left + thick / 2, knob = x + pitch - 9;
    const box = (from, to, extra) => Kit.rect({ y: at(Math.max(from, to)), height: Math.abs(to - from) * unit, ...extra });
    const colour = stray ? "f-purple" : chosen ? "f-blue" : open ? "f-blue faint" : "f-grey faint";
    let body = box(0, s, { x: left, width: thick, class: colour });
    if (b) body += box(s, s + b, { x: left, width: thick, class: "f-none s-red dash" });
    if (b) body += box(0, b, { x: knob - 3, width: 6, class: "f-red faint" });
    if (mine.counted[node(i)].includes(i))
      body += Kit.line({ x1: left - 3, x2: left + thick + 3, y1: at(s + b), y2: at(s + b), class: "s-ink thick" });
    if (state.wrong === "trap4" && !open)
      body += Kit.line({ x1: left - 2, x2: left + thick + 2, y1: zero, y2: zero, class: "s-purple thick" }) +
        (Math.abs(b) > 0.15 ? Kit.text(knob, zero, 0, { class: "t-purple bold halo" }) : "");
    if (state.scoring === "softmax") // the bar is no longer what is dragged
      body += Kit.line({ x1: middle, x2: middle, y1: at(s), y2: at(state.scores[i]), class: "s-soft dash" });
    const above = at(Math.max(s, s + b, state.scoring === "softmax" ? state.scores[i] : 0)) - 13;
    body += Kit.text(middle, above, short(s), { anchor: "middle", class: chosen ? "bold" : "muted" });
    body += Kit.text(x + pitch / 2 - 4, bottom - 11, i, { anchor: "middle", class: chosen ? "bold" : "muted" });
    return body + Kit.handle({ name: `scores.${i}`, label: `专家 ${i} 的亲和度`, axis: "y", reach: 12, x: middle, y: at(state.scores[i]),
      value: state.scores[i], min: 0.01, max: 0.99, step: 0.01, from: at(0.01), to: at(0.99),
      body: Kit.rect({ x: middle - 9, y: at(state.scores[i]) - 4, width: 18, height: 8, rx: 4,
        class: "f-ground " + (chosen ? "s-blue thick" : "s-soft") }) }) +
      Kit.handle({ name: `bias.${i}`, label: `专家 ${i} 的偏置`, axis: "y", reach: 12, x: knob, y: at(b), value: b,
        min: -0.9, max: 0.28, step: 0.01, from: at(-0.9), to: at(0.28),
        body: Kit.circle({ cx: knob, cy: at(b), r: 5, class: "f-ground s-red thick" }) });
  }
    function drawWeights(state, mine, right, y, width) {
    const what = state.wrong === "trap1" ? "s + b" : "s", trapped = state.wrong !== "none";
    const start = 58, end = width - (state.normalise ? 134 : 50);
    const along = Kit.scale([0, Math.max(0.5, ...mine.weights, ...right.weights)], [start, end]);
    const how = state.normalise ? `除以它们的和 ${two(mine.total)}` : "不归一";
    let body = Kit.text(0, y + 12, `权重：选中的 ${what}，${how}`, { anchor: "start", class: "bold" });
    y += 22;
    for (const i of [...mine.indices].sort((a, b) => a - b)) {
      const g = weight(mine, i), at = mine.indices.indexOf(i), real = weight(right, i);
      const stray = !right.indices.includes(i);
      body += Kit.text(0, y + 11, `专家 ${i}`, { anchor: "start" }) +
        Kit.rect({ x: start, y: y + 3, width: Math.max(0, along(g) - start), height: 15, class: stray ? "f-purple" : "f-blue" });
      if (trapped && real)
        body += Kit.rect({ x: start, y: y + 1, width: along(real) - start, height: 19, class: "f-none s-ink dash" });
      const quotient = state.normalise ? `${two(mine.taken[at])} / ${two(mine.total)} = ` : "";
      body += Kit.text(width, y + 11, quotient + two(g), { anchor: "end" });
      y += ROW;
    }
    if (trapped) {
      const words = [...right.indices].sort((a, b) => a - b).map((i) => `${i} 占 ${short(weight(right, i))}`);
      body += Kit.text(0, y + 11, `正确：专家 ${words.join("，")}`, { anchor: "start", class: "muted" });
      y += ROW;
    }
    return [body, y + 4];
  }

  // --- the sentence ---

  function say(state) {
    const { mine, right } = both(state);
    if (state.wrong === "none") return sayRight(state, mine);
    const same = names(mine.indices) === names(right.indices);
    if (state.wrong === "trap1") return sayBiasedWeights(state, mine, right);
    if (same) return state.wrong === "trap3"
      ? "每个节点只看最高的一个，这一次碰巧选中同样的专家；抬高某个节点的第二名试试。"
      : "关掉的节点填 0，这一次没有出错，因为留下的节点里够多的 s + b 是正数；把偏置压低试试。";
    if (state.wrong === "trap3") {
      const lost = right.kept.filter((n) => !mine.kept.includes(n)), won = mine.kept.filter((n) => !right.kept.includes(n));
      return `节点只看最高的一个：节点 ${names(won)} 凭一个专家挤掉了节点 ${names(lost)}，那里的前两名合起来更强，` +
        `却一个也选不到。`;
    }
    const strays = mine.indices.filter((i) => !mine.kept.includes(node(i)));
    return `关掉的节点填了 0，而留下的节点里许多 s + b 是负数，0 反而更大：专家 ${names(strays)} ` +
      `来自关掉的节点，也被选中；填 −∞ 就不会。`;
  }

  function sayBiasedWeights(state, mine, right) {
    const moved = mine.indices.filter((i) => state.bias[i]);
    if (!moved.length) return "权重用了 s + b；选中的专家偏置都是 0，所以这一次看不出错。";
    const worst = moved.reduce((a, b) =>
      (Math.abs(weight(mine, b) - weight(right, b)) > Math.abs(weight(mine, a) - weight(right, a)) ? b : a));
    return `选中的还是同样的专家，权重却用了 s + b：专家 ${worst} 从 ${two(weight(right, worst))} 变成 ` +
      `<b>${two(weight(mine, worst))}</b>，均衡用的偏置改变了模型的输出。`;
  }

  function sayRight(state, mine) {
    const plain = route(state.scores, state.bias.map(() => 0), state);
    const helped = mine.indices.filter((i) => state.bias[i] > 0 && !plain.indices.includes(i));
    const best = top(mine.affinity, 1)[0], last = Math.min(...mine.kept.map((n) => mine.nodeScores[n]));
    const said = [];
    if (state.scoring === "softmax")
      said.push("softmax 的分数加起来是 1，拖高一个，别的都矮下去，同样的偏置就重了许多");
    if (!mine.indices.includes(best))
      said.push(mine.kept.includes(node(best)) ? `专家 ${best} 的亲和度最高，却被偏置压了下去`
        : `专家 ${best} 的亲和度最高，却落选：节点 ${node(best)} 的前两名之和 ${two(mine.nodeScores[node(best)])} 不及 ${two(last)}`);
    if (helped.length)
      said.push(`专家 ${names(helped)} 靠偏置入选，权重仍按自己的亲和度算，是 <b>${helped.map((i) => two(weight(mine, i))).join("、")}</b>`);
    if (!said.length) said.push(names(plain.indices) === names(mine.indices)
      ? "没有偏置也选中这几个专家：偏置没有改变谁入选，也就没有改变任何权重"
      : `偏置把某个专家压了下去，换上了专家 ${names(mine.indices.filter((i) => !plain.indices.includes(i)))}`);
    if (!state.normalise) said.push(`不归一，权重之和是 ${two(sum(mine.weights))}`);
    return said.join("；") + "。";
  }

  // --- questions ---

  const changed = (now, before) => now.flatMap((x, i) => (x !== before[i] ? [i] : []));
  // Only one bias moved, and nothing else but what `fields` says.
  const oneBias = (state, fields) => Object.entries({ ...START, ...fields }).every(([name, value]) =>
    name === "bias" || String(state[name]) === String(value)) && changed(state.bias, BIAS).length === 1;

  const goals = [
    { ask: "只动一个偏置，让专家 5 落选。还有谁跟着落选？",
      reached: (state) => oneBias(state, {}) && !both(state).mine.indices.includes(5),
      reply: "压低专家 5，节点 1 的前两名之和先输给了节点 0，于是整个节点落选，不论里面别的专家怎样。" },
    { ask: "不碰专家 8，只动一个偏置，让节点 2 留下。",
      reached: (state) => oneBias(state, {}) && state.bias[8] === BIAS[8] && both(state).mine.kept.includes(2),
      reply: "节点数的是前两名之和，第一名已经够高，抬它的第二名就行。只看最高的一个（常见错误 3），动第二名没有用。" },
    { ask: "选“常见错误 4”，M 取 1，只动一个偏置，让关掉的节点里混进一个专家。",
      reached: (state) => oneBias(state, { wrong: "trap4", nodes: 1 }) &&
        both(state).mine.indices.some((i) => !both(state).mine.kept.includes(node(i))),
      reply: "留下的节点只有四个专家，其中一个的 s + b 低于 0，关掉的节点填的 0 就赢了它。亲和度都是正数，错误是偏置变负以后才露出来的。" },
  ];

  return {
    route, name: "router", title: "路由台", state: START, draw, say, goals,
    range: { scores: [0.01, 0.99], bias: [-0.9, 0.28] },
    controls: [
      { kind: "choice", name: "wrong", label: "写法",
        options: [["none", "正确"], ["trap1", "常见错误 1"], ["trap3", "常见错误 3"], ["trap4", "常见错误 4"]] },
      { kind: "slider", name: "nodes", label: "留几个节点，M", min: 1, max: 4, step: 1 },
      { kind: "slider", name: "experts", label: "选几个专家，K", min: 1, max: 4, step: 1 },
      { kind: "choice", name: "scoring", label: "打分", options: [["sigmoid", "sigmoid"], ["softmax", "softmax"]] },
      { kind: "toggle", name: "normalise", label: "归一" },
    ],
    presets: [
      { label: "正确", state: {} },
      { label: "常见错误 1：权重用 s + b", state: { wrong: "trap1" } },
      { label: "常见错误 2：softmax", state: { scoring: "softmax" } },
      { label: "常见错误 3：节点取最大值", state: { wrong: "trap3" } },
      { label: "常见错误 4：关掉的填 0", state: { wrong: "trap4", bias: BIAS.map(() => -0.9) } },
    ],
  };
})();
Kit.add(RouterLab);
