// One query, sixteen earlier tokens: what the indexer scores, what is read, and how much of the attention that catches.
// Tested against dsnotes.after.indexer.
const SparseLab = (() => {
  // --- the mathematics ---
  const RAW = [3, 1, 14, 2, 1, 2, 9, 16, 1, 2, 1, 3, 2, 12, 4, 7], TOTAL = RAW.reduce((a, b) => a + b, 0);
  const TARGET = RAW.map((x) => x / TOTAL); // the attention of the layer, summed over its heads
  const N = TARGET.length, BLOCK = 4;
  function softmax(x) {
    const top = Math.max(...x), e = x.map((v) => Math.exp(v - top)), sum = e.reduce((a, b) => a + b, 0);
    return e.map((v) => v / sum);
  }
  const best = (values, k) => values.map((v, i) => [v, i]).sort((a, b) => b[0] - a[0] || a[1] - b[1]).slice(0, k).map(([, i]) => i);
  function choose(scores, k, way) { // true where the query reads
    let chosen = best(way === "best" ? TARGET : scores, k);
    if (way === "window") chosen = TARGET.map((_, i) => i).slice(N - k);
    if (way === "block") {
      const sums = [], p = softmax(scores);
      for (let b = 0; b < N / BLOCK; b++) sums.push(p.slice(b * BLOCK, (b + 1) * BLOCK).reduce((x, y) => x + y, 0));
      chosen = best(sums, Math.max(1, Math.floor(k / BLOCK))).flatMap((b) => [0, 1, 2, 3].map((i) => b * BLOCK + i));
    }
    return TARGET.map((_, i) => chosen.includes(i));
  }
  const caught = (chosen) => TARGET.reduce((sum, p, i) => sum + (chosen[i] ? p : 0), 0);
  function loss(scores, chosen) { // (3) where all are chosen, (4) else
    const at = TARGET.map((_, i) => i).filter((i) => chosen[i]), guess = softmax(at.map((i) => scores[i])), whole = caught(chosen);
    return at.reduce((sum, i, j) => sum + (TARGET[i] / whole) * Math.log(TARGET[i] / whole / guess[j]), 0);
  }
  function learn(scores, rate) { // down the gradient of (3): softmax(I) - p
    const guess = softmax(scores);
    return scores.map((v, i) => v - rate * (guess[i] - TARGET[i]));
  }

  // --- the figure ---
  const ALL = TARGET.map(() => true);
  const scaled = (s) => s.scores.map((v) => v * s.scale);
  const picked = (s) => choose(scaled(s), s.topK, s.way);
  const hits = (s) => { const chosen = picked(s); return best(TARGET, s.topK).filter((i) => chosen[i]).length; };

  function draw(s, data, width) {
    const chosen = picked(s), step = (width - 50) / N, bar = step * 0.68, height = 330;
    const up = Kit.scale([0, 0.22], [120, 20]), down = Kit.scale([0, 5], [290, 190]);
    const colour = s.way === "window" ? "orange" : s.way === "block" ? "purple" : s.way === "best" ? "green" : "blue";
    let body = Kit.text(4, 12, "这一层的注意力，各头相加", { anchor: "start" }) + Kit.text(4, 178, "索引分数（拖圆点）", { anchor: "start" });
    for (let i = 0; i < N; i++) {
      const x = 44 + i * step, mid = x + bar / 2, top = down(Math.min(5, s.scores[i]));
      body += Kit.rect({ x, y: up(TARGET[i]), width: bar, height: 120 - up(TARGET[i]), class: chosen[i] ? `f-${colour}` : "f-grey faint" });
      body += Kit.rect({ x, y: 130, width: bar, height: 18, class: chosen[i] ? `f-${colour}` : "f-none s-soft" });
      if (chosen[i] && bar > 16) body += Kit.text(mid, 140, "读", { anchor: "middle", class: colour === "blue" ? "on-dark" : "on" });
      body += Kit.line({ x1: mid, x2: mid, y1: 290, y2: top, class: `s-${chosen[i] ? colour : "soft"} thick` });
      body += Kit.handle({ name: `scores.${i}`, label: `第 ${i + 1} 个 token 的索引分数`, x: mid, y: top, value: s.scores[i], min: 0, max: 5, step: 0.1,
        axis: "y", from: 290, to: 190, body: Kit.circle({ cx: mid, cy: top, r: 6, class: `f-${chosen[i] ? colour : "grey"}` }) });
      if (i % 3 === 0 || i === N - 1) body += Kit.text(mid, 314, i + 1, { anchor: "middle" });
    }
    body += Kit.text(4, 140, "选中", { anchor: "start" }) + Kit.line({ x1: 40, x2: width - 4, y1: 120, y2: 120, class: "s-soft" })
      + Kit.line({ x1: 40, x2: width - 4, y1: 290, y2: 290, class: "s-soft" });
    return Kit.svg(width, height, "一个查询读哪几个 token", body);
  }

  function say(s) {
    const chosen = picked(s), n = chosen.filter(Boolean).length;
    const how = { token: "索引器逐个选", block: "按块选", window: "只看最近的", best: "照注意力本身选" }[s.way];
    let why = `式 3 的损失 ${Kit.num(loss(scaled(s), ALL), 2)}，式 4 的 ${Kit.num(loss(scaled(s), chosen), 2)}`;
    if (s.way === "window") why = "远处重要的一个也看不到，分数怎样变都一样";
    if (s.way === "block") why = "一块里有一个重要，四个都要读";
    if (s.way === "best") why = "这是读这么多个的上限";
    if (s.scale > 1 && s.way === "token") why += "，分数放大，选的不变，损失却变了";
    return `${how}：读 ${n} 个，接住 <b>${Kit.percent(caught(chosen))}</b> 的注意力，选中最重要的 ${s.topK} 个里的 ${hits(s)} 个。${why}。`;
  }

  return {
    TARGET, choose, caught, loss, learn, softmax,
    name: "sparse", title: "读哪几个",
    state: { scores: [2, 1.2, 1.5, 2.6, 1, 2.2, 1.4, 1.9, 1.1, 2.4, 1.6, 0.8, 2.1, 1.3, 1.8, 1.7], topK: 4, way: "token", scale: 1 },
    range: { scores: [0, 5] },
    controls: [
      { kind: "choice", name: "way", label: "选法", options: [["token", "索引器"], ["block", "按块"], ["window", "最近的"], ["best", "上限"]] },
      { kind: "slider", name: "topK", label: "k", min: 1, max: 16, step: 1 },
      { kind: "slider", name: "scale", label: "分数乘以", min: 1, max: 8, step: 0.5, show: (v) => Kit.num(v) },
    ],
    play: { label: "跟着学", every: 60, step: (s) => ({ ...s, scores: learn(s.scores, 1.5).map((v) => Math.min(5, Math.max(0, v))) }),
      done: (s) => loss(s.scores, ALL) < 0.002 },
    presets: [
      { label: "没有学过", state: {} },
      { label: "学过", state: { scores: TARGET.map((p) => Math.round(10 * (5 + Math.log(p))) / 10) } },
      { label: "按块", state: { scores: TARGET.map((p) => Math.round(10 * (5 + Math.log(p))) / 10), way: "block" } },
      { label: "最近的", state: { way: "window" } },
      { label: "忘了缩放", state: { scores: TARGET.map((p) => Math.round(10 * (5 + Math.log(p))) / 10), scale: 8 } },
    ],
    draw, say,
    goals: [
      { ask: "只读四个，让索引器选中最重要的四个。可以拖，也可以让它跟着学。",
        reached: (s) => s.way === "token" && s.topK === 4 && hits(s) === 4,
        reply: "次序对就够了：分数本身离注意力还远，选的已经一样。" },
      { ask: "选法不变，只动“分数乘以”，让式 3 的损失超过 1。",
        reached: (s) => s.way === "token" && s.scale > 1 && hits(s) === s.topK && s.topK < 16 && loss(scaled(s), ALL) > 1,
        reply: "top-k 只看次序，KL 还看大小。所以忘了缩放，推理时看不出来，训练时错。" },
    ],
  };
})();
Kit.add(SparseLab);
