// A register of 14 bits: how much of a sum is cut off as it grows, and how promotion bounds it.
// Tested against dsnotes.training.fp8.gemm.
const Fp8AccumulationLab = (() => {
  // --- the mathematics ---

  const RESULTS = 8, LONGEST = 8192, STEP = 32; // products of one instruction
  const view = new DataView(new ArrayBuffer(8));
  const OF_ZERO = -100; // a product of 0 aligns nothing

  // floor(log2 |x|), from the bits of a float64.
  function exponentOf(x) {
    if (x === 0) return OF_ZERO;
    view.setFloat64(0, x);
    return ((view.getUint16(0) >> 4) & 2047) - 1023;
  }

  function roundEven(x) {
    const below = Math.floor(x);
    return x - below === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);
  }

  const toE4M3 = (x) => {
    const step = 2 ** (Math.max(exponentOf(x), -6) - 3);
    return Math.max(-448, Math.min(448, roundEven(x / step) * step));
  };

  // E4M3 numbers: one row of A, eight of B. "big" gives the products 2^14, 1, 1, 1, …
  function operands(kind) {
    const next = Kit.random(3);
    const normal = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
    const draw = {
      uniform: next, half: () => Math.abs(normal()), rectified: () => Math.max(0, normal()), normal,
    }[kind];
    const row = () => Array.from({ length: LONGEST }, (_, i) => (kind === "big" ? (i ? 1 : 128) : toE4M3(draw())));
    return { a: row(), b: Array.from({ length: RESULTS }, row) };
  }

  // For each of the eight results: its products, their exponents, the exact sums after each instruction.
  const kept = {};
  function products(kind) {
    if (kept[kind]) return kept[kind];
    const { a, b } = operands(kind), own = (x) => Math.max(exponentOf(x), -6); // subnormals: -6
    return (kept[kind] = b.map((row) => {
      const terms = Float64Array.from(row, (x, i) => x * a[i]), exact = [];
      terms.reduce((sum, x, i) => {
        if (i % STEP === STEP - 1) exact.push(sum + x);
        return sum + x;
      }, 0);
      return { terms, exact, exponents: Int8Array.from(row, (x, i) => (terms[i] ? own(x) + own(a[i]) : OF_ZERO)) };
    }));
  }

  // One instruction: 32 products into the register. `top` is the exponent that all align to.
  function instruct(register, { terms, exponents }, from, bits, nearest) {
    let top = exponentOf(register);
    for (let i = from; i < from + STEP; i++) if (exponents[i] > top) top = exponents[i];
    const cut = nearest ? roundEven : Math.trunc, fine = 2 ** (bits - top);
    let sum = cut(register * fine);
    for (let i = from; i < from + STEP; i++) sum += cut(terms[i] * fine);
    sum /= fine;
    const unit = 2 ** (exponentOf(sum) - bits);
    return { register: cut(sum / unit) * unit, top };
  }

  // The result after every instruction; `promote` is N_C. Sums of promoted parts are float32.
  function accumulate(column, promote, bits, nearest) {
    const found = [];
    let total = 0, register = 0;
    for (let from = 0; from < LONGEST; from += STEP) {
      ({ register } = instruct(register, column, from, bits, nearest));
      found.push(Math.fround(total + register));
      if ((from + STEP) % promote === 0) {
        total = Math.fround(total + register);
        register = 0;
      }
    }
    return found;
  }

  // The error of the eight results together, after every instruction: norm against norm.
  const known = new Map();
  function errors(kind, promote, bits, nearest) {
    const key = [kind, promote, bits, nearest].join();
    if (known.has(key)) return known.get(key);
    const columns = products(kind), found = columns.map((column) => accumulate(column, promote, bits, nearest));
    const error = found[0].map((_, i) => {
      let lost = 0, norm = 0;
      columns.forEach(({ exact }, result) => {
        lost += (found[result][i] - exact[i]) ** 2;
        norm += exact[i] ** 2;
      });
      return Math.sqrt(lost / norm);
    });
    const answer = { error, found: found[0], exact: columns[0].exact };
    known.set(key, answer);
    return answer;
  }

  // The last instruction up to K: what it aligns to, its last product that is not 0, what stays.
  function moment(kind, length, promote, bits, nearest) {
    const column = products(kind)[0];
    let register = 0, top = 0;
    for (let from = Math.floor((length - 1) / promote) * promote; from < length; from += STEP)
      ({ register, top } = instruct(register, column, from, bits, nearest));
    let last = length - 1;
    while (!column.terms[last]) last -= 1;
    const product = column.terms[last], unit = 2 ** (top - bits);
    return { register, top, product, kept: (nearest ? roundEven : Math.trunc)(product / unit) * unit };
  }

  // --- the figure ---

  const text = (x, y, words, { anchor = "start", ...rest } = {}) => Kit.text(x, y - 4, words, { anchor, ...rest });

  const power = (base, e) => base + String(e).replace(/./g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]));
  const NEVER = 13; // an interval of 8192 terms promotes nothing before the end
  const every = (n) => (n === NEVER ? "不提升" : `每 ${2 ** n} 项提升`);
  const percent = (e) => (e === 0 ? "0" : `${Kit.num(100 * e, 2)}%`);
  const at = (found, k) => found[2 ** k / STEP - 1];

  function compute(state) {
    const of = (promote) => errors(state.kind, promote, state.bits, state.nearest);
    const never = of(LONGEST);
    return { never, promoted: state.n === NEVER ? never : of(2 ** state.n) };
  }

  function plot(state, width, { never, promoted }) {
    const left = 52, right = width - (width < 560 ? 14 : 24), top = 52, bottom = 286, parts = [];
    const X = (k) => left + (k - 5) / 8 * (right - left);
    const floor = -5, Y = (e) => bottom - Math.max(0, (Math.log10(Math.max(e, 1e-9)) - floor) / -floor) * (bottom - top);
    for (let p = floor; p <= 0; p++)
      parts.push(Kit.line({ x1: left, y1: Y(10 ** p), x2: right, y2: Y(10 ** p), class: p === floor ? "s-ink" : "s-soft thin" }),
        text(left - 6, Y(10 ** p) + 4, ["100%", "10%", "1%", "0.1%", "0.01%", "0"][-p], { anchor: "end", class: "t-grey" }));
    for (let k = 5; k <= 13; k++)
      if (width > 560 || k % 2) parts.push(text(X(k), bottom + 36, String(2 ** k), { anchor: "middle", class: "t-grey" }));
    const steps = []; // instructions whose points are drawn
    for (let i = 1; i <= LONGEST / STEP; i = Math.max(i + 1, Math.round(i * 1.12))) steps.push(i);
    if (steps[steps.length - 1] !== LONGEST / STEP) steps.push(LONGEST / STEP);
    const line = (found, until) => steps.filter((i) => i * STEP <= until)
      .map((i, j) => `${j ? "L" : "M"}${X(Math.log2(i * STEP)).toFixed(1)} ${Y(found[i - 1]).toFixed(1)}`).join("");
    const x = X(state.k), xn = X(state.n);
    parts.push(text(8, top - 15, "误差", { class: "t-grey" }), Kit.line({ x1: left, y1: Y(0.02), x2: right, y2: Y(0.02), class: "s-ink dash" }),
      text(left + 6, Y(0.02) - 6, "论文量到的 2%", {}),
      Kit.path({ d: line(never.error, LONGEST), class: "s-red faint" }),
      Kit.path({ d: line(promoted.error, LONGEST), class: "s-blue faint" }),
      Kit.path({ d: line(never.error, 2 ** state.k), class: "s-red thick" }),
      Kit.path({ d: line(promoted.error, 2 ** state.k), class: "s-blue thick dash" }));
    parts.push(Kit.handle({
      name: "n", label: "提升的间隔", show: every, x: xn, y: top - 16, value: state.n, min: 5, max: 13, step: 1, axis: "x",
      from: left, to: right,
      body: Kit.line({ x1: xn, y1: top - 16, x2: xn, y2: bottom, class: "s-blue dash" }) + Kit.circle({ cx: xn, cy: top - 16, r: 8, class: "f-blue" }),
    }), text(Math.min(Math.max(xn, left + 30), right - 30), 20, every(state.n), { anchor: "middle", class: "t-blue bold" }));
    const marks = [[never, "red"], [promoted, "blue"]].map(([found, colour]) => ({ colour, e: at(found.error, state.k) }));
    parts.push(Kit.handle({
      name: "k", label: "求和的长度 K", show: (k) => String(2 ** k), x, y: bottom, value: state.k, min: 5, max: 13, step: 1, axis: "x",
      from: left, to: right,
      body: Kit.line({ x1: x, y1: top, x2: x, y2: bottom, class: "s-ink" }) + Kit.circle({ cx: x, cy: bottom, r: 8, class: "f-ink" })
        + marks.map(({ colour, e }) => Kit.circle({ cx: x, cy: Y(e), r: 5, class: `f-${colour}` })).join(""),
    }), text(Math.min(Math.max(x, left + 34), right - 34), bottom + 20, `K = ${2 ** state.k}`, { anchor: "middle", class: "bold" }));
    const side = x > left + 130 ? -1 : 1;
    const same = marks[0].e === marks[1].e;
    marks.forEach(({ colour, e }, i) => {
      if (!(same && i === 0))
        parts.push(text(x + side * 10, Y(e) + (i && !same ? 18 : -8), `${i ? (same ? "两者都差 " : "提升 ") : "不提升 "}${percent(e)}`,
          { anchor: side > 0 ? "start" : "end", class: `t-${colour} bold` }));
    });
    return parts.join("");
  }

  // The register at K and the product that comes in, bit under bit.
  function register(state, width, top) {
    const HIGH = 14, LOW = -13, wide = width > 560, left = wide ? 66 : 8;
    const pitch = (width - 8 - left) / (HIGH - LOW + 1), box = pitch - 2;
    const X = (e) => left + (HIGH - e) * pitch, parts = [];
    const rows = [["不提升", LONGEST, "red"], [every(state.n), 2 ** state.n, "blue"]].slice(0, state.n === NEVER ? 1 : 2);
    rows.forEach(([label, promote, colour], row) => {
      const m = moment(state.kind, 2 ** state.k, promote, state.bits, state.nearest);
      const y = top + row * 104, unit = m.top - state.bits;
      parts.push(text(8, y + 12, `${label}：最低一位 ${unit < 0 ? power("2", unit) : 2 ** unit}，${wide ? "加进来的乘积 " : ""}${Kit.num(m.product, 4)} 留下 ${Kit.num(m.kept, 4)}`, { class: `t-${colour} bold` }));
      for (let e = m.top; e >= Math.max(unit, LOW); e--)
        parts.push(Kit.rect({ x: X(e), y: y + 24, width: box, height: 22, rx: 2, class: `f-ground s-${colour}` }));
      if (wide) parts.push(text(8, y + 40, "累加器"), text(8, y + 68, "乘积"));
      let rest = Math.abs(m.product);
      for (let e = exponentOf(rest); rest && e >= LOW; e--) {
        const on = rest >= 2 ** e;
        if (on) rest -= 2 ** e;
        parts.push(Kit.rect({ x: X(e), y: y + 52, width: box, height: 22, rx: 2, class: e < unit ? "f-red s-red" : "f-sky s-blue" }));
        if (box > 12) parts.push(text(X(e) + box / 2, y + 68, on ? "1" : "0", { anchor: "middle", class: "on" }));
        else if (!on) parts.push(Kit.rect({ x: X(e) + 1, y: y + 53, width: box - 2, height: 20, class: "f-ground" }));
      }
      if (unit > LOW) parts.push(Kit.line({ x1: X(unit - 1) - 1, y1: y + 20, x2: X(unit - 1) - 1, y2: y + 80, class: "s-red dash" }));
    });
    return parts.join("");
  }

  function draw(state, data, width) {
    const rows = state.n === NEVER ? 1 : 2;
    const body = plot(state, width, compute(state)) + register(state, width, 344);
    return Kit.svg(width, 344 + 104 * rows - 16, "累加的误差随求和的长度，不提升与提升", body);
  }

  function say(state) {
    const { never, promoted } = compute(state), lost = at(never.error, state.k), kept = at(promoted.error, state.k);
    const one = `第一个结果应是 ${Kit.num(at(never.exact, state.k), 6)}，得到 ${Kit.num(at(never.found, state.k), 6)}`;
    if (state.n === NEVER)
      return `加完 ${2 ** state.k} 项从不提升，误差 <b>${percent(lost)}</b>：${one}；结果存成 FP32，和却一直留在 ${state.bits + 1} 位的累加器里。`;
    if (2 ** state.n >= 2 ** state.k)
      return `K = ${2 ** state.k} 还没有超过提升的间隔，两条线重合，误差都是 <b>${percent(lost)}</b>：${one}。`;
    return `加完 ${2 ** state.k} 项，不提升的误差是 <b>${percent(lost)}</b>，${one}；每 ${2 ** state.n} 项清零一次，误差停在 <b>${percent(kept)}</b>，不再随 K 增长。`;
  }

  return {
    operands, accumulate, errors, moment,
    name: "fp8-accumulation",
    title: "累加器",
    state: { kind: "uniform", k: 12, n: 7, bits: 13, nearest: false },
    range: { k: [5, 13], n: [5, 13] },
    controls: [
      { kind: "choice", name: "kind", label: "数据", options: [["uniform", "均匀"], ["half", "|z|"], ["rectified", "max(0, z)"], ["normal", "z，有正有负"], ["big", "2¹⁴ 与许多 1"]] },
      { kind: "slider", name: "bits", label: "累加器的小数位数", min: 10, max: 16, step: 1, show: (v) => String(v) },
      { kind: "toggle", name: "nearest", label: "改成舍入到最近" },
    ],
    presets: [
      { label: "正确", state: {} },
      { label: "常见错误 10", state: { n: NEVER } },
      { label: "2¹⁴ 加 63 个 1", state: { kind: "big", k: 6, n: 5 } },
      { label: "有正有负", state: { kind: "normal" } },
    ],
    draw,
    say,
    goals: [
      {
        ask: "把 K 拖到不提升的误差刚刚超过 2% 的地方。再加倍，误差变成几倍？",
        reached: (s) => { const { error } = errors(s.kind, LONGEST, s.bits, s.nearest); return s.k > 5 && at(error, s.k) > 0.02 && at(error, s.k - 1) <= 0.02; },
        reply: "大约也加倍：累加器越大，最低一位越大，每一项丢得越多，相对误差与项数成正比。",
      },
      {
        ask: "K = 4096，不改位数与舍入，也不靠提升，换一种数据让误差不到 2%。",
        reached: (s) => s.k === 12 && s.bits === 13 && !s.nearest && at(errors(s.kind, LONGEST, 13, false).error, 12) < 0.02,
        reply: "乘积是 0 的没有什么可截；有正有负时，丢掉的也互相抵消。论文没有说它的 2% 用的是哪一种。",
      },
      {
        ask: "误差要停在 0.2% 以内，提升的间隔最长可以是多少（均匀的数据，K = 4096）？",
        reached: (s) => s.kind === "uniform" && s.k === 12 && s.n === 8 && s.bits === 13 && !s.nearest,
        reply: "256。误差停在间隔用完时的大小，所以间隔加倍，误差也加倍还多；V3 取 128，因为缩放因子也是每 128 项换一次。",
      },
    ],
  };
})();
Kit.add(Fp8AccumulationLab);
