// A timeline of a pipeline schedule to play with. The schedules themselves come with the page, made
// by dsnotes (dsbook/pipelinelab.py); here they are placed in time and drawn. The upper half needs
// no browser, so that tests compare it with dsnotes.training.dualpipe.timeline.

// One entry of the page's data -> for each rank its actions; an action is a list of parts.
function decode(entry) {
  return entry.ranks.map(({ stages, letters }, rank) => {
    const next = {}, owed = []; // the micro-batch that comes next; weights that were put off
    const part = (letter) => {
      if (letter === "w") return { ...owed.shift(), kind: "W" };
      const [stage, first] = stages["ace".includes(letter) ? 0 : 1];
      const kind = { a: "F", b: "F", c: "B", d: "B", e: "I", f: "I" }[letter];
      const line = (kind === "F") + " " + stage;
      next[line] ??= first;
      const found = { kind, stage, direction: Number(stage !== rank), microBatch: next[line]++ };
      if (kind === "I") owed.push(found);
      return found;
    };
    return letters.match(/[A-Z]?[a-z]/g).map((word) => [...word.toLowerCase()].map(part));
  });
}

// How long an action takes. Times: forward, backward (in full), weight, pair.
function lasts(parts, times) {
  if (parts.length > 1) return times.pair;
  return {
    F: times.forward,
    B: times.backward,
    I: times.backward - times.weight,
    W: times.weight,
  }[parts[0].kind];
}

// An action starts when its rank is free and its inputs are there.
function simulate(entry, times) {
  const ranks = decode(entry);
  const ready = new Map(); // result -> time
  const events = ranks.map(() => []);
  const key = (forward, stage, microBatch) => `${forward} ${stage} ${microBatch}`;
  const needs = ({ kind, stage, microBatch }) => {
    if (kind === "F") return stage ? [key(true, stage - 1, microBatch)] : [];
    if (kind === "W") return [key(false, stage, microBatch)];
    const own = [key(true, stage, microBatch)];
    return stage + 1 < entry.stages ? [...own, key(false, stage + 1, microBatch)] : own;
  };
  for (let moved = true; moved; ) {
    moved = false;
    ranks.forEach((actions, rank) => {
      const done = events[rank];
      while (done.length < actions.length) {
        const parts = actions[done.length];
        const inputs = parts.flatMap(needs);
        if (inputs.some((input) => !ready.has(input))) break;
        const free = done.length ? done[done.length - 1].end : 0;
        const start = Math.max(free, ...inputs.map((input) => ready.get(input)));
        const end = start + lasts(parts, times);
        done.push({ parts, start, end });
        for (const { kind, stage, microBatch } of parts)
          if (kind !== "W") ready.set(key(kind === "F", stage, microBatch), end);
        moved = true;
      }
    });
  }
  return events;
}

// Idle time and most activations kept, for each rank.
function measure(events) {
  const makespan = Math.max(...events.map((done) => done[done.length - 1].end));
  const idle = events.map((done) =>
    done.reduce((left, { start, end }) => left - (end - start), makespan));
  const peak = events.map((done) => {
    let live = 0, most = 0;
    for (const { parts } of done) {
      live += parts.filter(({ kind }) => kind === "F").length;
      most = Math.max(most, live);
      live -= parts.filter(({ kind }) => kind === "B" || kind === "W").length;
    }
    return most;
  });
  return { makespan, idle, peak };
}

// Table 2 of the V3 report, PP being the number of stages.
function formula(name, stages, { forward, backward, weight, pair }) {
  if (name === "1F1B") return { bubble: (stages - 1) * (forward + backward), activations: stages };
  if (name === "ZB1P")
    return { bubble: (stages - 1) * (forward + backward - 2 * weight), activations: stages };
  return { bubble: (stages / 2 - 1) * (pair + backward - 3 * weight), activations: stages + 1 };
}

// --- the page ---

const NAMES = { F: "前向", B: "完整反向", I: "输入梯度的反向", W: "权重梯度的反向" };
const SLIDERS = [
  ["forward", "F（前向）", 0.5, 3, 1],
  ["backward", "B（完整反向）", 0.5, 4, 2],
  ["weight", "W（其中的权重梯度）", 0, 4, 1],
  ["pair", "F&B（重叠的一对）", 0.5, 7, 3],
];
const LEFT = 26, TOP = 16, AXIS = 30; // of the drawing, in pixels
const round = (x) => String(Math.round(x * 100) / 100).replace("-", "−");
const svgNode = (tag, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

function set_up(lab, number) {
  const entries = JSON.parse(lab.querySelector("script").textContent);
  const id = (name) => `pipeline-${number}-${name}`;
  const field = (name, label, control) =>
    `<label for="${id(name)}"><span>${label}</span>${control}</label>`;
  const slider = ([name, label, min, max, value]) => field(name, label.replace("&", "&amp;"),
    `<input type="range" id="${id(name)}" min="${min}" max="${max}" step="0.25" value="${value}">` +
    `<output for="${id(name)}"></output>`);
  const panel = document.createElement("div");
  panel.className = "pipeline-panel";
  panel.innerHTML = `
    <form aria-label="调度、规模与时间">
      <div>
        ${field("name", "调度", `<select id="${id("name")}"></select>`)}
        ${field("ranks", "rank 数", `<select id="${id("ranks")}"></select>`)}
        ${field("micro", "微批次数", `<select id="${id("micro")}"></select>`)}
      </div>
      <div>${SLIDERS.map(slider).join("")}</div>
      <button type="reset">恢复</button>
    </form>
    <p class="pipeline-result" role="status"></p>
    <div class="pipeline-plot" tabindex="0" role="group"
      aria-label="时间轴，按方向键逐个查看动作"></div>
    <ul class="pipeline-legend" aria-label="图例"></ul>
    <p class="pipeline-action" aria-live="polite"></p>
    <details><summary>各 rank 的数</summary>
      <div class="pipeline-table" tabindex="0" role="group" aria-label="各 rank 的数"></div></details>`;
  const figure = lab.querySelector("figure");
  figure.insertBefore(panel, figure.querySelector("figcaption"));
  lab.classList.add("live");

  const at = (name) => panel.querySelector(`#${id(name)}`);
  const plot = panel.querySelector(".pipeline-plot");
  let events = [], chosen = null;

  const fill = (select, values, preferred) => {
    const wanted = values.map(String).includes(select.value) ? select.value : String(preferred);
    select.replaceChildren(...values.map((value) => new Option(value, value)));
    select.value = values.map(String).includes(wanted) ? wanted : String(values[0]);
  };
  const values = (key, test = () => true) => [...new Set(entries.filter(test).map(key))];
  const fillMicroBatches = () => fill(at("micro"), values(
    (e) => e.microBatches, (e) => e.ranks.length === Number(at("ranks").value)), 20);
  const start = () => {
    fill(at("name"), values((e) => e.name), "DualPipe");
    fill(at("ranks"), values((e) => e.ranks.length), 8);
    at("name").value = "DualPipe";
    at("ranks").value = "8";
    fillMicroBatches();
    at("micro").value = "20";
  };

  function update() {
    at("weight").max = at("backward").value; // the weights are a part of the whole
    const times = Object.fromEntries(SLIDERS.map(([name]) => [name, Number(at(name).value)]));
    for (const [name] of SLIDERS) at(name).nextElementSibling.value = round(times[name]);
    const entry = entries.find((e) => e.name === at("name").value
      && e.ranks.length === Number(at("ranks").value)
      && e.microBatches === Number(at("micro").value));
    events = simulate(entry, times);
    chosen = null;
    const { makespan, idle, peak } = measure(events);
    const expected = formula(entry.name, entry.stages, times);
    const most = Math.max(...idle), off = most - expected.bubble;
    const share = (100 * idle.reduce((a, b) => a + b)) / (makespan * idle.length);
    panel.querySelector(".pipeline-result").innerHTML =
      `PP = ${entry.stages}，总时间 ${round(makespan)}。空等最多 <strong>${round(most)}</strong>，` +
      `公式 <strong>${round(expected.bubble)}</strong>` +
      `${Math.abs(off) < 1e-9 ? "，相等" : `，仿真${off > 0 ? "多" : "少"} ${round(Math.abs(off))}`}；` +
      `气泡占 ${share.toFixed(1)}%。激活值至多 ${Math.max(...peak)} 份，公式 ${expected.activations}。`;
    panel.querySelector(".pipeline-table").innerHTML =
      "<table><thead><tr><th scope='col'>rank</th><th scope='col'>级</th><th scope='col'>空等</th>" +
      "<th scope='col'>激活值至多</th></tr></thead><tbody>" + entry.ranks.map(({ stages }, rank) =>
        `<tr><th scope="row">${rank}</th><td>${stages.map(([s]) => s).join("、")}</td>` +
        `<td>${round(idle[rank])}</td><td>${peak[rank]}</td></tr>`).join("") + "</tbody></table>";
    draw(entry, makespan);
    describe();
  }

  function draw(entry, makespan) {
    const row = entry.ranks.length > 8 ? 18 : 26;
    const width = Math.max(plot.clientWidth - 2, 620);
    const height = TOP + row * entry.ranks.length + AXIS;
    const scale = (width - LEFT - 8) / makespan;
    const svg = svgNode("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `${entry.name} 的时间轴，${entry.ranks.length} 个 rank，总时间 ${round(makespan)}` });
    svg.append(stripes(id("stripes")), label(0, TOP / 2, "rank", "start"));
    events.forEach((done, rank) => {
      svg.append(label(LEFT - 8, TOP + (rank + 0.5) * row, rank, "end"));
      done.forEach(({ parts, start, end }, index) => {
        const group = svgNode("g", { "data-at": `${rank} ${index}` });
        const high = (row - 3) / parts.length;
        parts.forEach((part, i) => box(group, part, {
          x: LEFT + start * scale, y: TOP + rank * row + i * high,
          width: (end - start) * scale, height: high }));
        svg.append(group);
      });
    });
    const bottom = TOP + row * entry.ranks.length;
    svg.append(svgNode("path", { class: "axis", d: `M${LEFT} ${bottom}H${LEFT + makespan * scale}` }));
    const step = [1, 2, 5, 10, 20, 50, 100].find((s) => makespan / s <= 12) ?? 200;
    for (let t = 0; t <= makespan; t += step)
      svg.append(label(LEFT + t * scale, bottom + 10, t, "middle"));
    svg.append(label(LEFT + (makespan * scale) / 2, bottom + 23, "时间", "middle"));
    plot.replaceChildren(svg);
    const present = new Set(events.flat().flatMap(({ parts }) => parts.map(({ kind }) => kind)));
    const returns = events.flat().some(({ parts }) => parts.some(({ direction }) => direction));
    panel.querySelector(".pipeline-legend").innerHTML =
      Object.keys(NAMES).filter((kind) => present.has(kind))
        .map((kind) => `<li><span class="swatch ${kind}"></span>${NAMES[kind]}</li>`).join("") +
      (returns ? '<li><span class="swatch back"></span>底边的条：返回方向</li>' : "");
  }

  function box(group, part, place) {
    group.append(svgNode("rect", { ...place, class: `box ${part.kind}` }));
    if (part.kind === "I") // stripes tell it from a forward where colours turn to grey
      group.append(svgNode("rect", { ...place, fill: `url(#${id("stripes")})` }));
    const strip = Math.min(3, 0.2 * place.height);
    if (part.direction)
      group.append(svgNode("rect", { ...place, class: "strip",
        y: place.y + place.height - strip, height: strip }));
    if (place.width >= 4.6 * String(part.microBatch).length)
      group.append(label(place.x + place.width / 2, place.y + (place.height - strip) / 2 + 0.5,
        part.microBatch, "middle", `on ${part.kind}`));
  }

  function label(x, y, text, anchor, kind = "") {
    const node = svgNode("text", { x, y, class: kind, "text-anchor": anchor,
      "dominant-baseline": "central" });
    node.textContent = text;
    return node;
  }

  function stripes(name) {
    const defs = svgNode("defs", {});
    const pattern = svgNode("pattern", { id: name, width: 5, height: 5,
      patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    pattern.append(svgNode("path", { d: "M0 0V5", stroke: "#000", "stroke-width": 1.2,
      "stroke-opacity": 0.3 }));
    defs.append(pattern);
    return defs;
  }

  // What the pointer is on, or what the arrow keys have come to.
  function describe() {
    plot.querySelector(".chosen")?.classList.remove("chosen");
    const line = panel.querySelector(".pipeline-action");
    if (!chosen) {
      line.textContent = "指向一个动作，或把焦点放在图上按方向键，这里写出它是什么。";
      return;
    }
    const [rank, index] = chosen;
    const { parts, start, end } = events[rank][index];
    line.textContent = `rank ${rank}，时刻 ${round(start)} 到 ${round(end)}：` + parts.map((part) =>
      `${NAMES[part.kind]}，第 ${part.stage} 级，微批次 ${part.microBatch}`).join("；同时 ");
    plot.querySelector(`[data-at="${rank} ${index}"]`).classList.add("chosen");
  }

  function walk(key) {
    if (!chosen) return [0, 0];
    const [rank, index] = chosen, here = events[rank][index];
    const last = events[rank].length - 1;
    if (key === "ArrowLeft") return [rank, Math.max(0, index - 1)];
    if (key === "ArrowRight") return [rank, Math.min(last, index + 1)];
    if (key === "Home") return [rank, 0];
    if (key === "End") return [rank, last];
    const to = rank + (key === "ArrowUp" ? -1 : 1);
    if (to < 0 || to >= events.length) return chosen;
    const found = events[to].findIndex(({ end }) => end > here.start);
    return [to, found < 0 ? events[to].length - 1 : found];
  }

  plot.addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return;
    event.preventDefault();
    chosen = walk(event.key);
    describe();
    const { x, width } = plot.querySelector(".chosen").getBBox();
    if (x < plot.scrollLeft || x + width > plot.scrollLeft + plot.clientWidth)
      plot.scrollLeft = x - plot.clientWidth / 2;
  });
  plot.addEventListener("pointerover", (event) => {
    const group = event.target.closest("[data-at]");
    if (!group) return;
    chosen = group.dataset.at.split(" ").map(Number);
    describe();
  });
  const form = panel.querySelector("form");
  form.addEventListener("input", (event) => {
    if (event.target === at("ranks")) fillMicroBatches();
    update();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    // first, or a value above it would be cut down to the bound that the backward has set
    at("weight").max = SLIDERS.find(([name]) => name === "weight")[3];
    setTimeout(() => { start(); update(); });
  });
  start();
  update();
  let drawnFor = plot.clientWidth;
  new ResizeObserver(() => {
    if (plot.clientWidth === drawnFor) return;
    drawnFor = plot.clientWidth;
    update();
  }).observe(plot);
}

if (typeof document !== "undefined") document.querySelectorAll(".pipeline-lab").forEach(set_up);
