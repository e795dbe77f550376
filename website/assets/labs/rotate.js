// Two arrows turned by the positions t and j: moved together their product stays; put a matrix between
// them, and what absorption would need is another matrix for every distance. Tested against
// dsnotes.model.rope and dsnotes.model.mla.
const RotateLab = (() => {
  // --- the mathematics: vectors are [x, y], a matrix is [a, b, c, d] by rows, angles are in radians ---
  const turned = ([x, y], angle) => [
    x * Math.cos(angle) - y * Math.sin(angle),
    x * Math.sin(angle) + y * Math.cos(angle),
  ];
  const dot = (u, v) => u[0] * v[0] + u[1] * v[1];
  const times = ([a, b, c, d], [x, y]) => [a * x + b * y, c * x + d * y];
  const transposed = ([a, b, c, d]) => [a, c, b, d];

  // What stands between the query and the latent of a token at that distance t - j: R_(j-t) W, or W.
  function absorbed(view, w, step, distance) {
    if (view === "apart") return w;
    const columns = [[w[0], w[2]], [w[1], w[3]]].map((column) => turned(column, -distance * step));
    return [columns[0][0], columns[1][0], columns[0][1], columns[1][1]];
  }

  // How much a matrix differs from another one, relative to it.
  const apart = (m, w) => Math.hypot(...m.map((x, i) => x - w[i])) / Math.hypot(...w);

  // The unscaled score of a query at t with a key at j, each turned by its own position.
  function score(view, { q, w, c, qr, kr }, step, t, j) {
    const key = times(w, c);
    if (view === "apart") return dot(q, key) + dot(turned(qr, t * step), turned(kr, j * step));
    return dot(turned(q, t * step), turned(key, j * step));
  }

  // The same from the latent as it is cached, the query carried through one matrix.
  function scoreAbsorbed(view, { q, c, qr, kr }, matrix, step, distance) {
    const content = dot(times(transposed(matrix), q), c);
    return view === "apart" ? content + dot(qr, turned(kr, -distance * step)) : content;
  }

  // --- the figure ---
  const VECTORS = { q: [.85, .55], w: [.9, .6, -.45, .8], c: [.9, .45], qr: [.55, .35], kr: [.6, .05] };
  const TOKENS = 12, FAR = 5; // positions 0..11, distances 0..5
  const radians = (degrees) => degrees * Math.PI / 180;
  const distances = Array.from({ length: FAR + 1 }, (_, d) => d);
  const show = (x) => Kit.fix(x, 2);
  const letter = (name, above) => `<tspan font-style="italic">${name}</tspan>` +
    (above ? `<tspan font-size="12" dy="-5">${above}</tspan>` : "");

  // A dial with a query (blue) and a key (red), dashed where they were before they turned.
  function dial({ x, y, r, q, k, angles, names, title }) {
    const unit = r / 1.25, end = ([a, b], n = unit) => [x + n * a, y - n * b];
    const ray = (vector, colour, dash) => {
      const [x2, y2] = end(vector);
      return dash ? Kit.line({ x1: x, y1: y, x2, y2, class: `${colour} dash` })
        : Kit.arrow({ x1: x, y1: y, x2, y2, head: 11, class: `${colour} thick` });
    };
    const tip = (vector, text, colour) => {
      const long = Math.hypot(...vector), [a, b] = end(vector, unit * (1 + .19 / long));
      return Kit.text(a, b, text, { class: `big ${colour}` });
    };
    const [turnedQ, turnedK] = [turned(q, angles[0]), turned(k, angles[1])];
    const from = Math.atan2(turnedQ[1], turnedQ[0]), to = Math.atan2(turnedK[1], turnedK[0]);
    const wide = ((to - from) % (2 * Math.PI) + 3 * Math.PI) % (2 * Math.PI) - Math.PI;
    const [ax, ay] = end([Math.cos(from), Math.sin(from)], r * .34);
    const [bx, by] = end([Math.cos(to), Math.sin(to)], r * .34);
    const arc = `M${ax.toFixed(1)} ${ay.toFixed(1)}A${r * .34} ${r * .34} 0 0 ${wide > 0 ? 0 : 1} ` +
      `${bx.toFixed(1)} ${by.toFixed(1)}`;
    return Kit.circle({ cx: x, cy: y, r, class: "f-none s-grey dash" }) +
      (angles[0] || angles[1] ? ray(q, "s-blue", true) + ray(k, "s-red", true) : "") +
      Kit.path({ d: arc }) + ray(turnedK, "s-red") + ray(turnedQ, "s-blue") +
      tip(turnedQ, names[0], "t-blue") + tip(turnedK, names[1], "t-red") +
      Kit.text(x, y - r - 16, title, { class: "muted" });
  }

  // A 2 x 2 matrix as a heat map: depth is size, colour and mark are the sign; with numbers when large.
  function heat(x, y, size, matrix, numbers) {
    const cell = size / 2;
    return matrix.map((value, i) => {
      const left = x + cell * (i % 2), top = y + cell * (i >> 1);
      const text = numbers ? show(value) : value < -.005 ? "−" : value > .005 ? "+" : "";
      return Kit.rect({ x: left, y: top, width: cell, height: cell, class: value < 0 ? "f-red" : "f-blue",
        "fill-opacity": (.6 * Math.min(1, Math.abs(value) / 1.1)).toFixed(3) }) +
        Kit.text(left + cell / 2, top + cell / 2, text, { class: numbers ? "" : "small" });
    }).join("") + Kit.rect({ x, y, width: size, height: size, class: "f-none s-grey" });
  }

  function draw({ view, t, distance, step }, data, width) {
    const turn = radians(step), j = t - distance, narrow = width < 560;
    const { q, w, c, qr, kr } = VECTORS, key = times(w, c), two = view === "apart";
    const r = narrow ? 58 : 76, top = r + 34;
    const degrees = (position) => `${Kit.int(position * step)}°`;
    const parts = [];

    // the dials
    const first = narrow ? (two ? width * .26 : width * .3) : two ? 100 : 130;
    const angles = [t * turn, j * turn], names = [letter("q"), letter("k")];
    parts.push(dial({ x: first, y: top, r, q, k: key, names, angles: two ? [0, 0] : angles,
      title: two ? "内容：不转" : view === "turn" ? "按位置转" : "内容：按位置转" }));
    const second = narrow ? width * .74 : 300;
    if (two)
      parts.push(dial({ x: second, y: top, r, q: qr.map((x) => x * 1.35), k: kr.map((x) => x * 1.35),
        angles, names: [letter("q", "R"), letter("k", "R")], title: "位置：按位置转" }));

    // what turned how far, and the matrices
    const now = score(view, VECTORS, turn, t, j), matrix = absorbed(view, w, turn, distance);
    if (!two) {
      const x = narrow ? width * .58 : 250, lines = [
        [`${letter("t")} = ${t}，${letter("q")} 转 ${degrees(t)}`, "t-blue"],
        [`${letter("j")} = ${j}，${letter("k")} 转 ${degrees(j)}`, "t-red"],
        [`差 ${degrees(distance)}`, "muted"], [`点积 ${show(now)}`, "big"]];
      lines.forEach(([text, colour], i) =>
        parts.push(Kit.text(x, top - 44 + 27 * i, text, { anchor: "start", class: colour })));
    }
    let bottom = top + r + 16;
    if (view !== "turn") {
      const size = 92, y = narrow ? bottom + 26 : top - 46, gap = narrow ? (width - 2 * size) / 3 : 46;
      const right = narrow ? 2 * gap + size : width - size - 16, left = narrow ? gap : right - size - gap;
      parts.push(heat(left, y, size, w, true), heat(right, y, size, matrix, true),
        Kit.text(left + size / 2, y - 14, "距离 0", { class: "muted" }),
        Kit.text(right + size / 2, y - 14, `距离 ${distance}`, { class: "muted" }),
        Kit.text((left + right + size) / 2, y + size / 2, apart(matrix, w) < 1e-9 ? "=" : "≠", { class: "big" }),
        Kit.text((left + right + size) / 2, y + size + 18, "要并进查询的矩阵", { class: "muted" }));
      bottom = Math.max(bottom, y + size + 36);
    }

    // the tokens, with what can be dragged
    const side = narrow ? 0 : 92, pitch = (width - side) / TOKENS, at = (i) => side + pitch * (i + .5);
    const strip = bottom + 30, box = narrow ? 24 : 28;
    const label = (y, text) => narrow ? "" : Kit.text(0, y, text, { anchor: "start", class: "muted" });
    const columnsEnd = strip + box + 36 + (view === "turn" ? 0 : pitch * .84 + 14) + (two ? 56 : 78);
    parts.push(Kit.rect({ x: at(j) - pitch / 2, y: strip - 2, width: pitch, height: columnsEnd - strip, rx: 4,
      class: "f-grey", "fill-opacity": .16 }));
    for (let i = 0; i < TOKENS; i++)
      parts.push(Kit.rect({ x: at(i) - pitch * .42, y: strip, width: pitch * .84, height: box, rx: 3,
        class: i > t ? "f-none s-grey dash faint" : "f-none s-grey" }),
      Kit.text(at(i), strip + box / 2, i, { class: i > t ? "muted faint" : "" }));
    const grip = (name, says, value, range, ends, x, y, colour) => Kit.handle({
      name, label: says, x, y, value, min: range[0], max: range[1], step: 1, axis: "x", from: ends[0], to: ends[1],
      body: Kit.circle({ cx: x, cy: y, r: 12, class: colour }) +
        Kit.text(x, y, colour === "f-blue" ? "q" : "k", { class: colour === "f-blue" ? "on-dark" : "on" }) });
    parts.push(label(strip + box / 2, "位置"),
      grip("t", "查询的位置，键一起移", t, [FAR, TOKENS - 1], [at(FAR), at(TOKENS - 1)], at(t), strip - 15, "f-blue"),
      grip("distance", "键离查询的距离", distance, [0, FAR], [at(t), at(t - FAR)], at(j), strip + box + 15, "f-red"));

    // under each token that is read: its matrix and its score
    let y = strip + box + 36;
    if (view !== "turn") {
      const size = pitch * .84;
      parts.push(label(y + size / 2, "矩阵"),
        ...distances.map((d) => heat(at(t - d) - size / 2, y, size, absorbed(view, w, turn, d), false)));
      y += size + 14;
    }
    const high = 34, zero = y + high * (two ? 1.4 : 1.1);
    parts.push(label(zero - (two ? 32 : 10), "点积"), Kit.line({ x1: at(t - FAR) - pitch / 2, x2: at(t) + pitch / 2, y1: zero, y2: zero, class: "s-grey" }));
    for (const d of distances) {
      const value = score(view, VECTORS, turn, t, t - d), x = at(t - d), long = value * high;
      parts.push(Kit.rect({ x: x - pitch * .2, y: zero - Math.max(0, long), width: pitch * .4,
        height: Math.max(.5, Math.abs(long)), class: d === distance ? "f-ink" : "f-grey" }));
      if (view === "turn") continue;
      const only = zero - high * scoreAbsorbed(view, VECTORS, w, turn, d), n = narrow ? 4 : 5;
      parts.push(Kit.path({ d: `M${x - n} ${only - n}l${2 * n} ${2 * n}m0 ${-2 * n}l${-2 * n} ${2 * n}`, class: "s-red thick" }));
    }
    if (view !== "turn")
      parts.push(narrow ? Kit.text(width / 2, columnsEnd + 14, "条：点积　×：只用一个 W 算的", { class: "muted" })
        : Kit.text(0, zero + (two ? -11 : 11), "× 只用 W", { anchor: "start", class: "t-red" }));
    const height = columnsEnd + (narrow && view !== "turn" ? 24 : 6);
    return Kit.svg(width, height, `查询在位置 ${t}，键在位置 ${j}，点积 ${show(now)}`, parts.join(""));
  }

  function say({ view, t, distance, step }) {
    const turn = radians(step), j = t - distance, now = score(view, VECTORS, turn, t, j);
    if (view === "turn")
      return `位置 ${t} 与 ${j} 各转各的角，点积 <b>${show(now)}</b>：拖蓝色的 q，两支箭头一起转，点积一位不变，因为它只看距离 ${distance}。`;
    if (view === "apart")
      return "位置另走一路，查询与潜在向量之间夹着的总是 W：并进查询一次，<b>6 个距离都用它</b>，红叉全落在条的顶端。";
    if (!step) return "一点也不转，一个矩阵就够了；可是 6 个位置的点积也都一样，<b>位置没有了</b>。";
    if (!distance) return "距离 0，R<sub>0</sub>W 就是 W，只在这里红叉落在条的顶端；别的 5 个距离各要一个矩阵。";
    const matrix = absorbed(view, VECTORS.w, turn, distance);
    return `隔了 ${distance} 步，要并进查询的是 R<sub>−${distance}</sub>W，与 W 差 <b>${Kit.percent(apart(matrix, VECTORS.w))}</b>；` +
      `只用一个 W，点积就由 ${show(now)} 错成 ${show(scoreAbsorbed(view, VECTORS, VECTORS.w, turn, distance))}。`;
  }

  return {
    turned, absorbed, apart, score, scoreAbsorbed, vectors: VECTORS,
    name: "rotate",
    title: "旋转与吸收",
    state: { view: "between", t: 9, distance: 3, step: 25 },
    tidy: (state) => ({ ...state, t: Math.round(state.t), distance: Math.round(state.distance) }),
    controls: [
      { kind: "tabs", name: "view", label: "看什么",
        options: [["turn", "只有旋转"], ["between", "夹着 W"], ["apart", "解耦"]] },
      { kind: "slider", name: "t", label: "q 与 k 一起移", min: FAR, max: TOKENS - 1, step: 1, show: (v) => `t = ${v}` },
      { kind: "slider", name: "distance", label: "距离 t − j", min: 0, max: FAR, step: 1, show: (v) => Kit.int(v) },
      { kind: "slider", name: "step", label: "每步转", min: 0, max: 60, step: 5, show: (v) => `${Kit.int(v)}°` },
    ],
    presets: [
      { label: "转内容的键", state: {} },
      { label: "一点也不转", state: { step: 0 } },
      { label: "正确：解耦", state: { view: "apart" } },
    ],
    draw, say,
    goals: [
      { ask: "在“只有旋转”里，让两支箭头都转到别处，点积却仍是刚才的数。",
        reached: ({ view, t, distance }) => view === "turn" && t !== 9 && distance === 3,
        reply: "两支箭头多转了同一个角，夹角没变。转到哪里要看 t 与 j，点积只看 t − j。" },
      { ask: "在“夹着 W”里不解耦，怎样让一个矩阵就够用？",
        reached: ({ view, step }) => view === "between" && step === 0,
        reply: "不转就够了，可是各个位置的点积也就一样了。又要一个矩阵，又要位置，只好分两路走。" },
      { ask: "换成“解耦”，把距离拖到最远。哪些变了，哪些没有变？",
        reached: ({ view, distance }) => view === "apart" && distance === FAR,
        reply: "位置的两支箭头随距离张开，点积跟着变；内容的箭头和要并进查询的 W 没有变，所以吸收照旧。" },
    ],
  };
})();
Kit.add(RotateLab);
