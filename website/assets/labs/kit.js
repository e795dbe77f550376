// What the interactive figures share: numbers as text, drawing as text, a state that goes into the address, controls,
// handles that mouse, finger and keys move. A figure is a plain object (see CONTRIBUTING.md); its
// mathematics and its drawing need no browser, so that tests compare the one with dsnotes and Sphinx makes a still
// of the other.
const Kit = (() => {
  // --- numbers as text ---
  const minus = (text) => text.replace(/^-/, "−");
  const raised = (n) => String(n).replace(/./g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]));

  // So many significant digits; very large and very small ones as 1.2×10⁻⁷.
  function num(x, digits = 3) {
    if (x === 0) return "0";
    if (!Number.isFinite(x)) return Number.isNaN(x) ? "NaN" : x > 0 ? "∞" : "−∞";
    const [mantissa, exponent] = x.toExponential(digits - 1).split("e");
    if (exponent < -4 || exponent > 5)
      return `${minus(String(Number(mantissa)))}×10${raised(Number(exponent))}`;
    return minus(String(Number(x.toPrecision(digits))));
  }
  const fix = (x, decimals) => {
    const text = x.toFixed(decimals);
    return minus(Number(text) === 0 ? text.replace("-", "") : text); // no −0.00
  };
  const int = (x) => minus(String(Math.round(x)).replace(/\B(?=(\d{3})+$)/g, ","));
  const percent = (x, decimals = 0) => `${fix(100 * x, decimals)}%`;
  function bytes(x) {
    const power = Math.max(0, Math.min(4, Math.floor(Math.log2(Math.max(x, 1)) / 10)));
    return `${num(x / 1024 ** power)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
  }
  const escape = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

  // Uniform numbers in [0, 1), the same in every browser (mulberry32).
  function random(seed) {
    let a = seed | 0;
    return () => {
      a = (a + 0x6d2b79f5) | 0;
      let t = Math.imul(a ^ (a >>> 15), 1 | a);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  // --- drawing as text ---
  // Classes of labs.css, named here so that the style sheet keeps them: f-blue f-orange f-green f-red f-purple f-sky f-grey
  // f-none f-ink f-soft f-ground; s-blue s-orange s-green s-red s-purple s-sky s-grey s-none s-ink s-soft; t-blue t-orange
  // t-green t-red t-purple t-sky t-grey; thick thin dash faint outline; text: small big bold mono muted halo on
  // on-dark; tspan: plain.
  let live = false; // a still has no handles
  const attributes = (all) => Object.entries(all)
    .filter(([, value]) => value !== undefined && value !== null && value !== false)
    .map(([name, value]) => ` ${name}="${typeof value === "number" ? +value.toFixed(2) : escape(value)}"`)
    .join("");
  const tag = (name) => (all, inner = "") => `<${name}${attributes(all)}>${inner}</${name}>`;
  const rect = tag("rect"), line = tag("line"), circle = tag("circle"), path = tag("path"), group = tag("g");
  const text = (x, y, words, { anchor = "middle", ...rest } = {}) =>
    tag("text")({ x, y, "text-anchor": anchor, "dominant-baseline": "central", ...rest }, words);
  const svg = (width, height, label, body) => tag("svg")({ width, height, viewBox: `0 0 ${width} ${height}`,
    role: live ? "group" : "img", "aria-label": label }, body);
  function arrow({ x1, y1, x2, y2, head = 7, ...rest }) {
    const long = Math.hypot(x2 - x1, y2 - y1) || 1, u = (x2 - x1) / long, v = (y2 - y1) / long;
    const size = Math.min(head, long), bx = x2 - u * size, by = y2 - v * size, half = size / 2.2;
    return group({ ...rest }, line({ x1, y1, x2: bx, y2: by }) + path({ class: "head",
      d: `M${[x2, y2, bx - v * half, by + u * half, bx + v * half, by - u * half].map((p) => p.toFixed(1)).join(" ")}Z` }));
  }
  const scale = ([a, b], [p, q]) => (x) => p + ((x - a) / (b - a)) * (q - p);
  const log = ([a, b], [p, q]) => (x) => p + (Math.log(x / a) / Math.log(b / a)) * (q - p);

  // Something to drag. `from` and `to`: the pixels of `min` and `max` on its axis.
  function handle({ name, label, x, y, value, min, max, step, axis = "y", from, to, body, log: inLog, show,
    reach = 15 }) {
    const drawn = body ?? circle({ cx: x, cy: y, r: 7, class: "knob" });
    if (!live) return group({}, drawn);
    return group({ class: "handle", role: "slider", tabindex: 0, "aria-label": label, "aria-valuemin": String(min),
      "aria-valuemax": String(max), "aria-valuenow": String(value), "aria-valuetext": show?.(value) ?? num(value),
      "aria-orientation": axis === "y" ? "vertical" : "horizontal", "data-name": name, "data-step": String(step),
      "data-axis": axis, "data-from": String(from), "data-to": String(to), "data-log": inLog ? "1" : null },
      circle({ cx: x, cy: y, r: reach, class: "reach" }) + drawn);
  }

  // Something to click: sets a field to a value.
  const press = ({ name, value, label, pressed, body }) => live
    ? group({ class: "press", role: "button", tabindex: 0, "aria-label": label, "aria-pressed": String(Boolean(pressed)),
      "data-name": name, "data-value": JSON.stringify(value) }, body)
    : group({}, body);

  // --- the state ---
  const of = (given, state, data) => (typeof given === "function" ? given(state, data) : given);
  const copy = (state) => JSON.parse(JSON.stringify(state));
  const start = (spec) => copy(spec.state);

  // The state with one field, or one place of a list, changed.
  function changed(state, name, value) {
    const [field, index] = name.split(".");
    if (index === undefined) return { ...state, [field]: value };
    return { ...state, [field]: state[field].map((old, i) => (i === Number(index) ? value : old)) };
  }
  const read_field = (state, name) => {
    const [field, index] = name.split(".");
    return index === undefined ? state[field] : state[field][Number(index)];
  };

  function bounds(spec, field, state, data) {
    const control = (spec.controls ?? []).find(({ kind, name }) => kind === "slider" && name === field);
    if (control) return [of(control.min, state, data), of(control.max, state, data)];
    return spec.range?.[field] ?? [-1e9, 1e9];
  }

  const LONGEST = 400; // characters that a reader may type
  const decoded = (words) => { try { return decodeURIComponent(words); } catch { return ""; } };

  // What differs from the state it opens in, as in an address; and back. What does not fit is left out.
  function write(spec, state) {
    return Object.entries(state).filter(([field, value]) => String(value) !== String(spec.state[field]))
      .map((pair) => pair.map((part) => encodeURIComponent(String(part)).replace(/%2C/g, ",")).join("=")).join("&");
  }
  function read(spec, words, data) {
    const state = start(spec);
    for (const pair of words.split("&")) {
      const [field, value = ""] = pair.split("=").map(decoded);
      if (!Object.hasOwn(state, field)) continue;
      const fallback = spec.state[field], [low, high] = bounds(spec, field, state, data);
      const fit = (word) => word.trim() !== "" && Number.isFinite(Number(word))
        ? Math.max(low, Math.min(high, Number(word))) : null;
      if (Array.isArray(fallback)) {
        const list = value === "" ? [] : value.split(",").map(fit);
        if (!list.includes(null) && (spec.free?.includes(field) || list.length === fallback.length)) state[field] = list;
      } else if (typeof fallback === "number") state[field] = fit(value) ?? fallback;
      else if (typeof fallback === "boolean") state[field] = value === "true";
      else {
        const control = (spec.controls ?? []).find(({ name }) => name === field);
        const options = control?.options && of(control.options, state, data).map(([option]) => String(option));
        if (options ? options.includes(value) : control?.kind === "text" && value.length <= LONGEST) state[field] = value;
      }
    }
    return spec.tidy ? spec.tidy(state, data) : state;
  }

  // --- the still, for Sphinx: the state it opens in ---
  const figures = {};
  const still = (name, data, width) => figures[name].draw(start(figures[name]), data, width);

  // --- the page ---
  const make = (name, all = {}, ...inside) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(all))
      if (value !== undefined && value !== null) node.setAttribute(key, value);
    node.append(...inside.filter((part) => part !== null && part !== undefined));
    return node;
  };

  // What a control is called; a label is the author's and may hold <sub>.
  function named(label, name = "span") {
    const node = make(name);
    node.innerHTML = label;
    return node;
  }

  // A control and how it shows the state: { node, show(state) }.
  function control(spec, given, id, data, set) {
    const { kind, name, label } = given;
    const current = () => set.state();
    if (kind === "button") {
      const node = make("button", { type: "button" }, label);
      node.addEventListener("click", () => set(given.act(current(), data)));
      return { node, show() {} };
    }
    if (kind === "toggle") {
      const box = make("input", { type: "checkbox", id, "data-name": name });
      box.addEventListener("change", () => set(changed(current(), name, box.checked)));
      return { node: make("label", { class: "toggle" }, box, named(label)),
        show(state) { box.checked = state[name]; } };
    }
    if (kind === "choice" || kind === "tabs") {
      const node = make("fieldset", { class: kind }, named(label, "legend"));
      for (const [value, words] of of(given.options, spec.state, data)) {
        const radio = make("input", { type: "radio", name: id, value, "data-name": name });
        radio.addEventListener("change", () => set(changed(current(), name,
          typeof spec.state[name] === "number" ? Number(value) : value)));
        node.append(make("label", {}, radio, make("span", {}, words)));
      }
      return { node, show(state) {
        for (const radio of node.querySelectorAll("input")) radio.checked = radio.value === String(state[name]);
      } };
    }
    if (kind === "select") {
      const select = make("select", { id, "data-name": name });
      select.addEventListener("change", () => set(changed(current(), name,
        typeof spec.state[name] === "number" ? Number(select.value) : select.value)));
      let shown = "";
      return { node: make("label", { for: id }, named(label), select), show(state) {
        const options = of(given.options, state, data);
        if (JSON.stringify(options) !== shown)
          select.replaceChildren(...options.map(([value, words]) => new Option(words, value)));
        shown = JSON.stringify(options);
        select.value = String(state[name]);
      } };
    }
    if (kind === "text") {
      const field = given.lines > 1 ? make("textarea", { id, rows: given.lines, maxlength: LONGEST, "data-name": name })
        : make("input", { type: "text", id, maxlength: LONGEST, "data-name": name, autocomplete: "off", spellcheck: "false" });
      field.addEventListener("input", () => set(changed(current(), name, field.value)));
      return { node: make("label", { for: id, class: "wide" }, named(label), field),
        show(state) { if (field.value !== state[name]) field.value = state[name]; } };
    }
    if (kind === "number") { // typed; what is no number changes nothing
      const field = make("input", { type: "text", inputmode: "decimal", size: 10, id, "data-name": name, autocomplete: "off" });
      const typed = () => (field.value.trim() === "" ? NaN : Number(field.value.replace("−", "-")));
      field.addEventListener("input", () => {
        const [low, high] = bounds(spec, name, current(), data);
        if (Number.isFinite(typed())) set(changed(current(), name, Math.max(low, Math.min(high, typed()))));
      });
      field.addEventListener("change", () => { field.value = String(current()[name]); });
      return { node: make("label", { for: id }, named(label), field),
        show(state) { if (typed() !== state[name]) field.value = String(state[name]); } };
    }
    // a slider; in the logarithm its own value runs from 0 to 100
    const input = make("input", { type: "range", id, "data-name": name });
    const output = make("output", { for: id });
    const ends = () => [of(given.min, current(), data), of(given.max, current(), data)];
    input.addEventListener("input", () => {
      const [min, max] = ends();
      const value = given.log ? Number((min * (max / min) ** (input.value / 100)).toPrecision(3)) : Number(input.value);
      set(changed(current(), name, given.whole ? Math.round(value) : value));
    });
    if (given.log && given.whole) input.addEventListener("keydown", (event) => { // moves by one at least
      const way = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key];
      if (!way) return;
      event.preventDefault();
      const [min, max] = ends(), old = current()[name], next = Math.round(old * (max / min) ** (way / 100));
      set(changed(current(), name, Math.max(min, Math.min(max, next === old ? old + way : next))));
      input.dispatchEvent(new Event("change", { bubbles: true }));
    });
    return { node: make("label", { for: id }, named(label), input, output), show(state) {
      const [min, max] = ends(), words = (given.show ?? ((x) => num(x)))(state[name]);
      input.min = given.log ? 0 : min;
      input.max = given.log ? 100 : max;
      input.step = given.log ? 1 : given.step;
      input.value = given.log ? (100 * Math.log(state[name] / min)) / Math.log(max / min) : state[name];
      input.setAttribute("aria-valuetext", words);
      output.value = words;
    } };
  }

  function mount(lab, spec) {
    const data = JSON.parse(lab.querySelector("script")?.textContent ?? "null");
    const id = `lab-${spec.name}`;
    let state = start(spec), timer = null, saving = null, before = null; // before: the state while the mouse only points

    // --- what stands there ---
    const plot = make("div", { class: "lab-plot" });
    const said = make("p", { class: "lab-say", role: "status" });
    const presets = make("div", { class: "lab-presets", role: "group", "aria-label": "例子" });
    const set = (next) => { stop(); update(next); };
    const kept = () => Object.fromEntries((spec.keep ?? []).map((field) => [field, state[field]])); // by examples too
    set.state = () => state;
    const controls = (spec.controls ?? []).map((given, i) => ({ given, ...control(spec, given, `${id}-${i}`, data, set) }));
    for (const { label, state: differs } of spec.presets ?? []) {
      const button = make("button", { type: "button" }, label);
      button.addEventListener("click", () => set({ ...start(spec), ...kept(), ...copy(differs) }));
      presets.append(button);
    }
    const player = spec.play && make("button", { type: "button", class: "play" });
    const play_label = () => { // what a click on it would do
      player.textContent = timer ? spec.play.pause ?? "暂停" : of(spec.play.label, state, data) ?? "播放";
    };
    const again = make("button", { type: "button", class: "quiet" }, "恢复");
    const link = make("button", { type: "button", class: "quiet" }, "复制链接");
    const goals = (spec.goals ?? []).map((goal) => {
      const reply = make("span", { class: "reply", role: "status" });
      return { goal, reply, node: make("li", {}, make("span", {}, goal.ask), " ", reply) };
    });
    const above = controls.filter(({ given }) => given.kind === "tabs").map(({ node }) => node);
    const below = controls.filter(({ given }) => given.kind !== "tabs").map(({ node }) => node);
    const form = make("form", { class: "lab-controls", "aria-label": `${spec.title}：手柄` },
      player ?? null, ...below, make("span", { class: "lab-foot" }, again, link));
    lab.append(make("div", { class: "lab-live", role: "group", "aria-label": spec.title },
      ...above, presets, plot, said, form,
      goals.length ? make("div", { class: "lab-goals" }, make("p", {}, "试一试"), make("ol", {}, ...goals.map(({ node }) => node))) : null));
    lab.classList.add("live");

    // --- from the state to the page ---
    function update(next, pointing = false) {
      if (!pointing) before = null;
      state = spec.tidy ? spec.tidy(next, data, state) : next; // the third: what it was before
      const held = plot.contains(document.activeElement) ? document.activeElement.closest("[data-name]") : null;
      const mark = held && [held.dataset.name, held.dataset.value];
      live = true;
      plot.innerHTML = spec.draw(state, data, Math.round(Math.max(300, Math.min(720, plot.clientWidth || 700))));
      live = false;
      if (mark) [...plot.querySelectorAll("[data-name]")].find((node) => node.dataset.name === mark[0]
        && node.dataset.value === mark[1])?.focus({ preventScroll: true });
      const words = spec.say(state, data);
      if (said.innerHTML !== words) said.innerHTML = words;
      for (const { given, node, show } of controls) {
        node.hidden = given.when ? !given.when(state, data) : false;
        show(state);
      }
      [...presets.children].forEach((button, i) => button.setAttribute("aria-pressed",
        write(spec, state) === write(spec, { ...start(spec), ...kept(), ...spec.presets[i].state })));
      for (const { goal, reply, node } of goals)
        if (!reply.textContent && goal.reached(state, data)) {
          reply.innerHTML = `做到了：${goal.reply}`;
          node.classList.add("reached");
        }
      if (player) play_label();
      lab.labState = state;
    }
    const address = () => {
      const words = write(spec, state);
      return `#${id}${words ? `?${words}` : ""}`;
    };
    function save() { // the address follows, but not at every pixel
      clearTimeout(saving);
      saving = setTimeout(() => history.replaceState(history.state, "", address()), 200);
    }
    function stop() {
      clearInterval(timer);
      timer = null;
      if (player) play_label();
    }

    // --- from the reader to the state ---
    const value_at = (node, pixel) => {
      const { from, to, step, log: inLog } = node.dataset;
      const [min, max] = ["valuemin", "valuemax"].map((end) => Number(node.getAttribute(`aria-${end}`)));
      const share = Math.max(0, Math.min(1, (pixel - from) / (to - from)));
      if (inLog) return Number((min * (max / min) ** share).toPrecision(3));
      return tidied(min + Math.round((share * (max - min)) / step) * step, min, max);
    };
    const tidied = (value, min, max) => Number(Math.max(min, Math.min(max, value)).toFixed(10));
    let drag = null; // { name, offset }: the picture is drawn anew while the finger is on it
    let dragged = false; // the click that ends a drag points at nothing
    const pixel_of = (event, node) => {
      const drawing = plot.querySelector(`[data-name="${node.dataset.name}"]`).ownerSVGElement;
      const box = drawing.getBoundingClientRect();
      return node.dataset.axis === "y" ? ((event.clientY - box.top) * drawing.viewBox.baseVal.height) / box.height
        : ((event.clientX - box.left) * drawing.viewBox.baseVal.width) / box.width;
    };
    plot.addEventListener("pointerdown", (event) => {
      const node = event.target.closest(".handle");
      dragged = Boolean(node);
      if (!node || event.button > 0) return;
      stop();
      node.focus({ preventScroll: true });
      const { from, to, log: inLog } = node.dataset;
      const [min, max] = ["valuemin", "valuemax"].map((end) => Number(node.getAttribute(`aria-${end}`)));
      const now = (inLog ? log : scale)([min, max], [Number(from), Number(to)])(Number(node.getAttribute("aria-valuenow")));
      drag = { name: node.dataset.name, offset: now - pixel_of(event, node) };
      plot.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    plot.addEventListener("touchstart", (event) => { // touch-action is lost where the drawing is drawn anew
      if (event.target.closest(".handle")) event.preventDefault();
    }, { passive: false });
    plot.addEventListener("pointermove", (event) => {
      const node = drag && plot.querySelector(`.handle[data-name="${drag.name}"]`);
      if (!node) return;
      const value = value_at(node, pixel_of(event, node) + drag.offset);
      if (value !== read_field(state, drag.name)) { update(changed(state, drag.name, value)); save(); }
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"])
      plot.addEventListener(name, () => { drag = null; });
    const pressed = (node) => {
      const { name, value } = node.dataset, label = node.getAttribute("aria-label");
      set(changed(state, name, JSON.parse(value)));
      save();
      if (plot.contains(document.activeElement)) return;
      // what was pressed now has another value: it keeps its name, and often its label
      const others = [...plot.querySelectorAll(".press")].filter((other) => other.dataset.name === name);
      (others.find((other) => other.getAttribute("aria-label") === label) ?? others[0])?.focus({ preventScroll: true });
    };
    plot.addEventListener("click", (event) => {
      const node = event.target.closest(".press");
      if (node) pressed(node);
    });
    // A figure may say what a point of its drawing stands for: the mouse shows it, a click or a finger keeps it.
    const at = (event) => {
      const drawing = plot.querySelector("svg"), box = drawing.getBoundingClientRect(), wide = drawing.viewBox.baseVal.width;
      const zoom = wide / box.width;
      return spec.point(before ?? state, (event.clientX - box.left) * zoom, (event.clientY - box.top) * zoom, data, wide);
    };
    const leave = () => { if (before) update(before); };
    if (spec.point) {
      plot.addEventListener("pointermove", (event) => {
        if (drag || timer || event.pointerType !== "mouse") return;
        const found = at(event);
        if (!found) { leave(); return; }
        before ??= state;
        if (write(spec, found) !== write(spec, state)) update(found, true);
      });
      plot.addEventListener("pointerleave", leave);
      plot.addEventListener("click", (event) => {
        const found = dragged || event.target.closest(".handle, .press") ? null : at(event);
        if (found) { set(found); save(); }
      });
    }
    plot.addEventListener("keydown", (event) => {
      const node = event.target.closest(".handle, .press");
      if (!node) return;
      const walked = node.matches(".handle") && spec.walk?.(state, event.key, data); // keys of its own
      if (walked) {
        event.preventDefault();
        set(walked);
        save();
        return;
      }
      if (node.matches(".press")) {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        pressed(node);
        return;
      }
      const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10,
        Home: -Infinity, End: Infinity }[event.key];
      if (steps === undefined) return;
      event.preventDefault();
      stop();
      const [min, max] = ["valuemin", "valuemax"].map((end) => Number(node.getAttribute(`aria-${end}`)));
      const old = read_field(state, node.dataset.name);
      const far = old * (max / min) ** (steps / 50) - old, least = Math.sign(steps) * node.dataset.step; // NaN without a step
      const value = node.dataset.log && Number.isFinite(steps)
        ? Number(Math.max(min, Math.min(max, old + (Math.abs(far) < Math.abs(least) ? least : far))).toPrecision(3))
        : tidied(Number.isFinite(steps) ? old + steps * node.dataset.step : steps > 0 ? max : min, min, max);
      update(changed(state, node.dataset.name, value));
      save();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const kind of ["input", "change"]) lab.addEventListener(kind, save);
    lab.addEventListener("click", (event) => { if (event.target.closest("button")) save(); });
    again.addEventListener("click", () => {
      set(start(spec));
      for (const { reply, node } of goals) { reply.textContent = ""; node.classList.remove("reached"); }
    });
    link.addEventListener("click", async () => {
      history.replaceState(history.state, "", address());
      const copied = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
      link.textContent = copied ? "已复制" : "链接在地址栏";
      setTimeout(() => { link.textContent = "复制链接"; }, 2000);
    });
    player?.addEventListener("click", () => {
      if (timer) { stop(); return; }
      plot.scrollIntoView({ block: "nearest" }); // on a phone it may be far above the button
      if (spec.play.done?.(state, data)) update(spec.play.again ? spec.play.again(state, data) : start(spec));
      timer = setInterval(() => {
        update(spec.play.step(state, data));
        if (spec.play.done?.(state, data)) { stop(); save(); }
      }, spec.play.every);
      play_label();
    });

    // --- the address, the width ---
    function come() {
      const [name, words = ""] = location.hash.split("?");
      if (name !== `#${id}`) return;
      update(read(spec, words, data));
      lab.closest("figure").scrollIntoView();
    }
    addEventListener("hashchange", come);
    update(state);
    come();
    let drawn = plot.clientWidth;
    new ResizeObserver(() => {
      if (plot.clientWidth === drawn) return;
      drawn = plot.clientWidth;
      update(state);
    }).observe(plot);
  }

  function add(spec) {
    figures[spec.name] = spec;
    if (typeof document === "undefined") return;
    for (const lab of document.querySelectorAll(`.lab[data-lab="${spec.name}"]`)) mount(lab, spec);
  }

  return { num, fix, int, percent, bytes, escape, random, rect, line, circle, path, group, text, svg, arrow, scale, log,
    handle, press, changed, read, write, start, still, figures, add };
})();
