// Two singular values on their way through Newton-Schulz: what the unit circle becomes, and where every value goes.
// Tested against dsnotes.after.newton_schulz.
const MuonLab = (() => {
  // --- the mathematics ---
  const STEEP = [3.4445, -4.775, 2.0315], SETTLE = [2, -1.5, 0.5];
  const WAYS = { // the coefficients of step k, from 0
    hybrid: (k) => (k < 8 ? STEEP : SETTLE),
    steep: () => STEEP,
    settle: () => SETTLE,
    reversed: (k) => (k < 2 ? SETTLE : STEEP),
  };
  const step = (x, [a, b, c]) => a * x + b * x ** 3 + c * x ** 5;
  function after(x, way, steps) {
    for (let k = 0; k < steps; k++) x = step(x, WAYS[way](k));
    return x;
  }

  // --- the figure ---
  const SHORT = { hybrid: "八加二", steep: "一直用第一组", settle: "一直用第二组", reversed: "先停后抬" };
  const COLOUR = ["blue", "orange"], TOP = 1.3;
  const values = ({ power }) => power.map((p) => 10 ** p);
  const ends = (s) => values(s).map((x) => after(x, s.way, s.steps));
  const close = (y) => Math.abs(y - 1) < 0.05;

  function ellipse(cx, cy, radius, [long, short], look) { // tilted, so that it is no picture of the axes
    const rx = Math.max(1, radius * long), ry = Math.max(1, radius * short), tilt = Math.PI / 6;
    const dx = rx * Math.cos(tilt), dy = -rx * Math.sin(tilt);
    return Kit.path({ d: `M${cx - dx} ${cy - dy}A${rx} ${ry} -30 1 1 ${cx + dx} ${cy + dy}A${rx} ${ry} -30 1 1 ${cx - dx} ${cy - dy}`, class: look });
  }

  function circlePanel(s, cx, cy, radius) {
    const unit = radius / TOP, out = ends(s), tilt = Math.PI / 6;
    const axis = (length, angle, colour) => Kit.line({ x1: cx, y1: cy, x2: cx + unit * length * Math.cos(angle),
      y2: cy - unit * length * Math.sin(angle), class: `s-${colour} thick` });
    return Kit.circle({ cx, cy, r: unit, class: "f-none s-soft" })
      + ellipse(cx, cy, unit, values(s), "s-ink dash")
      + ellipse(cx, cy, unit, out, "s-green thick")
      + axis(out[0], tilt, COLOUR[0]) + axis(out[1], tilt + Math.PI / 2, COLOUR[1])
      + Kit.text(cx, cy + radius + 12, "圆经过矩阵以后", { anchor: "middle" });
  }

  function curvePanel(s, left, top, width, height) {
    const x = Kit.scale([-5, 0], [left + 30, left + width - 12]), y = Kit.scale([0, TOP], [top + height, top]);
    const points = [];
    for (let i = 0; i <= 240; i++) {
      const power = -5 + (5 * i) / 240;
      points.push(`${x(power).toFixed(1)} ${y(Math.min(TOP, after(10 ** power, s.way, s.steps))).toFixed(1)}`);
    }
    const grid = [0, 0.5, 1].map((v) => Kit.line({ x1: x(-5), x2: x(0), y1: y(v), y2: y(v), class: v === 1 ? "s-ink thin dash" : "s-soft thin" })
      + Kit.text(left + 24, y(v), v, { anchor: "end", class: "small" })).join("");
    const ticks = [[-5, "10⁻⁵"], [-3, "0.001"], [-1, "0.1"], [0, "1"]].map(([p, words]) =>
      Kit.text(x(p), top + height + 16, words, { anchor: "middle", class: "small" })).join("");
    const handles = values(s).map((value, i) => {
      const px = x(s.power[i]), py = y(Math.min(TOP, after(value, s.way, s.steps)));
      return Kit.line({ x1: px, x2: px, y1: y(0), y2: py, class: `s-${COLOUR[i]} dash` })
        + Kit.handle({ name: `power.${i}`, label: `第 ${i + 1} 个奇异值，以十为底的对数`, x: px, y: py, value: s.power[i], min: -5, max: 0,
          step: 0.05, axis: "x", from: x(-5), to: x(0), body: Kit.circle({ cx: px, cy: py, r: 8, class: `f-${COLOUR[i]}` }) });
    }).join("");
    return grid + ticks + Kit.path({ d: `M${points.join("L")}`, class: "s-green thick" }) + handles
      + Kit.text(left + width / 2, top + height + 36, `进去的奇异值；竖着的是 ${s.steps} 步以后`, { anchor: "middle" });
  }

  function draw(s, data, width) {
    if (width >= 520) return Kit.svg(width, 268, "两个奇异值走到哪里",
      circlePanel(s, 125, 122, 112) + curvePanel(s, 262, 14, width - 262, 210));
    return Kit.svg(width, 512, "两个奇异值走到哪里",
      circlePanel(s, width / 2, 122, 112) + curvePanel(s, 0, 266, width, 200));
  }

  function say(s) {
    const [from, to] = [values(s), ends(s)], way = SHORT[s.way];
    const words = from.map((x, i) => `${Kit.num(x, 2)} 到了 <b>${Kit.num(to[i], 3)}</b>`).join("，");
    let why = "还在路上：小的每步约乘第一个系数，大的先忽高忽低";
    if (s.steps === 0) why = "还没有走";
    else if (to.every(close)) why = "椭圆成了圆，两个方向走得一样远";
    else if (s.way === "steep" || s.way === "reversed") why = "第一组系数停不住，在一的上下来回跳";
    else if (Math.min(...to) < 0.5 && s.steps === 10) why = "小的那一个还没有抬上来";
    return `${way}，${s.steps} 步：${words}。${why}。`;
  }

  return {
    after, step,
    name: "muon", title: "奇异值走到一",
    state: { power: [-0.02, -0.7], steps: 10, way: "hybrid" },
    range: { power: [-5, 0] },
    controls: [
      { kind: "choice", name: "way", label: "系数", options: Object.entries(SHORT) },
      { kind: "slider", name: "steps", label: "步数", min: 0, max: 10, step: 1 },
    ],
    play: { label: "走一遍", every: 700, step: (s) => ({ ...s, steps: s.steps === 10 ? 0 : s.steps + 1 }), done: (s) => s.steps === 10 },
    presets: [
      { label: "八加二", state: {} },
      { label: "五步", state: { way: "steep", steps: 5 } },
      { label: "只用第二组", state: { way: "settle", power: [-0.02, -3] } },
      { label: "先停后抬", state: { way: "reversed" } },
    ],
    draw, say,
    goals: [
      { ask: "八加二，不走完十步，能不能让两个奇异值都到一的百分之五以内？拖圆点，换一对试试。",
        reached: (s) => s.way === "hybrid" && s.steps > 0 && s.steps < 10 && ends(s).every(close),
        reply: "能，不过要挑：第一组把谁送到哪里，全看从哪里出发。走完两步第二组，才不用挑。" },
      { ask: "多小的奇异值，八加二走完十步也到不了 0.9？",
        reached: (s) => s.way === "hybrid" && s.steps === 10 && Math.min(...ends(s)) < 0.9,
        reply: "十万分之二以下。第一组八步只能放大约两万倍，再小就来不及。" },
    ],
  };
})();
Kit.add(MuonLab);
