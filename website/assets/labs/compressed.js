// One query of V4 and what it reads: tokens of its window, entries that are complete, and of these the chosen ones.
// Tested against dsnotes.after.compressor and dsnotes.after.compressed.
const CompressedLab = (() => {
  // --- the mathematics ---
  const TOKENS = 64, SCORES = Array.from({ length: TOKENS * TOKENS }, Kit.random(7));
  const visible = (t, m) => Math.floor((t + 1) / m);
  const range = (first, end) => Array.from({ length: Math.max(0, end - first) }, (_, i) => first + i);
  // the tokens that entry i is made of; with overlap those of the window before as well
  const members = (i, m, overlap) => range(Math.max(0, m * (overlap ? i - 1 : i)), m * (i + 1));
  function best(scores, k) { // places of the k largest, the earlier one first where two are equal
    return range(0, scores.length).sort((a, b) => scores[b] - scores[a] || a - b).slice(0, k).sort((a, b) => a - b);
  }
  const score = (t, i) => SCORES[t * TOKENS + i];
  function reads({ t, kind, window, m, topK, wrong }) { // what the query at position t gets to read
    const near = range(Math.max(0, t - window + 1), t + 1), seen = kind === "window" ? 0 : visible(t, m);
    const candidates = wrong === "future" ? Math.floor(TOKENS / m) : seen;
    const picked = kind === "csa" ? best(range(0, candidates).map((i) => score(t, i)), topK) : range(0, seen);
    const entries = picked.filter((i) => i < seen);
    const inside = new Set(entries.flatMap((i) => members(i, m, kind === "csa")));
    const blind = range(0, t + 1).filter((s) => !inside.has(s) && !near.includes(s));
    return { near, seen, picked, entries, inside, blind };
  }

  // --- the figure ---
  function draw(s, data, width) {
    const r = reads(s), x = Kit.scale([0, TOKENS], [4, width - 4]), cell = x(1) - x(0), top = 92, row = 176;
    let body = Kit.text(4, 16, s.kind === "csa" ? "条目，柱子是索引器的分数" : s.kind === "hca" ? "条目，全部都读" : "没有条目", { anchor: "start" });
    if (s.kind !== "window") for (const i of range(0, Math.floor(TOKENS / s.m))) {
      const left = x(s.m * i) + 1, wide = cell * s.m - 2, chosen = r.entries.includes(i), late = i >= r.seen, lost = late && r.picked.includes(i);
      const look = chosen ? "f-blue" : lost ? "f-red faint" : "f-none";
      const edge = late ? "s-soft dash" : "s-blue";
      body += Kit.rect({ x: left, y: top, width: wide, height: 22, class: `${look} ${edge}` });
      if (s.kind === "csa") {
        const high = 50 * score(s.t, i);
        body += Kit.rect({ x: left, y: top - 4 - high, width: wide, height: high, class: chosen ? "f-blue" : lost ? "f-red" : "f-grey faint" });
      }
      if (chosen) {
        const own = members(i, s.m, s.kind === "csa"), from = x(own[0]), to = x(own[own.length - 1] + 1);
        body += Kit.path({ d: `M${from} ${row - 4}L${left} ${top + 22}L${left + wide} ${top + 22}L${to} ${row - 4}Z`, class: "f-blue faint" });
      }
    }
    for (const t of range(0, TOKENS)) {
      const near = r.near.includes(t), inside = r.inside.has(t), later = t > s.t;
      const look = near ? "f-orange" : inside ? "f-sky" : "f-none";
      body += Kit.rect({ x: x(t) + 0.5, y: row, width: cell - 1, height: 20, class: `${look} ${later ? "s-soft faint" : "s-soft"}` });
      if (near && inside) body += Kit.rect({ x: x(t) + 0.5, y: row + 12, width: cell - 1, height: 8, class: "f-sky" });
    }
    const at = x(s.t) + cell / 2;
    body += Kit.line({ x1: at, x2: at, y1: row - 6, y2: row + 40, class: "s-green thick" })
      + Kit.handle({ name: "t", label: "查询的位置", x: at, y: row + 42, value: s.t, min: 0, max: TOKENS - 1, step: 1, axis: "x",
        from: x(0) + cell / 2, to: x(TOKENS - 1) + cell / 2, body: Kit.circle({ cx: at, cy: row + 42, r: 8, class: "f-green" }) });
    for (const t of [0, 16, 32, 48]) body += Kit.text(x(t), row + 66, t, { class: "small" });
    body += Kit.text(width - 4, row + 86, "橙：窗口；蓝：在选中的条目里；绿：查询", { anchor: "end", class: "small" });
    return Kit.svg(width, row + 96, "一个查询读哪些 token 与条目", body);
  }

  function say(s) {
    const r = reads(s), vectors = r.near.length + r.entries.length;
    const what = s.kind === "window" ? "只有窗口" : `窗口 ${r.near.length} 个，条目 ${r.entries.length} 条（压好的有 ${r.seen} 条）`;
    let why = r.blind.length ? `有 ${r.blind.length} 个 token 哪里都看不见` : "前面的每个 token 都在某一处";
    const lost = r.picked.length - r.entries.length;
    if (lost) why = `<b>${lost}</b> 个名额给了还没有压完的条目，白白丢掉`;
    return `位置 ${s.t} 的查询：${what}，读 <b>${vectors}</b> 个向量，不是 ${s.t + 1} 个；${why}。`;
  }

  const hole = (s) => { // behind the entries and before the window
    const r = reads(s);
    return r.blind.length > 0;
  };
  return {
    visible, members, best, reads: (s) => { const r = reads(s); return { ...r, inside: [...r.inside].sort((a, b) => a - b) }; },
    name: "compressed", title: "一个查询读什么",
    state: { t: 53, kind: "csa", window: 8, m: 4, topK: 4, wrong: "none" },
    range: { t: [0, TOKENS - 1] },
    controls: [
      { kind: "tabs", name: "kind", label: "层", options: [["window", "窗口"], ["csa", "CSA"], ["hca", "HCA"]] },
      { kind: "slider", name: "window", label: "窗口", min: 1, max: 16, step: 1 },
      { kind: "slider", name: "m", label: "几个压成一条", min: 2, max: 16, step: 1, when: (s) => s.kind !== "window" },
      { kind: "slider", name: "topK", label: "选几条", min: 1, max: 16, step: 1, when: (s) => s.kind === "csa" },
      { kind: "choice", name: "wrong", label: "索引器", options: [["none", "只选压好的"], ["future", "常见错误 5"]], when: (s) => s.kind === "csa" },
    ],
    play: { label: "读下去", every: 250, step: (s) => ({ ...s, t: (s.t + 1) % TOKENS }), done: (s) => s.t === TOKENS - 1 },
    presets: [
      { label: "CSA", state: {} },
      { label: "HCA", state: { kind: "hca", m: 16 } },
      { label: "窗口", state: { kind: "window" } },
      { label: "常见错误 5", state: { wrong: "future", t: 20 } },
    ],
    draw, say,
    goals: [
      { ask: "HCA：窗口调小一些，找一个位置，它前面有 token 哪里都看不见。",
        reached: (s) => s.kind === "hca" && hole(s),
        reply: "窗口比一块短，就会有：出了窗口，它那一块却还没有压完。V4 的窗口与 HCA 的一块一样长，所以没有这个洞。" },
      { ask: "CSA：选几条，才能让每个位置都在某一处看得见？把查询留在最后一个位置试。",
        reached: (s) => s.kind === "csa" && s.wrong === "none" && s.t === TOKENS - 1 && !hole(s),
        reply: "不必全选：相邻的条目重叠，窗口又管了末尾。可是选得少，就一定有看不见的，这正是稀疏的代价。" },
    ],
  };
})();
Kit.add(CompressedLab);
