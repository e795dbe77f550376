// The 32 hands of V3's rotary embedding: stretch the context and see which walk into angles never seen in
// training, and which must be slowed. Tested against dsnotes.model.rope.
const YarnLab = (() => {
  // --- the mathematics; `shape`: dim (channels), base, length (trained), fast and slow (turns) ---
  const V3 = { dim: 64, base: 10000, length: 4096, fast: 32, slow: 1, qk: 192 };

  // The pairs between which the slowing grows: last untouched, first fully slowed.
  function range({ dim, base, length, fast, slow }) {
    const index = (turns) => dim * Math.log(length / (turns * 2 * Math.PI)) / (2 * Math.log(base));
    return [Math.max(Math.floor(index(fast)), 0), Math.min(Math.ceil(index(slow)), dim - 1)];
  }

  // Radians a step of each pair, and how far it is slowed (0: not, 1: by the whole factor).
  function hands(shape, factor, wrong) {
    const [low, high] = range(shape);
    return Array.from({ length: shape.dim / 2 }, (_, m) => {
      const plain = shape.base ** (-2 * m / shape.dim);
      const slowed = wrong === "trap7" ? 1 : Math.min(1, Math.max(0, (m - low) / (high - low || .001)));
      return { plain, slowed, angle: plain * (1 - slowed) + plain / factor * slowed };
    });
  }

  // What the logits are multiplied by.
  const scale = (factor, qk) => (.1 * Math.log(factor) + 1) ** 2 / Math.sqrt(qk);

  // Pairs that go through angles they never had within the trained length.
  const astray = (shape, factor, wrong, position) =>
    hands(shape, factor, wrong).flatMap(({ plain, angle }, m) => {
      const seen = shape.length * plain;
      return seen < 2 * Math.PI && position * angle > seen * (1 + 1e-9) ? [m] : [];
    });

  // --- the figure ---
  const TURN = 2 * Math.PI;

  // A piece of a ring, clockwise from the top.
  function ring(x, y, r, from, to, options) {
    if (to - from >= TURN - 1e-6) return Kit.circle({ cx: x, cy: y, r, ...options });
    const point = (angle) => `${(x + r * Math.sin(angle)).toFixed(2)} ${(y - r * Math.cos(angle)).toFixed(2)}`;
    return Kit.path({ d: `M${point(from)}A${r} ${r} 0 ${to - from > Math.PI ? 1 : 0} 1 ${point(to)}`, ...options });
  }

  function draw({ factor, position, wrong }, data, width) {
    const columns = 8, pitch = width / columns, narrow = width < 560, r = Math.min(32, pitch / 2 - 5);
    const row = 2 * r + 40, top = 40, thick = `stroke-width: ${narrow ? 4 : 5}px`, away = new Set(astray(V3, factor, wrong, position));
    const mark = (colour, text) => `<tspan class="${colour}" style="font-weight: 600">${text}</tspan>`;
    const parts = [Kit.text(0, 10, `${mark("t-blue", "蓝环")} 训练时走过的角度　${mark("t-red", "红环")} 没有走过的　` +
      `${mark("t-green", "扇形")} 一步`, { anchor: "start", class: "muted" })];
    hands(V3, factor, wrong).forEach(({ plain, slowed, angle }, m) => {
      const x = pitch * (m % columns + .5), y = top + r + row * Math.floor(m / columns);
      const seen = Math.min(TURN, V3.length * plain), now = position * angle, hand = r - (narrow ? 6 : 8);
      const tip = [x + hand * Math.sin(now), y - hand * Math.cos(now)];
      const step = [x + hand * Math.sin(now + angle), y - hand * Math.cos(now + angle)];
      parts.push(
        Kit.circle({ cx: x, cy: y, r, class: "f-none s-grey" }),
        ring(x, y, r - 3, 0, seen, { class: "f-none s-blue", style: thick }),
        away.has(m) ? ring(x, y, r - 3, seen, Math.min(TURN, now), { class: "f-none s-red",
          style: `${thick}; stroke-dasharray: 3 2.5` }) : "",
        angle > .02 ? Kit.path({ d: `M${x} ${y}L${tip.map((n) => n.toFixed(2)).join(" ")}A${hand} ${hand} 0 0 1 ` +
          `${step.map((n) => n.toFixed(2)).join(" ")}z`, class: "f-green s-none", "fill-opacity": .6 }) : "",
        Kit.line({ x1: x, y1: y, x2: tip[0], y2: tip[1], class: `${away.has(m) ? "s-red" : "s-ink"} thick` }),
        Kit.text(x, y + r + 11, factor > 1 && slowed ? `÷${Kit.num(plain / angle, 2)}` : "不动",
          { class: factor > 1 && slowed ? "small" : "small muted" }),
        Kit.text(x, y - r - 8, m, { class: "small muted" }));
    });
    const height = top + 4 * row - 18;
    return Kit.svg(width, height, `${away.size} 根指针走进没见过的角度`, parts.join(""));
  }

  function say({ factor, position, wrong }) {
    const all = hands(V3, factor, wrong), away = astray(V3, factor, wrong, position), at = Kit.int(position);
    if (wrong === "trap7" && factor > 1)
      return `32 根一律除以 ${Kit.num(factor)}：最快的一根每步由 ${Kit.fix(180 / Math.PI, 1)}° 变成 <b>` +
        `${Kit.fix(180 / Math.PI * all[0].angle, 1)}°</b>，相邻的 token 几乎分不出先后。`;
    const where = away.length ? `<b>最慢的 ${away.length} 根走进了训练时没有见过的角度</b>`
      : "没有一根走进没见过的角度";
    if (factor === 1) return `不调慢，走到第 ${at} 个 token，${where}。`;
    const still = all.filter(({ slowed }) => !slowed).length, whole = all.filter(({ slowed }) => slowed === 1).length;
    return `最快的 ${still} 根不动，最慢的 ${whole} 根慢 ${Kit.num(factor)} 倍，中间的逐渐过渡；走到第 ${at} 个 token，${where}。` +
      `softmax 的缩放因子同时成为 ${Kit.fix(scale(factor, V3.qk), 4)}。`;
  }

  return {
    range, hands, scale, astray,
    name: "yarn",
    title: "调慢哪些指针",
    state: { wrong: "none", factor: 1, position: 131072 },
    controls: [
      { kind: "choice", name: "wrong", label: "调慢", options: [["none", "只调慢的"], ["trap7", "常见错误 7：一律调慢"]] },
      { kind: "slider", name: "factor", label: "扩展的倍数 s", min: 1, max: 64, log: true, show: (v) => Kit.num(v) },
      { kind: "slider", name: "position", label: "走到位置", min: 1, max: 163840, log: true, whole: true, show: (v) => Kit.int(v) },
    ],
    presets: [
      { label: "不调慢", state: {} },
      { label: "正确（V3，s = 40）", state: { factor: 40 } },
      { label: "常见错误 7", state: { factor: 40, wrong: "trap7" } },
    ],
    draw, say,
    goals: [
      { ask: "走到 131,072，s 至少要多大，才没有一根走进没见过的角度？",
        reached: ({ factor, position, wrong }) => wrong === "none" && position >= 131072 && factor < 33 &&
          !astray(V3, factor, wrong, position).length,
        reply: "32，正是拉长的倍数：慢 32 倍的指针走到 32 倍远，恰好转到训练时的角度。V3 取 40，可以走到 163,840。" },
      { ask: "一律调慢也没有一根越界，错在哪里？看左上角的绿色扇形。",
        reached: ({ factor, wrong }) => wrong === "trap7" && factor >= 16,
        reply: "快的指针是用来分清近处的：扇形是相邻两个 token 的角度差，调慢以后几乎没有了。它们早已转过整圈，本来不必动。" },
    ],
  };
})();
Kit.add(YarnLab);
