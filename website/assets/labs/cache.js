// What attention keeps, reads and multiplies: shapes to turn, heads with their own keys, shared keys and the
// latent of MLA beside each other. Tested against dsnotes.model.cache, counts and mla.
const CacheLab = (() => {
  // --- the mathematics; d_h = d_v = 128; fresh: new tokens that look at one cached position ---
  const HEAD = 128, BYTES = 2, BANDWIDTH = 3.35e12, PEAK = 865e12; // BF16; bytes and operations a second, H800

  // Numbers cached for one token in one layer.
  function cached({ heads, groups, latent, rope, wrong }) {
    const mla = wrong === "trap1" ? latent + heads * rope
      : wrong === "trap5" ? heads * (HEAD + rope + HEAD) : latent + rope;
    return { mha: 2 * heads * HEAD, gqa: 2 * Math.min(groups, heads) * HEAD, mqa: 2 * HEAD, mla };
  }

  // Multiply-adds for one cached position in one layer.
  function multiplied({ heads, latent, rope, fresh }) {
    const shared = fresh * heads * 2 * HEAD; // the same however many heads share a key
    return { mha: shared, gqa: shared, mqa: shared,
      expand: heads * 2 * HEAD * latent + fresh * heads * (HEAD + rope + HEAD),
      absorb: fresh * heads * (2 * latent + rope) };
  }

  // New tokens from which decompressing multiplies less; Infinity where it never does.
  const crossing = ({ latent }) => latent > HEAD ? 2 * HEAD * latent / (2 * latent - 2 * HEAD) : Infinity;

  // Seconds one step needs at least for reading the cache and for multiplying, over context and layers.
  function least(state) {
    const kept = cached({ ...state, wrong: "none" }), macs = multiplied(state);
    const positions = state.context * state.batch * state.layers;
    return Object.fromEntries(Object.entries(macs).map(([way, n]) => [way, {
      read: BYTES * (kept[way] ?? kept.mla) * positions / BANDWIDTH, work: 2 * n * positions / PEAK }]));
  }

  // --- the figure ---
  const NAMES = { mha: "多头", mqa: "多查询", mla: "MLA", expand: "MLA，展开", absorb: "MLA，吸收" };
  const name = (way, { groups, heads }) => way === "gqa" ? `分组查询，${Math.min(groups, heads)} 组` : NAMES[way];
  const seconds = (s) => s >= 1 ? `${Kit.num(s)} s` : s >= 1e-3 ? `${Kit.num(1e3 * s)} ms` : s >= 1e-6 ? `${Kit.num(1e6 * s)} µs`
    : `${Kit.num(1e9 * s)} ns`;
  const context = (n) => n >= 1024 && n % 1024 === 0 ? `${Kit.int(n / 1024)}K` : Kit.int(n);
  const size = (state) => `${context(state.context)} 个 token 的上下文，${Kit.int(state.batch)} 个对话，${Kit.int(state.layers)} 层`;
  const gigabytes = (x) => x >= 1e9 ? `${Kit.num(x / 1e9)} GB` : `${Kit.num(x / 1e6)} MB`;
  const waits = ({ read, work }) => read >= work ? "读" : "算";

  const word = (x, y, words, colour, anchor = "start") => Kit.text(x, y, words, { anchor, class: colour });

  function drawCache(state, width) {
    const kept = cached(state), plain = state.latent + state.rope, most = Math.max(...Object.values(kept)), narrow = width < 560;
    const side = narrow ? 0 : 116, room = width - side - 150, row = narrow ? 60 : 48, first = narrow ? 52 : 32;
    const whole = BYTES * state.layers * state.context * state.batch;
    const bars = Object.entries(kept).map(([way, n], i) => {
      const y = first + row * i, long = Math.max(1, room * n / most), mla = way === "mla";
      const how = mla && state.wrong !== "none" ? { class: "f-red s-ink dash", "fill-opacity": .35 } : { class: mla ? "f-blue" : "f-red" };
      return word(0, narrow ? y - 12 : y + 15, name(way, state), mla ? "bold" : "") +
        Kit.rect({ x: side, y, width: long, height: 30, rx: 2, ...how }) +
        word(side + long + 8, y + 15, `${gigabytes(n * whole)}　${Kit.num(n / plain)} 倍`, mla ? "bold" : "");
    });
    return Kit.svg(width, first + row * 4 - 12, "四种做法的缓存",
      word(0, 10, `${size(state)}，BF16`, "muted") + bars.join(""));
  }

  function drawWork(state, width) {
    const narrow = width < 560, left = 50, right = width - 18, top = 30, bottom = 290, cut = crossing(state), most = 4096;
    const macs = (fresh) => multiplied({ ...state, fresh }), ways = ["mha", "expand", "absorb"];
    const values = [macs(1), macs(most)].flatMap((n) => ways.map((way) => n[way]));
    const low = 10 ** Math.floor(Math.log10(Math.min(...values))), high = 10 ** Math.ceil(Math.log10(Math.max(...values)));
    const x = Kit.log([1, most], [left, right]), y = Kit.log([low, high], [bottom, top]), parts = [];
    for (let tick = low; tick <= high * 1.01; tick *= 10)
      parts.push(Kit.line({ x1: left, x2: right, y1: y(tick), y2: y(tick), class: "s-soft" }),
        word(left - 12, y(tick), `10<tspan dy="-5">${Math.round(Math.log10(tick))}</tspan>`, "muted", "end"));
    for (const tick of narrow ? [1, 8, 64, 512, 4096] : [1, 4, 16, 64, 256, 1024, 4096])
      parts.push(word(x(tick), bottom + 24, tick, "muted", "middle"));
    parts.push(word(0, 10, "每个位置的乘加（一层）", "muted"), word(right, bottom + 46, "新 token 数", "muted", "end"),
      Kit.line({ x1: x(state.fresh), x2: x(state.fresh), y1: top, y2: bottom, class: "dash" }));
    const strokes = { mha: "s-red", expand: "s-sky dash", absorb: "s-blue" }, fills = { mha: "f-red", expand: "f-sky", absorb: "f-blue" };
    for (const way of ways) {
      const points = Array.from({ length: 49 }, (_, i) => most ** (i / 48)).map((fresh) =>
        `${x(fresh).toFixed(1)} ${y(macs(fresh)[way]).toFixed(1)}`);
      parts.push(Kit.path({ d: `M${points.join("L")}`, class: `thick ${strokes[way]}` }),
        Kit.circle({ cx: x(state.fresh), cy: y(macs(state.fresh)[way]), r: 5, class: fills[way] }));
    }
    const label = (way, at, up, colour, anchor) => parts.push(word(x(at), y(macs(at)[way]) - up, NAMES[way], colour, anchor));
    label("expand", 1.3, 14, "t-sky");
    label("absorb", 10, 14, "t-blue", "end");
    label("mha", 5, -20, "t-red");
    if (cut <= most) { // a line leads down to where there is room for the words
      const words = y(macs(cut).mha) + (narrow ? 60 : 40);
      parts.push(Kit.line({ x1: x(cut), x2: x(cut), y1: y(macs(cut).absorb) + 8, y2: words - 12 }),
        Kit.circle({ cx: x(cut), cy: y(macs(cut).absorb), r: 8, class: "f-none s-ink thick" }),
        word(x(cut) - (narrow ? 24 : 0), words, `从 ${Math.floor(cut) + 1} 个起，展开更少`, "bold", narrow ? "start" : "middle"));
    }
    parts.push(Kit.handle({ name: "fresh", label: "新 token 数", x: x(state.fresh), y: bottom, value: state.fresh, min: 1, max: most,
      step: 1, log: true, axis: "x", from: left, to: right, show: (v) => Kit.int(v) }));
    return Kit.svg(width, bottom + 58, "乘加随新 token 数增加", parts.join(""));
  }

  function drawWait(state, width) {
    const times = least(state), narrow = width < 560, side = narrow ? 0 : 116, top = 28, row = narrow ? 72 : 54;
    const all = Object.values(times).flatMap(({ read, work }) => [read, work]);
    const low = 10 ** Math.floor(Math.log10(Math.min(...all)) - .01), high = 10 ** Math.ceil(Math.log10(Math.max(...all)));
    const start = side + 22, x = Kit.log([low, high], [start, width - 66]), end = top + row * 5, parts = [];
    const decades = Math.round(Math.log10(high / low)), every = Math.ceil(decades / (narrow ? 4 : 8));
    for (let i = 0; i <= decades; i++) {
      const at = x(low * 10 ** i);
      parts.push(Kit.line({ x1: at, x2: at, y1: top - 6, y2: end, class: "s-soft" }),
        i % every ? "" : word(at, top - 17, seconds(low * 10 ** i), "muted", "middle"));
    }
    Object.entries(times).forEach(([way, time], i) => {
      const y = top + row * i + (narrow ? 28 : 6), longer = waits(time);
      parts.push(word(0, narrow ? y - 12 : y + 19, name(way, state), way === "absorb" ? "bold" : ""));
      [["读", time.read, "f-sky"], ["算", time.work, "f-orange"]].forEach(([what, value, colour], k) => {
        const middle = y + 20 * k + 9, how = what === longer ? "bold" : "muted";
        parts.push(word(start - 5, middle, what, how, "end"), word(x(value) + 6, middle, seconds(value), how),
          Kit.rect({ x: start, y: middle - 9, width: Math.max(1, x(value) - start), height: 18, rx: 2, class: colour,
            "fill-opacity": what === longer ? 1 : .4 }));
      });
    });
    const fresh = `${Kit.int(state.fresh)} 个新 token`, lines = narrow ? [size(state), fresh] : [`${size(state)}；${fresh}`];
    lines.forEach((line, i) => parts.push(word(0, end + 14 + 19 * i, line, "muted")));
    return Kit.svg(width, end + 7 + 19 * lines.length, "一步至少要多久", parts.join(""));
  }

  const draw = (state, data, width) =>
    ({ bytes: drawCache, work: drawWork, wait: drawWait })[state.view](state, width);

  function say(state) {
    const kept = cached(state), right = state.latent + state.rope, times = least(state), macs = multiplied(state), cut = crossing(state);
    if (state.view === "bytes") {
      if (state.wrong === "trap1") return `每个头一个位置键，要存 ${Kit.int(kept.mla)} 个数一层：多头只是它的 <b>${Kit.num(kept.mha / kept.mla)} 倍</b>，不是 ${Kit.num(kept.mha / right)} 倍。`;
      if (state.wrong === "trap5") return `缓存展开以后的键和值，是潜在向量与位置键的 <b>${Kit.num(kept.mla / right)} 倍</b>，比多头存得还多：输出正确，什么也没省。`;
      if (kept.mha <= kept.mla) return `只有 ${state.heads} 个头，MLA 不比多头存得少：<b>头多了，共用一个来源才省</b>。`;
      return `MLA 每个 token 存 ${Kit.int(kept.mla * state.layers * BYTES)} 字节，是多头的 <b>1/${Kit.num(kept.mha / kept.mla)}</b>，` +
        `相当于 ${Kit.num(kept.mla / kept.mqa)} 组；头数再多，它也不变，因为潜在向量各头共用。`;
    }
    if (state.view === "work") {
      const less = macs.absorb < macs.expand;
      return `${Kit.int(state.fresh)} 个新 token，<b>${less ? "吸收" : "展开"}的乘加少</b>，${less ? "展开" : "吸收"}是它的 ` +
        `${Kit.num(less ? macs.expand / macs.absorb : macs.absorb / macs.expand)} 倍；` + (cut === Infinity ? "潜在向量不比一个头宽，展开永远划不来。"
        : `展开一次大家用，新 token 到 ${Math.floor(cut) + 1} 个才划算。`);
    }
    const span = ({ read, work }) => Math.max(read, work), a = times.absorb;
    return `吸收的一步等的是<b>${waits(a)}</b>，至少 ${seconds(span(a))}；多头要 ${seconds(span(times.mha))}，每步展开要 ${seconds(span(times.expand))}。` +
      (a.read >= a.work ? "乘加虽多，用的是闲着的算力。" : "同一条潜在向量要算的次数太多，算力不够用了。");
  }

  const tidy = (state) => Object.fromEntries(Object.entries(state).map(([field, value]) =>
    [field, typeof value === "number" ? Math.round(value) : value])); // all are counted
  const is = (view) => (state) => state.view === view, not = (view) => (state) => state.view !== view;
  return {
    cached, multiplied, crossing, least,
    name: "cache",
    title: "缓存与读写计算器",
    state: { view: "wait", wrong: "none", heads: 128, groups: 8, latent: 512, rope: 64, fresh: 1, context: 131072, batch: 1, layers: 61 },
    controls: [
      { kind: "tabs", name: "view", label: "看什么", options: [["bytes", "存多少"], ["wait", "等读还是等算"], ["work", "展开还是吸收"]] },
      { kind: "choice", name: "wrong", label: "MLA 存什么", when: is("bytes"),
        options: [["none", "正确"], ["trap1", "常见错误 1"], ["trap5", "常见错误 5"]] },
      { kind: "slider", name: "heads", label: "头数 <i>n</i><sub>h</sub>", min: 1, max: 256, log: true, whole: true, show: (v) => Kit.int(v) },
      { kind: "slider", name: "fresh", label: "新 token 数", when: not("bytes"), min: 1, max: 4096, log: true, whole: true, show: (v) => Kit.int(v) },
      { kind: "slider", name: "latent", label: "潜在向量的宽 <i>d</i><sub>c</sub>", min: 64, max: 1024, step: 64, show: (v) => Kit.int(v) },
      { kind: "slider", name: "rope", label: "位置键的宽 <i>d</i><sup>R</sup>", min: 16, max: 128, step: 16, show: (v) => Kit.int(v) },
      { kind: "slider", name: "groups", label: "分组查询的组数", when: not("work"), min: 1, max: 64, log: true, whole: true, show: (v) => Kit.int(v) },
      { kind: "slider", name: "context", label: "上下文", when: not("work"), min: 1024, max: 1048576, log: true, whole: true, show: context },
      { kind: "slider", name: "batch", label: "同时几个对话", when: is("bytes"), min: 1, max: 256, log: true, whole: true, show: (v) => Kit.int(v) },
      { kind: "slider", name: "layers", label: "层数", when: is("bytes"), min: 1, max: 128, step: 1, show: (v) => Kit.int(v) },
    ],
    presets: [
      { label: "正确（V3）", state: {} },
      { label: "V2-Lite", state: { heads: 16, layers: 27 } },
      { label: "读提示", state: { view: "work", fresh: 4096 } },
      { label: "常见错误 1", state: { view: "bytes", wrong: "trap1" } },
      { label: "常见错误 5", state: { view: "bytes", wrong: "trap5" } },
    ],
    tidy, draw, say,
    goals: [
      { ask: "在“等读还是等算”里只动一个滑块，让吸收由等读变成等算。",
        reached: (state) => state.view === "wait" && waits(least(state).absorb) === "算",
        reply: "头多了，或者一步送进两个新 token，同一条潜在向量就要多算几遍。推测解码的第二个 token 因此不再白得。" },
      { ask: "在“展开还是吸收”里，哪个滑块移得动交点？先试头数。",
        reached: (state) => state.view === "work" && state.latent !== 512,
        reply: "只有潜在向量的宽度。展开和吸收都与头数成正比，位置键两边一样，都约去了。" },
      { ask: "在“存多少”里，让 MLA 存得同多查询一样少。",
        reached: (state) => state.view === "bytes" && cached(state).mla === cached(state).mqa,
        reply: "潜在向量加位置键等于一个键加一个值就行。存得一样少，各头却仍由自己的矩阵展开，键和值并不相同。" },
    ],
  };
})();
Kit.add(CacheLab);
