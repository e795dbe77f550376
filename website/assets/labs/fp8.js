// FP8 under the microscope: one number with its bits and neighbours, and a matrix with one outlier.
// Tested against dsnotes.training.fp8.formats.
const Fp8Lab = (() => {
  // --- the mathematics ---

  // As dsnotes.training.fp8.formats.Format; whole numbers are floats without an exponent.
  const FORMATS = {
    E4M3: { exponent: 4, mantissa: 3, bias: 7, max: 448 },
    E5M2: { exponent: 5, mantissa: 2, bias: 15, max: 57344 },
    INT8: { exponent: 0, mantissa: 7, bias: -6, max: 127 },
  };
  const view = new DataView(new ArrayBuffer(8));

  // floor(log2 |x|) of a normal float64, from its bits: a logarithm could miss powers of two.
  function exponentOf(x) {
    view.setFloat64(0, x);
    return ((view.getUint16(0) >> 4) & 2047) - 1023;
  }

  function roundEven(x) {
    const below = Math.floor(x);
    return x - below === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);
  }

  // To the grid of the format as if it had no largest number.
  function round(x, name) {
    const { bias, mantissa } = FORMATS[name];
    const step = 2 ** (Math.max(exponentOf(x), 1 - bias) - mantissa);
    return roundEven(x / step) * step;
  }

  // The nearest number of the format, ties to even; `clamp` false shows what trap 3 warns of.
  function cast(x, name, clamp = true) {
    const { max } = FORMATS[name];
    if (clamp) return round(Math.min(Math.max(x, -max), max), name);
    const found = round(x, name);
    if (!(Math.abs(found) > max)) return found;
    return name === "E5M2" ? Math.sign(x) * Infinity : NaN;
  }

  // Sign, exponent and mantissa bits of a number that the format holds.
  function encode(y, name) {
    const { bias, exponent, mantissa } = FORMATS[name];
    const sign = y < 0 || Object.is(y, -0) ? 1 : 0, size = Math.abs(y);
    const top = 2 ** exponent - 1;
    let rest;
    if (Number.isNaN(y)) rest = 2 ** (exponent + mantissa) - 1;
    else if (size === Infinity) rest = top * 2 ** mantissa;
    else {
      const e = Math.max(exponentOf(size), 1 - bias);
      const units = size / 2 ** (e - mantissa); // with the leading 1, but not for subnormals
      rest = units + (units < 2 ** mantissa ? 0 : (e + bias - 1) * 2 ** mantissa);
    }
    return sign * 2 ** (exponent + mantissa) + rest;
  }

  function decode(code, name) {
    const { bias, exponent, mantissa } = FORMATS[name];
    const m = 2 ** mantissa, top = 2 ** exponent - 1;
    const fraction = code % m, e = Math.floor(code / m) % (top + 1);
    const sign = code >= m * (top + 1) ? -1 : 1;
    if (e === top && (name !== "E4M3" || fraction === m - 1))
      return name === "E5M2" && fraction === 0 ? sign * Infinity : NaN;
    return sign * (e ? m + fraction : fraction) * 2 ** (Math.max(e, 1) - bias - mantissa);
  }

  // The numbers of the format next to |x|, below and above; x itself twice if it is one of them.
  function neighbours(x, name) {
    const size = Math.abs(x), { max } = FORMATS[name];
    if (size >= max) return [max, size > max ? Infinity : max];
    const near = cast(size, name), code = encode(near, name);
    if (near === size) return [size, size];
    return near < size ? [near, decode(code + 1, name)] : [decode(code - 1, name), near];
  }

  // One scale for each group of `rows` by `columns`; float32 throughout, as in `quantize`.
  function quantize(x, width, [rows, columns], name) {
    const height = x.length / width, { max } = FORMATS[name];
    const across = Math.ceil(width / columns);
    const group = (i) => Math.floor(Math.floor(i / width) / rows) * across
      + Math.floor((i % width) / columns);
    const scale = new Array(Math.ceil(height / rows) * across).fill(0);
    x.forEach((v, i) => { scale[group(i)] = Math.max(scale[group(i)], Math.abs(v)); });
    const tiny = 2 ** -126; // the smallest normal float32
    scale.forEach((amax, g) => {
      scale[g] = amax === 0 ? 1 : Math.fround(Math.max(Math.fround(amax / max), tiny));
    });
    const q = x.map((v, i) => cast(Math.fround(v / scale[group(i)]), name));
    return { scale, q, values: q.map((v, i) => Math.fround(v * scale[group(i)])) };
  }

  // 8 tokens by 16 channels, in hundredths: torch.randn(8, 16) of seed 55.
  const WIDTH = 16, HEIGHT = 8, ROW = 2, COLUMN = 6;
  const BASE = [
    186, 90, 134, 120, 101, 24, -42, 54, -38, 218, 96, 48, -174, -111, -6, -164,
    -87, -15, -24, 54, -51, -98, 129, 82, 138, 85, 97, 67, -32, 170, 31, -93,
    -70, 104, 10, -110, 6, 89, 184, -111, -52, 80, -60, -66, 65, 93, -197, 173,
    -266, 137, -232, -75, 46, 12, -31, 9, 93, -112, 186, -104, 100, 50, -14, -103,
    -33, -60, 18, -180, -16, -142, 130, -195, 173, 124, -19, 66, -176, 5, -51, -42,
    -140, 108, -19, -15, -164, -145, -5, 142, 143, -78, 6, 66, 223, -65, -61, -190,
    -37, 103, -83, 114, -49, -91, -81, 42, -119, -125, 214, 95, 224, -18, -76, 15,
    5, -64, 60, -62, -130, 199, 102, 34, -69, 12, 19, -57, 177, 43, 9, 72,
  ].map((v) => v / 100);
  const GROUPS = { tensor: [HEIGHT, WIDTH], block: [8, 8], tile: [1, 8] };
  const KINDS = {
    cell: (i) => i === ROW * WIDTH + COLUMN,
    row: (i) => Math.floor(i / WIDTH) === ROW,
    column: (i) => i % WIDTH === COLUMN,
  };

  function matrix(kind, factor) {
    const times = Math.fround(factor);
    return BASE.map((v, i) => Math.fround(Math.fround(v) * (KINDS[kind](i) ? times : 1)));
  }

  // What all the other numbers lose: relative error in norm, and how many become 0.
  function damage(kind, factor, group, name) {
    const x = matrix(kind, factor);
    const { scale, values } = quantize(x, WIDTH, GROUPS[group], name);
    let error = 0, norm = 0, zeros = 0, coarse = 0, others = 0;
    x.forEach((v, i) => {
      if (KINDS[kind](i)) return;
      others += 1;
      error += (values[i] - v) ** 2;
      norm += v ** 2;
      if (values[i] === 0) zeros += 1;
      else if (Math.abs(values[i] - v) > Math.abs(v) / 4) coarse += 1;
    });
    return { x, scale, values, error: Math.sqrt(error / norm), zeros, coarse, others };
  }

  // --- the figure ---

  const text = (x, y, words, { anchor = "start", ...rest } = {}) => Kit.text(x, y - 4, words, { anchor, ...rest });

  const power = (base, e) => base + String(e).replace(/./g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]));
  // Small numbers as 1.25×2⁻¹², which their bits show.
  function exact(v) {
    if (v === 0 || !Number.isFinite(v)) return v === 0 ? "0" : Number.isNaN(v) ? "NaN" : v > 0 ? "∞" : "−∞";
    const e = exponentOf(v), m = v / 2 ** e;
    return Math.abs(v) >= 0.01 ? Kit.num(v, 6) : `${m === 1 ? "" : `${Kit.num(m, 6)}×`}${power("2", e)}`;
  }
  const percent = (e) => Kit.percent(e, e < 0.0995 ? 1 : 0);
  const times = (p) => (p < 4 ? Kit.num(10 ** p, 2)
    : (Number.isInteger(p) ? "" : `${Kit.num(10 ** (p % 1), 2)}×`) + power("10", Math.floor(p)));
  const LOW = -18, HIGH = 17; // of the number line, powers of two
  const EIGHT = ["E4M3", "E5M2"];

  // Everything the first tab says about one format.
  function look(state, name) {
    const x = state.minus ? -state.x : state.x;
    const y = cast(x, name, state.clamp), [low, high] = neighbours(x, name);
    const error = state.x === 0 ? 0 : Math.abs(y - x) / state.x;
    return { x, y, low, high, error, code: encode(y, name), over: state.x > FORMATS[name].max };
  }

  function numberLine(state, width) {
    const left = 58, right = width - 14, at = (v) => left + (Math.log2(v) - LOW) / (HIGH - LOW) * (right - left);
    const parts = [];
    EIGHT.forEach((name, row) => {
      const y = 50 + 34 * row, { bias, mantissa, max } = FORMATS[name];
      const first = 2 ** (1 - bias - mantissa);
      parts.push(text(8, y + 14, name, { class: "t-blue" }),
        Kit.rect({ x: at(2 ** (1 - bias)), y, width: at(max) - at(2 ** (1 - bias)), height: 18, class: "f-sky faint" }));
      let d = "";
      for (let v = first; v <= max; v += 2 ** (Math.max(exponentOf(v), 1 - bias) - mantissa))
        d += `M${at(v).toFixed(1)} ${y}v18`;
      parts.push(Kit.path({ d, class: "s-blue thin" }));
      if (at(first / 2) - left > 30)
        parts.push(text((left + at(first / 2)) / 2, y + 14, "归零", { anchor: "middle", class: "t-grey" }));
      if (right - at(max) > 50)
        parts.push(text((right + at(max)) / 2, y + 14, state.clamp ? "截断" : "溢出", { anchor: "middle", class: "t-red" }));
    });
    for (const e of width < 520 ? [-4, -2, 0, 2, 4] : [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5])
      parts.push(text(at(10 ** e), 122, e === 0 ? "1" : power("10", e), { anchor: "middle", class: "t-grey" }));
    const size = Math.min(Math.max(state.x, 2 ** LOW), 2 ** HIGH), x = at(size);
    parts.push(Kit.line({ x1: left, y1: 30, x2: right, y2: 30, class: "s-soft" }),
      Kit.handle({
        name: "x", label: "数的大小", x, y: 30, value: size, min: 2 ** LOW, max: 2 ** HIGH, step: 1, log: true, axis: "x",
        from: left, to: right,
        body: Kit.line({ x1: x, y1: 30, x2: x, y2: 106, class: "s-red thick" }) + Kit.circle({ cx: x, cy: 30, r: 8, class: "f-red" }),
      }),
      text(Math.min(Math.max(x, 40), width - 40), 16, (state.minus ? "−" : "") + Kit.num(state.x, 6),
        { anchor: "middle", class: "t-red bold" }));
    return parts.join("");
  }

  function bits(state, name, x0, y) {
    const { exponent, mantissa, bias } = FORMATS[name], { code, y: value } = look(state, name);
    const count = 1 + exponent + mantissa, parts = [], box = 26;
    const place = (i) => x0 + i * (box + 2) + (i > 0) * 7 + (i > exponent) * 7;
    for (let i = 0; i < count; i++) {
      const weight = 2 ** (count - 1 - i), on = Math.floor(code / weight) % 2 === 1;
      const colour = i === 0 ? "purple" : i <= exponent ? "green" : "orange";
      const x = place(i), turned = decode(code + (on ? -weight : weight), name);
      const body = Kit.rect({ x, y, width: box, height: 30, rx: 2, class: on ? `f-${colour} s-${colour}` : `f-ground s-${colour}` })
        + text(x + box / 2, y + 20, on ? "1" : "0", { anchor: "middle", class: on ? "on" : "" });
      const what = `${name} 的${i === 0 ? "符号位" : i <= exponent ? `第 ${i} 位指数` : `第 ${i - exponent} 位尾数`}`;
      if (i === 0) parts.push(Kit.press({ name: "minus", value: !state.minus, label: what, pressed: on, body }));
      else if (!Number.isFinite(turned)) parts.push(body);
      else parts.push(Kit.press({ name: "x", value: Math.abs(turned), label: what, pressed: on, body }));
    }
    const fraction = code % 2 ** mantissa, e = Math.floor(code / 2 ** mantissa) % 2 ** exponent;
    const middle = (a, b) => (place(a) + place(b) + box) / 2;
    parts.push(text(middle(0, 0), y + 46, "符号", { anchor: "middle", class: "t-purple" }),
      text(middle(1, exponent), y + 46, `指数 ${e}`, { anchor: "middle", class: "t-green" }),
      text(middle(exponent + 1, count - 1), y + 46, `尾数 ${fraction}`, { anchor: "middle", class: "t-orange" }));
    const sum = Number.isFinite(value)
      ? `${code >= 2 ** (count - 1) ? "−" : ""}${power("2", Math.max(e, 1) - bias)} × ${e ? `(1 + ${fraction}/${2 ** mantissa})` : `${fraction}/${2 ** mantissa}`}`
      : name === "E4M3" ? "指数、尾数全是 1" : "指数全是 1，尾数是 0";
    return parts.join("") + text(x0, y + 68, `${sum} = ${exact(value)}`, { class: "bold" });
  }

  // The two neighbours, x between them, and where it goes.
  function between(state, name, left, right, y) {
    const found = look(state, name), size = state.x, { max } = FORMATS[name];
    let [low, high] = [found.low, found.high];
    const hit = low === high && size <= max;
    if (hit) {
      const code = encode(size, name);
      low = code ? decode(code - 1, name) : 0;
      high = size === max ? Infinity : decode(code + 1, name);
    }
    const end = found.over || high === Infinity ? low + (low === max ? max / 4 : 2 * (size - low)) : high;
    const at = (v) => left + Math.min((v - low) / (end - low || 1), 1) * (right - left);
    const parts = [Kit.line({ x1: left - 14, y1: y, x2: right + 14, y2: y, class: "s-soft" })];
    const tick = (v, x, anchor = "middle") => {
      const chosen = Math.abs(found.y) === v;
      parts.push(Kit.line({ x1: x, y1: y - 12, x2: x, y2: y + 12, class: "s-blue thick" }),
        text(x, y + 29, exact(v), { anchor, class: chosen ? "t-blue bold" : "t-blue" }));
    };
    tick(low, at(low));
    if (hit) tick(size, at(size));
    if (high !== Infinity) tick(high, right);
    if (!hit && !found.over) {
      const middle = at((low + high) / 2);
      parts.push(Kit.line({ x1: middle, y1: y - 9, x2: middle, y2: y + 9, class: "s-soft dash" }));
    }
    const x = at(size), goal = Number.isFinite(found.y) ? at(Math.abs(found.y)) : right + 14;
    parts.push(Kit.circle({ cx: x, cy: y, r: 6, class: "f-red" }));
    if (Math.abs(goal - x) > 14)
      parts.push(Kit.arrow({ x1: x, y1: y - 18, x2: goal, y2: y - 18, class: "s-red" }));
    const loss = !Number.isFinite(found.y) ? exact(Math.abs(found.y)) : found.error === 0 ? "没有误差"
      : found.y === 0 ? "归零" : `误差 ${percent(found.error)}`;
    parts.push(text((left + right) / 2, y - 26, loss, { anchor: "middle", class: found.error === 0 ? "t-blue bold" : "t-red bold" }));
    return parts.join("");
  }

  function drawNumber(state, width) {
    const wide = width >= 560, step = wide ? 104 : 176;
    const body = EIGHT.map((name, i) => {
      const y = 146 + step * i;
      return Kit.line({ x1: 8, y1: y - 8, x2: width - 8, y2: y - 8, class: "s-soft thin" })
        + text(8, y + 22, name, { class: "t-blue bold" })
        + bits(state, name, 58, y + 4)
        + between(state, name, wide ? 392 : 40, width - (wide ? 50 : 40), wide ? y + 48 : y + 126);
    });
    return Kit.svg(width, 134 + step * 2, `${Kit.num(state.x, 6)} 在 E4M3 与 E5M2 里的位、相邻的两个数与误差`,
      numberLine(state, width) + body.join(""));
  }

  function drawMatrix(state, width) {
    const wide = width >= 560, cell = Math.floor((width - 8) / WIDTH), high = wide ? 28 : 22;
    const left = (width - cell * WIDTH) / 2, top = 34, parts = [];
    const { x, values, error, zeros, coarse, others } = damage(state.kind, 10 ** state.power, state.group, state.format);
    const [rows, columns] = GROUPS[state.group];
    const outside = KINDS[state.kind];
    const unit = (high - 3) / 2.66; // the largest number of the clean matrix
    const paths = { zero: "", kept: "", coarse: "", was: "", out: "" };
    x.forEach((v, i) => {
      const px = left + (i % WIDTH) * cell, py = top + Math.floor(i / WIDTH) * high, middle = py + high / 2;
      const bar = (value, inset) => `M${px + inset} ${py + high - 1}h${cell - 2 * inset}v${(-Math.min(Math.abs(value) * unit, high - 2)).toFixed(1)}h${2 * inset - cell}z`;
      if (outside(i)) {
        paths.out += `M${px + 1} ${py + 1}h${cell - 2}v${high - 2}h${2 - cell}z`;
        parts.push(text(px + cell / 2, middle + 5, "↑", { anchor: "middle", class: "on" }));
      } else if (values[i] === 0) {
        paths.zero += `M${px + 1} ${py + 1}h${cell - 2}v${high - 2}h${2 - cell}z`;
        parts.push(text(px + cell / 2, middle + 5, "0", { anchor: "middle", class: "on" }));
      } else {
        paths[Math.abs(values[i] - v) > Math.abs(v) / 4 ? "coarse" : "kept"] += bar(values[i], wide ? 10 : 5);
        paths.was += bar(v, wide ? 7 : 3);
      }
    });
    let grid = "", groups = "";
    for (let r = 0; r < HEIGHT; r += rows)
      for (let c = 0; c < WIDTH; c += columns)
        groups += `M${left + c * cell} ${top + r * high}h${columns * cell}v${rows * high}h${-columns * cell}z`;
    for (let r = 1; r < HEIGHT; r++) grid += `M${left} ${top + r * high}h${WIDTH * cell}`;
    for (let c = 1; c < WIDTH; c++) grid += `M${left + c * cell} ${top}v${HEIGHT * high}`;
    const share = { tensor: "整个张量", block: "128×128，画成 8×8 格", tile: "1×128，画成 1×8 格" }[state.group];
    const bottom = top + HEIGHT * high;
    parts.unshift(text(left, 22, `粗框是一组：${share}`),
      Kit.path({ d: grid, class: "s-soft thin" }), Kit.path({ d: paths.zero, class: "f-grey s-none" }),
      Kit.path({ d: paths.out, class: "f-red s-none" }), Kit.path({ d: paths.was, class: "s-soft thin" }),
      Kit.path({ d: paths.kept, class: "f-blue s-none" }), Kit.path({ d: paths.coarse, class: "f-orange s-none" }),
      Kit.path({ d: groups, class: wide ? "s-ink thick" : "s-ink" }));
    // What became of the others doubles as the legend
    const items = [["blue", `保住 ${others - coarse - zeros}`], ["orange", `错四分之一以上 ${coarse}`], ["grey", `归零 ${zeros}`]];
    let px = left;
    for (const [colour, words] of items) {
      parts.push(Kit.rect({ x: px, y: bottom + 14, width: 12, height: 12, class: `f-${colour}` }),
        text(px + 17, bottom + 25, words));
      px += 32 + 13 * [...words].length - 5 * (words.match(/[\d ]/g) || []).length;
    }
    parts.push(curve(state, left, width, bottom + 64, wide ? 150 : 140, error));
    return Kit.svg(width, bottom + 64 + (wide ? 150 : 140) + 44, "离群值与分组", parts.join(""));
  }

  // Errors at 10^0, 10^0.1, … 10^6.
  const curves = {};
  function sweep({ kind, group }, name) {
    const key = [kind, group, name].join();
    return (curves[key] ||= Array.from({ length: 61 }, (_, i) => damage(kind, 10 ** (i / 10), group, name).error));
  }

  // Error of the others against the factor, for three formats, with the handle on the axis.
  function curve(state, left, width, top, height, error) {
    const x0 = left + 40, x1 = width - 66, bottom = top + height, parts = [];
    const X = (p) => x0 + p / 6 * (x1 - x0), Y = (e) => bottom - Math.min(e, 1) * height;
    for (const e of [0, 0.5, 1])
      parts.push(Kit.line({ x1: x0, y1: Y(e), x2: x1, y2: Y(e), class: e ? "s-soft thin" : "s-ink" }),
        text(x0 - 6, Y(e) + 4, Kit.percent(e), { anchor: "end", class: "t-grey" }));
    for (let p = 0; p <= 6; p++)
      parts.push(text(X(p), bottom + 34, p ? power("10", p) : "1", { anchor: "middle", class: "t-grey" }));
    const ends = [["E5M2", "orange"], ["E4M3", "blue"], ["INT8", "red"]].map(([name, colour]) => {
      const found = sweep(state, name), last = found[60];
      const d = found.map((e, i) => `${i ? "L" : "M"}${X(i / 10).toFixed(1)} ${Y(e).toFixed(1)}`).join("");
      const chosen = name === state.format;
      parts.push(Kit.path({ d, class: `s-${colour} ${chosen ? "thick" : name === "INT8" ? "dash" : ""}` }));
      return { name, colour, chosen, y: Y(last) + 4 };
    });
    ends.sort((a, b) => a.y - b.y);
    for (let i = 1; i >= 0; i--) ends[i].y = Math.max(top + 4 + 15 * i, Math.min(ends[i].y, ends[i + 1].y - 15));
    for (let i = 1; i < 3; i++) ends[i].y = Math.max(ends[i].y, ends[i - 1].y + 15);
    for (const { name, colour, chosen, y } of ends)
      parts.push(text(x1 + 14, y, name, { class: `t-${colour}${chosen ? " bold" : ""}` }));
    const x = X(state.power);
    parts.push(text(x0, top - 8, "别的数的误差", { class: "t-grey" }),
      Kit.handle({
        name: "power", label: "放大的倍数", x, y: bottom, value: state.power, min: 0, max: 6, step: 0.1, show: (p) => `${times(p)} 倍`,
        axis: "x", from: x0, to: x1,
        body: Kit.line({ x1: x, y1: Y(error), x2: x, y2: bottom, class: "s-red" })
          + Kit.circle({ cx: x, cy: bottom, r: 9, class: "f-red" }) + Kit.circle({ cx: x, cy: Y(error), r: 4, class: "f-red" }),
      }),
      text(x > x0 + 150 ? x - 12 : x + 12, Math.max(Y(error) - 10, top + 20), `× ${times(state.power)}，误差 ${percent(error)}`,
        { anchor: x > x0 + 150 ? "end" : "start", class: "bold" }));
    return parts.join("");
  }

  function sayNumber(state) {
    const shown = `<b>${state.minus ? "−" : ""}${Kit.num(state.x, 6)}</b>`;
    const phrase = (name) => {
      const { y, low, high, error, over } = look(state, name), { bias, mantissa, max } = FORMATS[name];
      if (Number.isNaN(y)) return `${name} 没有无穷，得到 NaN，换一个库又可能是 448`;
      if (!Number.isFinite(y)) return `${name} 没有先截断，舍入后越过最大值 ${Kit.int(max)}，成了 ∞`;
      if (over) return `${name} 最大是 ${Kit.int(max)}，${state.clamp ? "截到" : "不远，舍入回到"}它`;
      if (error === 0) return `${name} 正好有这个数`;
      const size = Math.abs(y);
      if (size === 0) return `它不到 ${name} 最小正数 ${power("2", 1 - bias - mantissa)} 的一半，归零`;
      const tie = state.x === (low + high) / 2;
      const why = tie ? "正好在中点，取尾数是偶数的" : state.x < 2 ** (1 - bias) ? "已是次正规数，间隔不再变小，取较近的" : "取较近的";
      return `${name} 里它夹在 ${exact(low)} 与 ${exact(high)} 之间，${why} ${exact(size)}，误差 ${percent(error)}`;
    };
    return `${shown}：${EIGHT.map(phrase).join("；")}。`;
  }

  function sayMatrix(state) {
    const { error, zeros, others } = damage(state.kind, 10 ** state.power, state.group, state.format);
    const what = { cell: "一个数", row: "一个 token 的整行", column: "一个通道的整列" }[state.kind];
    const by = `<b>${what}放大 ${times(state.power)} 倍</b>`;
    const tile = state.group === "tile";
    const reach = { tensor: "所有的数都与它共用缩放因子", block: "同一个分块的数与它共用缩放因子", tile: "只有同一片的数与它共用缩放因子" }[state.group];
    if (tile && state.kind === "row") return `${by}，别的 token 毫不受影响：分片不跨 token，误差仍是 ${percent(error)}。`;
    const result = zeros ? `别的 ${others} 个数里 <b>${zeros} 个归零</b>，误差 ${percent(error)}` : `却没有一个归零，别的数误差 ${percent(error)}`;
    const why = state.format === "INT8" ? "整数的间隔处处相同，最大的数变大，间隔就跟着变大"
      : zeros ? "小的数缩到了最小正数的一半以下" : "浮点数小一半，间隔也小一半，还在平台上";
    return `${by}，${reach}，${result}；${why}。`;
  }

  return {
    FORMATS, BASE, GROUPS, cast, encode, decode, neighbours, quantize, damage, matrix,
    name: "fp8",
    title: "FP8 显微镜",
    state: { tab: "number", x: 17, minus: false, clamp: true, format: "E4M3", group: "tensor", kind: "cell", power: 2 },
    range: { x: [-(2 ** HIGH), 2 ** HIGH], power: [0, 6] },
    tidy: (s) => (s.x < 0 ? { ...s, x: -s.x, minus: true } : s),
    controls: [
      { kind: "tabs", name: "tab", label: "看", options: [["number", "一个数"], ["matrix", "一组数"]] },
      { kind: "number", name: "x", label: "输入一个数", when: (s) => s.tab === "number" },
      { kind: "toggle", name: "clamp", label: "转换之前截断到最大值", when: (s) => s.tab === "number" },
      { kind: "choice", name: "format", label: "格式", options: [["E4M3", "E4M3"], ["E5M2", "E5M2"], ["INT8", "INT8"]], when: (s) => s.tab === "matrix" },
      { kind: "choice", name: "group", label: "分组", options: [["tensor", "整个张量"], ["block", "128×128"], ["tile", "1×128"]], when: (s) => s.tab === "matrix" },
      { kind: "choice", name: "kind", label: "离群的是", options: [["cell", "一个数"], ["row", "一个 token"], ["column", "一个通道"]], when: (s) => s.tab === "matrix" },
    ],
    presets: [
      { label: "正确", state: {} },
      { label: "常见错误 1", state: { tab: "matrix", format: "INT8" } },
      { label: "常见错误 2", state: { tab: "matrix" } },
      { label: "常见错误 3", state: { x: 61440, clamp: false } },
      { label: "常见错误 5", state: { tab: "matrix", kind: "row", group: "block", power: 5.5 } },
    ],
    draw: (state, data, width) => (state.tab === "number" ? drawNumber(state, width) : drawMatrix(state, width)),
    say: (state) => (state.tab === "number" ? sayNumber(state) : sayMatrix(state)),
    goals: [
      {
        ask: "「一个数」：拖到一个数，E4M3 已经归零，E5M2 还保得住。",
        reached: (s) => s.tab === "number" && s.x > 0 && cast(s.x, "E4M3") === 0 && cast(s.x, "E5M2") !== 0,
        reply: "E4M3 的最小正数是 2⁻⁹，不到一半就归零；E5M2 多一位指数，一直到 2⁻¹⁶，代价是平时粗一倍。",
      },
      {
        ask: "「一个数」：只点位，拼出 E4M3 最大的数。为什么最后一位点不动？",
        reached: (s) => s.tab === "number" && s.x === 448,
        reply: "0 1111 110 是 448。最后一位再变成 1 就是 NaN，E4M3 用它换掉了无穷。",
      },
      {
        ask: "「一组数」：把一个数放大到十万倍以上，让归零的不超过 7 个，仍用 E4M3。",
        reached: (s) => s.tab === "matrix" && s.kind === "cell" && s.format === "E4M3" && s.power >= 5
          && damage(s.kind, 10 ** s.power, s.group, s.format).zeros <= 7,
        reply: "换成 1×128：只有同一片的几个数与它共用缩放因子，别的片各有各的，毫发无伤。",
      },
    ],
  };
})();
Kit.add(Fp8Lab);
