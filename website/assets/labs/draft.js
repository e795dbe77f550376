// Drag what the model says (p) and what the draft says (q) over five tokens: how much is accepted, what a refusal
// draws from, what is written in the end. Second tab: a verse decoded with an acceptance rate a and D drafts a step.
// Tested against dsnotes.model.speculative.
const DraftLab = (() => {
  // --- the mathematics ---
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  const distribution = (weights) => {
    const all = sum(weights);
    return weights.map((w) => (all > 0 ? w / all : 1 / weights.length));
  };

  // The probability at `index` stands, the others share the rest in the ratio that they have.
  function rescaled(p, index) {
    const others = sum(p) - p[index], rest = 1 - p[index];
    return p.map((x, v) => (v === index ? x : others > 1e-9 ? (x * rest) / others : rest / (p.length - 1)));
  }

  // One draft checked: accepted with probability min(1, p/q), otherwise drawn again from `redraw`.
  function outcome(p, q, redraw) {
    const kept = p.map((x, v) => Math.min(x, q[v]));
    const a = sum(kept);
    const short = p.map((x, v) => Math.max(0, x - q[v]));
    const residual = sum(short) > 0 ? distribution(short) : p;
    const drawn = redraw === "p" ? p : residual;
    const written = kept.map((x, v) => x + (1 - a) * drawn[v]);
    const off = sum(written.map((x, v) => Math.abs(x - p[v]))) / 2;
    return { kept, a, residual, drawn, written, off };
  }

  // 1 + a + … + a^D; who forgets the bonus token loses the last term.
  function expected(a, depth, bonus = true) {
    let all = 0;
    for (let k = 0; k < depth + (bonus ? 1 : 0); k++) all += a ** k;
    return all;
  }

  // How many drafts a step accepts, given one uniform number for each: those before the first refusal.
  function accepted(uniform, a) {
    const refused = uniform.findIndex((u) => !(u < a));
    return refused < 0 ? uniform.length : refused;
  }

  const draws = (next, depth) => Array.from({ length: depth }, next);
  const gained = (kept, depth, bonus) => kept + (kept < depth || bonus ? 1 : 0);

  // Steps until `length` tokens are written: { start, kept (drafts written), own (a token of the model), refused }.
  function decode(next, a, depth, bonus, length) {
    const steps = [];
    for (let start = 0; start < length; ) {
      const hits = accepted(draws(next, depth), a), room = length - start;
      const count = Math.min(room, gained(hits, depth, bonus)), kept = Math.min(room, hits);
      steps.push({ start, count, kept, own: count > kept, refused: hits < depth && count > kept });
      start += count;
    }
    return steps;
  }

  // In many steps: the share of those that wrote at least 1, 2, … D + 1 tokens. Its sum is the mean.
  function measured(next, a, depth, bonus, steps) {
    const reach = Array(depth + 1).fill(0);
    for (let n = 0; n < steps; n++) {
      const count = gained(accepted(draws(next, depth), a), depth, bonus);
      for (let k = 0; k < count; k++) reach[k] += 1 / steps;
    }
    return reach;
  }

  // --- the figure ---
  const TOKENS = "流去来中东";
  const VERSE = "白日依山尽黄河入海流欲穷千里目更上一层楼";
  const STEPS = 2000;
  const two = (x) => Kit.fix(x, 2);
  const part = (x, top, bottom, width, kind) => // a piece of a column; nothing when it has no height
    bottom - top > 0.4 ? Kit.rect({ x, y: top, width, height: bottom - top, class: kind }) : "";
  const word = (x, top, bottom, text, kind) =>
    bottom - top >= 20 ? Kit.text(x, (top + bottom) / 2, text, { class: kind }) : "";

  const knob = { // what is dragged carries its letter
    p: (x, y) => Kit.circle({ cx: x, cy: y, r: 10, class: "f-blue s-ground" })
      + Kit.text(x, y - 0.5, "p", { class: "on-dark" }),
    q: (x, y) => Kit.rect({ x: x - 9.5, y: y - 9.5, width: 19, height: 19, rx: 3, class: "f-orange s-ground" })
      + Kit.text(x, y - 0.5, "q", { class: "on" }),
  };

  // Columns of five tokens: `column(v, centre)` draws one; below them the tokens.
  function columns({ x, width, bottom, title, head }, column) {
    const at = (v) => x + ((v + 0.5) * width) / 5;
    return Kit.text(x, head, title, { anchor: "start", class: "strong" })
      + [...TOKENS].map((token, v) => column(v, at(v)) + Kit.text(at(v), bottom + 20, token, { class: "token" })).join("")
      + Kit.line({ x1: x, y1: bottom, x2: x + width, y2: bottom, class: "s-soft" });
  }

  // p and q side by side: what both have is kept, what q has too much goes, what it lacks is made up for.
  function both(state, found, box) {
    const y = Kit.scale([0, 1], [box.bottom, box.top]), half = Math.min(30, box.width / 11.5);
    const p = distribution(state.p), q = distribution(state.q);
    const strip = box.head + 36, cut = box.x + box.width * found.a;
    const handle = (field, v, x, value) => Kit.handle({ name: `${field}.${v}`, x, y: y(value), value,
      label: `${field === "p" ? "主模型" : "草稿"}说“${TOKENS[v]}”的概率 ${field}`, min: 0, max: 1, step: 0.01,
      from: y(0), to: y(1), show: two, reach: 14, body: knob[field](x, y(value)) });
    return Kit.text(box.x, strip - 14, `接受 a = ${two(found.a)}`, { anchor: "start", class: "t-green" })
      + Kit.text(box.x + box.width, strip - 14, `拒绝 ${two(1 - found.a)}`, { anchor: "end", class: "t-orange" })
      + Kit.rect({ x: box.x, y: strip, width: cut - box.x, height: 8, class: "f-green" })
      + Kit.rect({ x: cut, y: strip, width: box.x + box.width - cut, height: 8, class: "f-orange" })
      + columns(box, (v, x) => part(x - half, y(found.kept[v]), y(0), 2 * half, "f-green")
        + part(x - half, y(q[v]), y(found.kept[v]), half, "f-orange")
        + part(x, y(p[v]), y(found.kept[v]), half, "f-blue")
        + word(x, y(found.kept[v]) + 14, y(0), "留", "on")
        + word(x - half / 2, y(q[v]) + 10, y(found.kept[v]), "退", "on")
        + word(x + half / 2, y(p[v]) + 10, y(found.kept[v]), "补", "on-dark")
        + handle("q", v, x - half / 2, q[v]) + handle("p", v, x + half / 2, p[v])
        + Kit.text(x - half * 0.58, box.bottom + 42, two(q[v]), { class: "t-orange" })
        + Kit.text(x + half * 0.58, box.bottom + 42, two(p[v]), { class: "t-blue" }));
  }

  function again(state, found, box) {
    const y = Kit.scale([0, 1], [box.bottom, box.top]), kind = state.redraw === "p" ? "red" : "blue";
    const never = found.a > 1 - 1e-6, half = box.width / 14;
    return columns(box, (v, x) => part(x - half, y(found.drawn[v]), y(0), 2 * half, never ? "f-grey faint" : `f-${kind}`)
      + (found.drawn[v] > 0.0049 && !never
        ? Kit.text(x, y(found.drawn[v]) - 10, two(found.drawn[v]), { class: `t-${kind}` }) : ""))
      + (never ? Kit.text(box.x + box.width / 2, box.top + 24, "从不拒绝，用不上") : "");
  }

  function written(state, found, box) {
    const y = Kit.scale([0, 1], [box.bottom, box.top]), half = box.width / 14, p = distribution(state.p);
    return columns(box, (v, x) => {
      const wrong = Math.abs(found.written[v] - p[v]) > 0.005;
      const top = Math.min(y(found.written[v]), y(p[v]));
      return part(x - half, y(found.kept[v]), y(0), 2 * half, "f-green")
        + part(x - half, y(found.written[v]), y(found.kept[v]), 2 * half, state.redraw === "p" ? "f-red" : "f-blue")
        + Kit.line({ x1: x - half - 4, y1: y(p[v]), x2: x + half + 4, y2: y(p[v]), class: "s-ink thick" })
        + (wrong || p[v] > 0.0049 ? Kit.text(x, top - 11, two(found.written[v]), { class: wrong ? "t-red" : "" }) : "")
        + (wrong ? Kit.text(x, box.bottom + 42, found.written[v] > p[v] ? "多了" : "少了", { class: "t-red" }) : "");
    }) + (found.off < 0.005 ? Kit.text(box.x + box.width / 2, box.bottom + 42, "处处等于 p（横线）", { class: "t-green" }) : "");
  }

  function rule(state, width) {
    const found = outcome(distribution(state.p), distribution(state.q), state.redraw);
    const wide = width >= 560, small = wide ? 150 : (width - 16) / 2;
    const high = { head: 10, top: 58, bottom: 262 };
    const y = wide ? high : { head: 338, top: 364, bottom: 468 };
    const first = { x: 0, width: wide ? width - 2 * small - 52 : width, ...high,
      title: "草稿 q 多说的退，少说的补" };
    const second = { x: wide ? first.width + 28 : 0, width: small, ...y,
      title: `拒绝以后从 ${state.redraw === "p" ? "p" : "r"} 重抽` };
    const third = { x: width - small, width: small, ...y, title: "写出来的" };
    return Kit.svg(width, y.bottom + 54, `接受率 ${two(found.a)}，写出来的与 p 的总变差 ${two(found.off)}`,
      both(state, found, first) + again(state, found, second) + written(state, found, third));
  }

  const powers = (depth) => ["1", "a", "a²", "a³", "a⁴", "a⁵", "a⁶"].slice(0, depth + 1);
  const sequence = (state) => decode(Kit.random(state.seed), state.a, state.depth, state.bonus, VERSE.length);
  const shares = (state) => measured(Kit.random(state.seed + 7919), state.a, state.depth, state.bonus, STEPS);

  // The verse in two lines; a bracket below what one step wrote.
  function ribbon(state, x, y, cell) {
    const place = (i) => ({ x: x + (i % 10) * cell, y: y + Math.floor(i / 10) * (cell + 62) });
    return sequence(state).map(({ start, count, kept, own, refused }, step) => {
      const cells = Array.from({ length: count }, (_, j) => {
        const at = place(start + j), mine = own && j === count - 1;
        return Kit.rect({ x: at.x + 2, y: at.y, width: cell - 4, height: cell - 4, rx: 4,
          class: mine ? "f-ground s-blue thick" : "f-green" })
          + Kit.text(at.x + cell / 2, at.y + cell / 2 - 2, VERSE[start + j], { class: mine ? "token t-blue" : "token on" })
          + (mine && refused ? Kit.text(at.x + cell / 2, at.y - 11, "×", { class: "t-orange big" }) : "")
          + (mine && !refused && kept ? Kit.text(at.x + cell / 2, at.y - 11, "+", { class: "t-green big" }) : "");
      }).join("");
      const brackets = [0, 1].map((row) => { // a step may run over the end of a line
        const from = Math.max(start, row * 10), to = Math.min(start + count, row * 10 + 10);
        if (from >= to) return "";
        const left = place(from).x + 4, right = place(to - 1).x + cell - 4, at = place(from).y + cell + 4;
        return Kit.path({ d: `M${left} ${at - 4}V${at}H${right}V${at - 4}`, class: "s-soft" })
          + Kit.text((left + right) / 2, at + 13, step + 1, { class: "muted" });
      }).join("");
      return cells + brackets;
    }).join("");
  }

  // How often a step writes a first, second, … token: 1, a, a² …, and as counted.
  function terms(state, reach, x, width, top, bottom) {
    const y = Kit.scale([0, 1], [bottom, top]);
    const slot = width / (state.depth + 1), half = Math.min(24, slot / 2 - 4);
    return powers(state.depth).map((name, k) => {
      const lost = k === state.depth && !state.bonus, chance = state.a ** k, at = x + (k + 0.5) * slot;
      return Kit.rect({ x: at - half, y: y(chance), width: 2 * half, height: bottom - y(chance),
        class: lost ? "f-none s-red dash" : k === 0 ? "f-blue" : "f-green" })
        + (lost ? Kit.text(at, y(0) - 12, "0", { class: "t-red" })
          : Kit.circle({ cx: at, cy: y(reach[k]), r: 3.5, class: "f-ink" }))
        + Kit.text(at, y(chance) - 12, two(chance), { class: lost ? "t-red" : "" })
        + Kit.text(at, bottom + 16, name, { class: "token" })
        + Kit.text(at, bottom + 36, `第 ${k + 1} 个`, { class: "muted" });
    }).join("") + Kit.line({ x1: x, y1: bottom, x2: x + width, y2: bottom, class: "s-soft" });
  }

  function tape(state, width) {
    const wide = width >= 560, cell = wide ? 34 : Math.floor(Math.min(34, width / 10));
    const steps = sequence(state), top = 58, low = top + 2 * (cell + 62) - 22;
    const legend = [["绿", "草稿，说中了", "t-green"], ["蓝", "主模型算出的", "t-blue"],
      ["×", "草稿在此被拒", "t-orange"], ["+", "奖励 token", "t-green"]];
    const left = 10 * cell, x = wide ? left + 40 : 0, base = wide ? low - 4 : low + 240;
    const reach = shares(state);
    return Kit.svg(width, base + (wide ? 56 : 52), `${VERSE.length} 个字用了 ${steps.length} 步`,
      Kit.text(0, 14, `${VERSE.length} 个字，${steps.length} 步；下面的数是第几步`, { anchor: "start", class: "strong" })
      + ribbon(state, 0, top, cell)
      + legend.map(([sign, meaning, kind], i) => Kit.text((i % 2) * (left / 2), low + 12 + 20 * Math.floor(i / 2),
        `${sign}：${meaning}`, { anchor: "start", class: kind })).join("")
      + Kit.text(x, wide ? 14 : base - 170, "一步写出第 k 个字的机会", { anchor: "start", class: "strong" })
      + Kit.text(x, wide ? 36 : base - 148, `柱：算；点：抽 ${Kit.int(STEPS)} 步，每步 ${two(sum(reach))} 个`, { anchor: "start", class: "muted" })
      + terms(state, reach, x, width - x, wide ? 80 : base - 110, base));
  }

  const names = (list) => list.map((v) => `“${TOKENS[v]}”`).join("");
  function say_rule(state) {
    const p = distribution(state.p), q = distribution(state.q), found = outcome(p, q, state.redraw);
    const rate = `接受率 a = Σmin(p, q) = <b>${two(found.a)}</b>`;
    const sure = (list) => Math.max(...list) > 0.999;
    if (sure(p) && sure(q) && found.a < 0.001) return `贪心时两边各说一个字：相同就接受；这里不同，${rate}，`
      + "残差 r 就是 p，写出来的是主模型要说的那个字。";
    if (found.a > 1 - 1e-6) return `草稿与主模型一模一样，${rate}，从不拒绝，从哪里重抽都一样。`;
    if (found.off > 0.005) {
      const gains = found.written.map((x, v) => x - p[v]), least = gains.indexOf(Math.min(...gains));
      const full = [...TOKENS].flatMap((_, v) => (q[v] >= p[v] && gains[v] > 0.005 ? [v] : []));
      return `${rate}；拒绝以后从 p 重抽，`
        + (full.length ? `${names(full)}在接受的一路上已经足额，又多领一份，` : "") + `${names([least])}却补不够：`
        + `写出来的与 p 的总变差是 <b>${two(found.off)}</b>。`;
    }
    if (state.redraw === "p") return `${rate}；从 p 重抽，这一回却没有偏：接受的一路处处只占 p 的同一个比例。`;
    return `${rate}；退掉的 <b>${two(1 - found.a)}</b> 从残差 r 补给说得太少的字，写出来的处处等于 p。`;
  }
  function say_tape(state) {
    const { a, depth, bonus } = state, steps = sequence(state).length;
    const plan = `${powers(depth - (bonus ? 0 : 1)).join(" + ")} = <b>${two(expected(a, depth, bonus))}</b>`;
    const start = `逐字要 ${VERSE.length} 步，这一回用了 <b>${steps}</b> 步；`;
    if (!bonus) return `${start}忘了奖励 token，草稿全中时少写一个，期望每步只有 ${depth > 1 ? plan : "<b>1</b>"} 个，`
      + (depth > 1 ? "与少一级草稿一样。" : "草稿白猜了。");
    return `${start}期望每步写 ${plan} 个字`
      + (depth > 1 ? `，第 ${depth} 份草稿只在前面的都说中时才算数，所以越往后添得越少。` : "，多出的 a 就是草稿说中的机会。");
  }

  const rounded = (list) => list.map((x) => Number(x.toFixed(4)));
  return {
    distribution, rescaled, outcome, expected, accepted, decode, measured,
    name: "draft",
    title: "草稿与核对",
    state: { view: "rule", p: [0.4, 0.3, 0.15, 0.1, 0.05], q: [0.1, 0.2, 0.48, 0.06, 0.16], redraw: "r",
      a: 0.85, depth: 1, bonus: true, seed: 1 },
    range: { p: [0, 1], q: [0, 1], seed: [1, 9999] },
    controls: [
      { kind: "tabs", name: "view", label: "看什么", options: [["rule", "核对一个草稿"], ["tape", "接连解码"]] },
      { kind: "choice", name: "redraw", label: "拒绝以后", when: ({ view }) => view === "rule",
        options: [["r", "从残差 r 重抽"], ["p", "从 p 重抽"]] },
      { kind: "button", label: "用这个 a 接连解码", when: ({ view }) => view === "rule",
        act: (state) => ({ ...state, view: "tape",
          a: Number(outcome(distribution(state.p), distribution(state.q), "r").a.toFixed(2)) }) },
      { kind: "slider", name: "a", label: "接受率 a", min: 0, max: 1, step: 0.01, show: two,
        when: ({ view }) => view === "tape" },
      { kind: "slider", name: "depth", label: "草稿长度 D", min: 1, max: 6, step: 1, when: ({ view }) => view === "tape" },
      { kind: "toggle", name: "bonus", label: "奖励 token", when: ({ view }) => view === "tape" },
      { kind: "button", label: "再抽一次", when: ({ view }) => view === "tape",
        act: (state) => ({ ...state, seed: (state.seed % 9999) + 1 }) },
    ],
    presets: [
      { label: "正确", state: {} },
      { label: "常见错误 5：从 p 重抽", state: { redraw: "p" } },
      { label: "贪心", state: { p: [1, 0, 0, 0, 0], q: [0, 0, 1, 0, 0] } },
      { label: "V3：D = 1", state: { view: "tape" } },
      { label: "常见错误 5：忘了奖励 token", state: { view: "tape", bonus: false } },
    ],
    // After every change p and q are distributions: who was moved stands, the others share the rest.
    tidy(state, data, before) {
      const settle = (field) => {
        const list = state[field], was = before?.[field];
        const moved = was ? list.flatMap((x, v) => (x === was[v] ? [] : [v])) : [];
        if (Math.abs(sum(list) - 1) < 1e-3) return list;
        return rounded(moved.length === 1 ? rescaled(list, moved[0]) : distribution(list));
      };
      return { ...state, p: settle("p"), q: settle("q") };
    },
    draw: (state, data, width) => (state.view === "rule" ? rule : tape)(state, width),
    say: (state) => (state.view === "rule" ? say_rule : say_tape)(state),
    goals: [
      { ask: "拖动草稿 q，让接受率到 0.9。草稿要像谁？",
        reached: ({ view, p, q }) => view === "rule" && outcome(distribution(p), distribution(q), "r").a >= 0.9,
        reply: "像主模型：接受率就是两个分布的重合。它只说像不像，不说它们好不好。" },
      { ask: "从 p 重抽，再拖动 p 或 q，让写出来的仍然等于 p。什么时候可以？",
        reached: ({ view, p, q, redraw }) => view === "rule" && redraw === "p"
          && outcome(distribution(p), distribution(q), "p").off < 0.005,
        reply: "要么从不拒绝（q 就是 p），要么接受的一路处处只占 p 的同一个比例，例如草稿只说主模型从不说的字。其余时候都偏。" },
      { ask: "接受率 0.5，把草稿加到最长。每步的期望越不过哪个数？",
        reached: ({ view, a, depth, bonus }) => view === "tape" && Math.abs(a - 0.5) < 0.011 && depth === 6 && bonus,
        reply: "2：1 + a + a² + … 的极限是 1/(1 − a)。越往后的草稿越难轮到，白算的却越多。" },
    ],
  };
})();
Kit.add(DraftLab);
