// Matrices that mix four streams, multiplied over depth: what an alternation of columns and rows does to one of
// them, and how much is passed on through 122. Tested against dsnotes.after.hyper.
const HyperLab = (() => {
  // --- the mathematics: a matrix is a list of rows ---
  const N = 4, DEPTH = 122;
  const rowSums = (m) => m.map((row) => row.reduce((a, b) => a + b));
  const columnSums = (m) => m[0].map((_, j) => m.reduce((sum, row) => sum + row[j], 0));
  const byRows = (m, eps) => { const sums = rowSums(m); return m.map((row, i) => row.map((x) => x / (sums[i] + eps))); };
  const byColumns = (m, eps) => { const sums = columnSums(m); return m.map((row) => row.map((x, j) => x / (sums[j] + eps))); };
  // exp, its columns made to sum to 1 without overflow.
  function exponentials(logits) {
    const top = logits[0].map((_, j) => Math.max(...logits.map((row) => row[j])));
    return byColumns(logits.map((row) => row.map((x, j) => Math.exp(x - top[j]))), 0);
  }
  function sinkhorn(logits, iters, eps) {
    let m = exponentials(logits).map((row) => row.map((x) => x + eps));
    for (let step = 0; step < iters; step++) m = byRows(step ? byColumns(m, eps) : m, eps);
    return m;
  }
  const softmax = (logits) => byRows(logits.map((row) => row.map((x) => Math.exp(x - Math.max(...row)))), 0);
  const free = (noise, size) => noise.map((row, i) => row.map((x, j) => (i === j) + size * x));
  const product = (a, b) => a.map((row) => b[0].map((_, j) => row.reduce((sum, x, k) => sum + x * b[k][j], 0)));
  // After each of the matrices: the largest sum of absolute values in a row of the product, and in a column.
  function gains(matrices) {
    let all = matrices[0].map((row, i) => row.map((_, j) => Number(i === j)));
    return matrices.map((m) => {
      all = product(m, all);
      const size = all.map((row) => row.map(Math.abs));
      return [Math.max(...rowSums(size)), Math.max(...columnSums(size))];
    });
  }
  function noises(seed) {
    const uniform = Kit.random(seed);
    const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    return Array.from({ length: DEPTH }, () => Array.from({ length: N }, () => Array.from({ length: N }, normal)));
  }
  const mixings = ({ rule, noise, sharp, iters, eps, seed }) => noises(seed).map((x) => {
    if (rule === "free") return free(x, noise);
    const logits = x.map((row) => row.map((v) => sharp * v));
    return rule === "rows" ? softmax(logits) : sinkhorn(logits, iters, eps ? 1e-6 : 0);
  });

  // --- the figure ---
  const off = (sums) => Math.max(...sums.map((x) => Math.abs(x - 1)));
  const sum = (x) => Math.abs(x - 1) < 5e-4 ? "1" : Kit.fix(x, Math.abs(x - 1) < .1 ? 3 : 2);
  const times = (x) => x < 1.1 ? Kit.fix(x, 3) : Kit.num(x);
  const right = (x) => Math.abs(x - 1) < 5e-4;

  // One matrix, its entries, and the sums beside and below it.
  function table(x, y, cell, m) {
    const rows = rowSums(m), columns = columnSums(m), side = cell * N;
    const entries = m.flatMap((row, i) => row.map((value, j) =>
      Kit.rect({ x: x + cell * j, y: y + cell * i, width: cell, height: cell, class: value < 0 ? "f-red" : "f-blue",
        "fill-opacity": (.55 * Math.min(1, Math.abs(value))).toFixed(3) }) +
      Kit.text(x + cell * (j + .5), y + cell * (i + .5), Kit.fix(value, 2), { class: "small" })));
    const mark = (value) => right(value) ? "bold t-green" : "t-red";
    return entries.join("") + Kit.rect({ x, y, width: side, height: side, class: "f-none s-grey" }) +
      rows.map((value, i) => Kit.text(x + side + 8, y + cell * (i + .5), sum(value), { anchor: "start", class: mark(value) })).join("") +
      columns.map((value, j) => Kit.text(x + cell * (j + .5), y + side + 14, sum(value), { class: mark(value) })).join("") +
      Kit.text(x + side / 2, y - 14, "一个子层的混合矩阵") +
      Kit.text(x + side + 8, y - 14, "行和", { anchor: "start", class: "muted" }) +
      Kit.text(x + side / 2, y + side + 34, "列和", { class: "muted" });
  }

  function draw(state, data, width) {
    const matrices = mixings(state), over = gains(matrices), narrow = width < 560, { depth } = state;
    const cell = 44, left = 4, top = 34, bottom = top + cell * N + 46;
    const x0 = narrow ? 40 : 300, x1 = width - 12, y0 = narrow ? bottom + 30 : top, high = narrow ? 170 : cell * N;
    const all = over.flat(), peak = Math.max(2, ...all), low = Math.min(1, ...all) * .97;
    const x = Kit.scale([0, DEPTH], [x0, x1]), y = Kit.log([low, peak * 1.05], [y0 + high, y0]);
    const parts = [table(left, top, cell, matrices[0])];
    const ticks = [.1, 1, 2, 5, 10, 100, 1000, 1e4, 1e5, 1e6, 1e7, 1e8].filter((t) => t >= low && t <= peak * 1.05 && (t < 10 || peak < 3e3 || t === 1e3 || t === 1e6));
    for (const tick of ticks)
      parts.push(Kit.line({ x1: x0, x2: x1, y1: y(tick), y2: y(tick), class: tick === 1 ? "s-grey" : "s-soft" }),
        Kit.text(x0 - 6, y(tick), Kit.num(tick), { anchor: "end", class: "muted" }));
    const curve = (which, colour, more) => Kit.path({ class: `${colour} ${more}`,
      d: "M" + [[0, 1], ...over.map((pair, i) => [i + 1, pair[which]])].map(([l, g]) => `${x(l).toFixed(1)} ${y(g).toFixed(1)}`).join("L") });
    parts.push(curve(1, "s-orange", "thick"), curve(0, "s-blue", "thick dash"));
    const [forward, backward] = over[depth - 1], foot = y0 + high;
    parts.push(Kit.line({ x1: x(depth), x2: x(depth), y1: y0, y2: foot, class: "dash" }),
      Kit.handle({ name: "depth", label: "看到第几个子层", x: x(depth), y: foot, value: depth, min: 1, max: DEPTH, step: 1,
        axis: "x", from: x(1), to: x(DEPTH) }),
      Kit.text(x0, y0 - 14, `向前 ${times(forward)} 倍`, { anchor: "start", class: "bold t-blue" }),
      Kit.text(x1, y0 - 14, `向后 ${times(backward)} 倍`, { anchor: "end", class: "bold t-orange" }),
      Kit.text((x0 + x1) / 2, foot + 24, `乘了 ${depth} 个子层（虚线向前，实线向后）`, { class: "muted" }));
    return Kit.svg(width, Math.max(bottom, foot + 40), `混合矩阵与 ${depth} 个子层的增益`, parts.join(""));
  }

  function say(state) {
    const { rule, noise, sharp, iters, eps, depth } = state;
    const matrices = mixings(state), [forward, backward] = gains(matrices)[depth - 1];
    if (rule === "free")
      return noise < .005 ? "噪声是零，每个矩阵都是单位矩阵，也就是普通的残差，增益恒为 1。"
        : `每个矩阵离单位矩阵只差 ${Kit.num(noise)} 左右，${depth} 个乘起来，信号最多放大到 <b>${times(forward)} 倍</b>，梯度 <b>${times(backward)} 倍</b>。`;
    if (rule === "rows")
      return `行和都是 1，向前恰好 1 倍；列和没有人管，梯度最多放大到 <b>${times(backward)} 倍</b>，四条流的行和合计是 4，所以它不会超过 4。`;
    const apart = Math.max(...matrices.map((m) => off(columnSums(m))));
    return `除了 ${iters} 遍${eps ? "，带 eps" : ""}：行和${eps ? "只差百万分之一" : "是准的"}，列和最多差 <b>${Kit.num(apart, 2)}</b>，${depth} 个子层向后 ` +
      `<b>${times(backward)} 倍</b>；${apart > .02 ? (sharp > 2 ? "分数越悬殊，迭代得越慢。" : "遍数太少，列还没有除准。") : "两边都守住了。"}`;
  }

  return {
    sinkhorn, softmax, free, gains, mixings, rowSums, columnSums,
    name: "hyper", title: "乘一百二十二次",
    state: { rule: "free", noise: .1, sharp: 1, iters: 20, eps: false, depth: DEPTH, seed: 1 },
    range: { depth: [1, DEPTH], seed: [1, 99] },
    tidy: (state) => ({ ...state, iters: Math.round(state.iters), depth: Math.round(state.depth), seed: Math.round(state.seed) }),
    controls: [
      { kind: "tabs", name: "rule", label: "混合矩阵", options: [["free", "不约束"], ["rows", "只管行"], ["sinkhorn", "双随机"]] },
      { kind: "slider", name: "noise", label: "离单位矩阵多远", min: 0, max: .2, step: .01, show: (v) => Kit.fix(v, 2), when: ({ rule }) => rule === "free" },
      { kind: "slider", name: "sharp", label: "分数多悬殊（标准差）", min: .5, max: 10, step: .5, show: (v) => Kit.num(v), when: ({ rule }) => rule !== "free" },
      { kind: "slider", name: "iters", label: "除几遍", min: 1, max: 40, step: 1, show: (v) => Kit.int(v), when: ({ rule }) => rule === "sinkhorn" },
      { kind: "toggle", name: "eps", label: "加 eps = 10⁻⁶", when: ({ rule }) => rule === "sinkhorn" },
      { kind: "button", label: "换一组随机数", act: (state) => ({ ...state, seed: state.seed % 99 + 1 }) },
    ],
    presets: [
      { label: "不约束", state: {} },
      { label: "只管行", state: { rule: "rows" } },
      { label: "双随机", state: { rule: "sinkhorn" } },
      { label: "只除一遍", state: { rule: "sinkhorn", iters: 1 } },
      { label: "悬殊的分数", state: { rule: "sinkhorn", sharp: 6 } },
    ],
    draw, say,
    goals: [
      { ask: "不约束，但不许是单位矩阵：离它多近，122 个子层以后才不到 2 倍？",
        reached: (state) => state.rule === "free" && state.noise > 0 && state.depth === DEPTH && Math.max(...gains(mixings(state))[DEPTH - 1]) < 2,
        reply: "每一层只许差百分之一二。要靠训练自己守住这个范围，不如把它写进矩阵里。" },
      { ask: "双随机，分数的标准差是 1：至少除几遍，每个列和与 1 都差不到百分之一？",
        reached: (state) => state.rule === "sinkhorn" && state.sharp === 1 && near(state) && !near({ ...state, iters: state.iters - 1 }),
        reply: "平的分数，几遍就够。二十遍是给悬殊的分数留的余地。" },
      { ask: "双随机，除二十遍，让某个列和仍然差出百分之五以上。",
        reached: (state) => state.rule === "sinkhorn" && state.iters === 20 && Math.max(...mixings(state).map((m) => off(columnSums(m)))) > .05,
        reply: "“双随机”是迭代的终点，二十遍未必走到。行最后除，所以准的总是行。" },
    ],
  };
  function near(state) {
    return state.iters > 0 && Math.max(...mixings(state).map((m) => off(columnSums(m)))) < .01;
  }
})();
Kit.add(HyperLab);
