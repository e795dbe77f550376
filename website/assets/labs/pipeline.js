// Timelines of pipeline schedules to walk through: what every rank does at a moment, and whom it waits for when it
// does nothing. Which rank does what after what comes from dsnotes (dsbook/labs/pipeline.py); here the actions are
// placed in time. Tested against dsnotes.training.dualpipe.timeline.
const PipelineLab = (() => {
  // --- the mathematics ---
  // One entry of the data -> for each rank its actions: { parts, step }, a part being { kind, stage, direction, microBatch }.
  function decode(entry) {
    return entry.ranks.map(({ stages, letters, steps }, rank) => {
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
      const numbers = steps.flatMap((count, i) => Array(count).fill(i + 1));
      return letters.match(/[A-Z]?[a-z]/g).map((word, i) => ({ parts: [...word.toLowerCase()].map(part), step: numbers[i] ?? 0 }));
    });
  }

  // How long an action takes. Times: forward, input (gradient), weight (gradient), pair.
  function lasts(parts, t) {
    if (parts.length > 1) return t.pair;
    return { F: t.forward, B: t.input + t.weight, I: t.input, W: t.weight }[parts[0].kind];
  }

  // An action starts when its rank is free and its inputs are there. `awaits`: the action that its last input came from.
  function simulate(entry, times) {
    const ranks = decode(entry), ready = new Map(), events = ranks.map(() => []);
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
          const { parts, step } = actions[done.length], inputs = parts.flatMap(needs);
          if (inputs.some((input) => !ready.has(input))) break;
          const free = done.length ? done[done.length - 1].end : 0;
          let awaits = null, there = 0;
          for (const input of inputs.map((name) => ready.get(name)))
            if (input.event.end > there) { there = input.event.end; awaits = input; }
          const start = Math.max(free, there), event = { parts, step, start, end: start + lasts(parts, times), awaits };
          done.push(event);
          for (const { kind, stage, microBatch } of parts)
            if (kind !== "W") ready.set(key(kind === "F", stage, microBatch), { rank, event });
          moved = true;
        }
      });
    }
    return events;
  }

  // Idle time and most activations kept, for each rank.
  function measure(events) {
    const makespan = Math.max(...events.map((done) => done[done.length - 1].end));
    const idle = events.map((done) => done.reduce((left, { start, end }) => left - (end - start), makespan));
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

  // Table 2 of the V3 report, PP being the number of stages; and whether its conditions hold.
  function formula(name, stages, { forward: f, input: i, weight: w, pair }) {
    if (name === "1F1B") return { bubble: (stages - 1) * (f + i + w), activations: stages, holds: true };
    if (name === "ZB1P") return { bubble: (stages - 1) * (f + i - w), activations: stages, holds: w <= f && w <= i };
    return { bubble: (stages / 2 - 1) * (pair + i - 2 * w), activations: stages + 1,
      holds: f === i && i >= w && pair >= i + w };
  }

  // What a rank does from 0 to the end: its actions (with parts), and between them its idle times.
  function spans(events, rank, end) {
    const list = [];
    let free = 0;
    for (const event of events[rank]) {
      if (event.start > free) list.push({ start: free, end: event.start, before: event, awaits: event.awaits });
      if (event.end > event.start) list.push(event);
      free = event.end;
    }
    if (end > free) list.push({ start: free, end, awaits: null });
    return list;
  }

  // --- the figure ---
  const KINDS = { F: ["前向", "orange"], B: ["完整反向", "blue"], I: ["输入梯度", "sky"], W: ["权重梯度", "green"] };
  const STEPS = ["近头的前向", "两头的前向", "头一批梯度", "成对", "反向与成对", "只剩反向", "补 W，送梯度", "还清 W"];
  const time = (x) => Kit.num(x, 6);

  let known = {}; // runs of late
  function run(s, data, name) {
    const key = [name, s.ranks, s.micro, s.forward, s.input, s.weight, s.pair].join();
    if (known[key]) return known[key];
    const entry = data.find((e) => e.name === name && e.ranks.length === s.ranks && e.microBatches === s.micro);
    const share = s.ranks / entry.stages; // the stages of DualPipeV are half as large
    const times = { forward: s.forward * share, input: s.input * share, weight: s.weight * share, pair: s.pair * share };
    const events = simulate(entry, times), found = measure(events);
    if (Object.keys(known).length > 12) known = {};
    return (known[key] = { name, events, ...found, share, most: Math.max(...found.idle),
      expected: formula(name, entry.stages, times), rows: events.map((_, rank) => spans(events, rank, found.makespan)) });
  }
  const shown = (s, data) => [s.name, s.second].filter((name) => name !== "none").map((name) => run(s, data, name));
  const last = (s, data) => Math.max(...shown(s, data).map(({ makespan }) => makespan));
  const span_at = (one, rank, at) => one.rows[rank].find(({ start, end }) => start <= at && at < end);

  // The row that is looked at, and what stands there at the moment.
  function chosen(s, data) {
    const all = shown(s, data), plot = Math.min(Math.floor(s.row / s.ranks), all.length - 1), rank = s.row % s.ranks;
    return { plot, one: all[plot], rank, span: span_at(all[plot], rank, s.at) };
  }

  // --- words ---
  const whole = ({ parts }) => parts.length > 1 ? `一对（微批次 ${parts[0].microBatch} 的前向与 ${parts[1].microBatch} 的反向）`
    : `微批次 ${parts[0].microBatch} 的${KINDS[parts[0].kind][0]}`;
  function brief(span) {
    if (!span || !(span.parts || span.awaits)) return "已做完";
    return span.parts ? span.parts.map(({ kind, microBatch }) => kind + microBatch).join("&amp;") : `等 rank ${span.awaits.rank}`;
  }

  function reason(one, rank, span) {
    if (!span.awaits) return `自己的都做完了，等 rank ${one.events.findIndex((done) => done[done.length - 1].end === one.makespan)} 收工。`;
    const { rank: other, event } = span.awaits;
    const before = one.events[other].filter(({ start, end }) => end <= event.start && end > start);
    const first = before.filter(({ end }) => end > span.start || end === event.start).slice(-3); // up to its last idle time
    const why = first.length ? `；rank ${other} 先得做完${first.map(whole).join("、")}，${time(event.start)} 才轮到它`
      : event.start > span.start ? `；rank ${other} 自己也在等` : "";
    return `接着该做${whole(span.before)}，可是要等 rank ${other} 做完${whole(event)}${why}。`;
  }

  function say(s, data) {
    const { one, rank, span } = chosen(s, data), { holds, bubble } = one.expected;
    const head = `时刻 ${time(s.at)}，${one.name} 的 rank ${rank} `;
    const off = one.most === bubble ? "" : `空闲最多 ${time(one.most)}，公式却是 ${time(bubble)}：${holds
      ? "它说的是中间的 rank，这时两端等得更久。" : `表 2 没有写的条件（${one.name === "ZB1P" ? "W ≤ F，W ≤ I" : "F = I ≥ W，F&amp;B ≥ B"}）不成立。`}`;
    if (!span) return `${head}已经收工；总时间 ${time(one.makespan)}，空闲占 ${Kit.percent(idle_share(one), 1)}。${off}`;
    if (!span.parts) return `${head}<b>空闲</b>（${time(span.start)} 到 ${time(span.end)}）：${reason(one, rank, span)}${off}`;
    const step = span.step ? `，这是第 ${span.step} 步：${STEPS[span.step - 1]}` : "";
    return `${head}在做${whole(span)}（${time(span.start)} 到 ${time(span.end)}）${step}。${off}`;
  }
  const idle_share = (one) => one.idle.reduce((a, b) => a + b) / (one.makespan * one.idle.length);

  // --- the drawing ---
  const HEAD = 28, FOOT = 26;
  function layout(s, data, width) {
    const all = shown(s, data), narrow = width < 500, row = s.ranks <= 4 ? 34 : s.ranks <= 8 ? 28 : 18;
    const left = 34, right = width - (narrow ? 80 : 104), tall = s.ranks * row;
    const tops = all.map((_, i) => HEAD + i * (tall + HEAD + FOOT));
    return { all, narrow, row, left, right, tall, tops, axis: tops[tops.length - 1] + tall + 6,
      x: Kit.scale([0, last(s, data)], [left, right]), columns: [width - (narrow ? 44 : 58), width - 3] };
  }

  const box = (x, y, w, h) => `M${x.toFixed(1)} ${y.toFixed(1)}h${w.toFixed(1)}v${h.toFixed(1)}h${(-w).toFixed(1)}z`;
  const LOOK = { rest: "f-soft faint s-none", F: "f-orange", B: "f-blue", I: "f-sky", W: "f-green", stripes: "thin on-line", strip: "f-ink s-none" };

  // The boxes of one schedule: one path for each colour, and the numbers in them.
  // Classes of labs.css: step-1 step-2 step-3 step-4 step-5 step-6 step-7 step-8.
  function boxes(one, by_step, { x, row, right }, top) {
    const key = [by_step, x(0), x(1), row, top].join(); // drawn once while only the moment moves
    if (one.drawn?.key === key) return one.drawn.body;
    const paths = {}, high = row - 4;
    let numbers = "";
    const add = (kind, d) => { paths[kind] = (paths[kind] ?? "") + d; };
    const number = (from, to, middle, words, dark) => {
      if (to - from >= 7 * words.length + 2) numbers += Kit.text((from + to) / 2, middle + 0.5, words, { class: dark ? "small on-dark" : "small on" });
    };
    one.events.forEach((done, rank) => {
      const upper = top + rank * row + 2, runs = {};
      add("rest", box(x(0), upper, right - x(0), high));
      for (const { parts, step, start, end } of done) {
        const from = x(start), to = x(end), part_high = high / parts.length;
        if (end === start) continue;
        if (by_step) {
          add(`step-${step}`, box(from, upper, to - from, high));
          runs[step] = [runs[step]?.[0] ?? from, to];
        } else parts.forEach(({ kind, direction, microBatch }, k) => {
          const y = upper + k * part_high;
          add(kind, box(from, y, to - from, part_high));
          if (kind === "I") // stripes tell it from a forward where colours turn to grey
            for (let p = from + 1; p + 5 <= to; p += 5) add("stripes", `M${p.toFixed(1)} ${y + part_high - 1}l4 ${(2 - part_high).toFixed(1)}`);
          if (direction) add("strip", box(from, y + part_high - 2, to - from, 2));
          if (part_high >= 12 && row > 20) number(from, to, y + part_high / 2 - (direction ? 1 : 0), String(microBatch), kind === "B");
        });
      }
      for (const [step, [from, to]] of Object.entries(runs)) number(from, to, upper + high / 2, step);
    });
    const body = ["rest", "F", "B", "I", "W", "stripes", "strip", ...STEPS.map((_, k) => `step-${k + 1}`)].filter((kind) => paths[kind])
      .map((kind) => Kit.path({ d: paths[kind], class: LOOK[kind] ?? kind })).join("") + numbers;
    one.drawn = { key, body };
    return body;
  }

  // Places words, each with a swatch before it, in lines.
  function legend(items, width, y) {
    let x = 2, body = "";
    for (const [look, words] of items) {
      const long = [...words].reduce((sum, c) => sum + (c > "\u2e80" ? 12.2 : 7), 20);
      if (x > 2 && x + long > width) { x = 2; y += 20; }
      body += Kit.rect({ x, y: y - 6, width: 14, height: 12, class: look }) + Kit.text(x + 18, y, words, { anchor: "start", class: "small" });
      if (look === LOOK.I) body += Kit.path({ d: `M${x + 1} ${y + 5}l4 -10m1 10l4 -10m1 10l2.5 -6`, class: LOOK.stripes });
      x += long + 12;
    }
    return { body, y };
  }

  function draw(s, data, width) {
    const place = layout(s, data, width), { all, narrow, row, left, right, tall, tops, axis, x, columns } = place;
    const { plot, one: now, rank, span } = chosen(s, data), by_step = (one) => s.colour === "step" && one.name.startsWith("DualPipe");
    const small = (at, y, words, anchor = "end") => Kit.text(at, y, words, { anchor, class: "small muted" });
    let body = "";
    all.forEach((one, i) => {
      const head = tops[i] - 12, under = tops[i] + tall + (i === all.length - 1 ? 23 : 11);
      body += boxes(one, by_step(one), { ...place, right: x(one.makespan) }, tops[i]);
      body += Kit.text(left, head, `<tspan class="strong">${one.name}</tspan>　总时间 ${time(one.makespan)}${narrow ? "" : `，空闲占 ${Kit.percent(idle_share(one), 1)}`}`, { anchor: "start" })
        + small(left - 8, head, "rank") + small(columns[0], head, "空闲") + small(columns[1], head, "激活值")
        + small(left - 8, under, "公式") + small(columns[1], under, time(one.expected.activations * one.share))
        + Kit.text(columns[0], under, time(one.expected.bubble), { anchor: "end", class: one.most === one.expected.bubble ? "small muted" : "t-red strong" });
      one.idle.forEach((idle, r) => {
        const y = tops[i] + (r + 0.5) * row, bold = plot === i && r === rank ? "strong" : "";
        body += Kit.text(left - 8, y, String(r), { anchor: "end", class: bold }) + Kit.text(columns[0], y, time(idle), { anchor: "end", class: bold })
          + Kit.text(columns[1], y, time(one.peak[r] * one.share), { anchor: "end", class: "muted" });
      });
    });

    // the moment: what the ranks of this schedule do, and whom the chosen one waits for
    const frame = (r, { start, end }, look) => Kit.rect({ x: x(start), y: tops[plot] + r * row + 2, width: x(end) - x(start), height: row - 4,
      class: `f-none ${look}` });
    now.rows.forEach((_, r) => {
      const found = r === rank ? null : span_at(now, r, s.at);
      if (found?.parts) body += frame(r, found, "outline");
    });
    if (span?.parts) body += frame(rank, span, "outline thick");
    else if (span) {
      body += frame(rank, span, "outline thick dash s-red");
      if (span.awaits) {
        const { rank: other, event } = span.awaits, middle = (r) => tops[plot] + (r + 0.5) * row;
        body += frame(other, event, "outline thick") + Kit.circle({ cx: x(span.end), cy: middle(other), r: 3.5, class: "f-red" })
          + Kit.arrow({ x1: x(span.end), y1: middle(other), x2: x(span.end), y2: middle(rank), head: 9, class: "thick s-red" });
      }
    }
    const end = last(s, data), every = [1, 2, 5, 10, 20, 50, 100].find((step) => end / step <= (right - left) / 34) ?? 200;
    body += Kit.line({ x1: left, y1: axis, x2: right, y2: axis, class: "thin" });
    for (let t = 0; t <= end; t += every) body += small(x(t), axis + 17, String(t), "middle");
    const cells = now.rows.map((_, r) => brief(span_at(now, r, s.at))), wide = Math.max(1, Math.floor(width / 148)), many = s.ranks > 8 ? 0 : s.ranks;
    body += Kit.handle({ name: "at", label: "时刻", x: x(s.at), y: axis, value: s.at, min: 0, max: end, step: 0.25, axis: "x", from: left, to: right,
      show: (at) => `${time(at)}，rank ${rank} ${cells[rank].replace("&amp;", "&")}`,
      body: Kit.path({ d: tops.map((top) => `M${x(s.at).toFixed(1)} ${top - 2}v${tall + 6}`).join(""), class: "s-ink now" }) + Kit.circle({ cx: x(s.at), cy: axis, r: 7, class: "knob" }) });
    let y = axis + 46;
    for (let r = 0; r < many; r++)
      body += Kit.text(2 + (r % wide) * (width / wide), y + Math.floor(r / wide) * 20, `<tspan class="muted">rank ${r}</tspan>　${cells[r]}`,
        { anchor: "start", class: r === rank ? "strong" : "" });
    y += Math.ceil(many / wide) * 20 + 6;
    const kinds = new Set(all.filter((one) => !by_step(one)).flatMap(({ events }) => events.flat().flatMap(({ parts }) => parts)).flatMap(
      ({ kind, direction }) => (direction ? [kind, "strip"] : [kind])));
    const key = legend([...Object.entries(KINDS).filter(([kind]) => kinds.has(kind)).map(([kind, [words]]) => [LOOK[kind], `${kind} ${words}`]),
      ...(kinds.has("strip") ? [["f-ink", "底边的条：另一个方向"]] : []),
      ...(all.some(by_step) ? STEPS.map((words, k) => [`step-${k + 1}`, `${k + 1} ${words}`]) : [])], width, y);
    return Kit.svg(width, key.y + 12, `${all.map(({ name }) => name).join("与 ")} 的时间轴，${s.ranks} 个 rank，${s.micro} 个微批次`, body + key.body);
  }

  // --- from the reader ---
  function walk(s, key, data) {
    const { one, rank } = chosen(s, data), list = one.rows[rank], rows = shown(s, data).length * s.ranks;
    if (key === "ArrowUp" || key === "ArrowDown") return { ...s, row: Math.max(0, Math.min(rows - 1, s.row + (key === "ArrowUp" ? -1 : 1))) };
    if (key === "ArrowRight") return { ...s, at: list.find(({ start }) => start > s.at)?.start ?? last(s, data) };
    if (key === "ArrowLeft") return { ...s, at: [...list].reverse().find(({ start }) => start < s.at)?.start ?? 0 };
    return null;
  }
  function point(s, px, py, data, width) {
    const { row, left, right, tall, tops } = layout(s, data, width), plot = tops.findIndex((top) => top <= py && py < top + tall);
    if (plot < 0 || px < left || px > right) return null;
    const at = Kit.scale([left, right], [0, last(s, data)])(px);
    return { ...s, row: plot * s.ranks + Math.floor((py - tops[plot]) / row), at: Math.floor(4 * at) / 4 };
  }
  function tidy(next, data, before) {
    const s = { ...next };
    const nearest = (values, value) => values.reduce((best, v) => (Math.abs(v - value) < Math.abs(best - value) ? v : best));
    s.ranks = nearest([...new Set(data.map((e) => e.ranks.length))], s.ranks);
    if (!sizes(s, data).includes(s.micro)) // as many for each rank as before
      s.micro = nearest(sizes(s, data), before ? (before.micro / before.ranks) * s.ranks : s.micro);
    if (s.second === s.name) s.second = before && before.name !== s.name ? before.name : "none";
    s.row = Math.round(Math.min(s.row, shown(s, data).length * s.ranks - 1));
    s.at = Math.min(s.at, last(s, data));
    return s;
  }
  const sizes = (s, data) => [...new Set(data.filter((e) => e.ranks.length === s.ranks).map((e) => e.microBatches))];

  const NAMES = ["1F1B", "ZB1P", "DualPipe", "DualPipeV"].map((name) => [name, name]);
  const slider = (name, label, min, max) => ({ kind: "slider", name, label, min, max, step: 0.25, show: time });
  const FIGURE_5 = { ranks: 8, micro: 20, second: "none" };
  return {
    decode, simulate, measure, formula, spans, run, layout,
    name: "pipeline", title: "流水线的时间轴",
    state: { name: "DualPipe", second: "1F1B", ranks: 4, micro: 8, forward: 1, input: 1, weight: 1, pair: 3, colour: "kind", at: 21, row: 1 },
    range: { ranks: [2, 16], micro: [4, 64], at: [0, 1e4], row: [0, 31] },
    controls: [
      { kind: "select", name: "name", label: "上面", options: NAMES },
      { kind: "select", name: "second", label: "下面", options: (s) => [["none", "不画"], ...NAMES.filter(([name]) => name !== s.name)] },
      { kind: "select", name: "ranks", label: "rank 数", options: (s, data) => [...new Set(data.map((e) => e.ranks.length))].map((n) => [n, n]) },
      { kind: "select", name: "micro", label: "微批次数", options: (s, data) => sizes(s, data).map((n) => [n, n]) },
      { kind: "choice", name: "colour", label: "颜色", options: [["kind", "做什么"], ["step", "第几步"]] },
      slider("forward", "F（前向）", 0.5, 3), slider("input", "I（输入梯度）", 0.5, 3), slider("weight", "W（权重梯度）", 0, 3),
      slider("pair", "F&B（重叠的一对）", 0.5, 7),
    ],
    play: { label: "播放", every: 120, done: (s, data) => s.at >= last(s, data), again: (s) => ({ ...s, at: 0 }),
      step: (s, data) => ({ ...s, at: Math.min(last(s, data), s.at + Math.max(0.25, Math.round(last(s, data) / 15) / 4)) }) },
    presets: [
      { label: "比 1F1B", state: {} },
      { label: "比 ZB1P", state: { second: "ZB1P", row: 4, at: 5 } },
      { label: "比 DualPipeV", state: { second: "DualPipeV", row: 4, at: 10.5 } },
      { label: "论文图 5", state: { ...FIGURE_5, row: 3, at: 30 } },
      { label: "八个步骤", state: { ...FIGURE_5, colour: "step", row: 2, at: 10 } },
      { label: "反向时的等待", state: { second: "none", ranks: 6, micro: 12, forward: 2, input: 2, pair: 5, row: 2, at: 52 } },
    ],
    tidy, draw, say, walk, point,
    goals: [
      { ask: "DualPipe 的微批次数加倍，空闲变不变？先猜。", reached: (s) => s.name === "DualPipe" && s.micro >= 4 * s.ranks,
        reply: "不变。空闲只在开头、反向时与结尾，多出来的微批次都在中间成对，只是空闲占的比例小了。" },
      { ask: "在论文图 5 里只动 F&B，让两端空闲得比中间少。",
        reached: (s, data) => s.name === "DualPipe" && s.ranks >= 6 && run(s, data, s.name).idle[0] < run(s, data, s.name).most,
        reply: "F&amp;B 比 F + B 短，每一对就省一点；两端的对少，省得少，手上的活便比中间多，空闲反而少。" },
      { ask: "与 ZB1P 上下放着，只动一种时间，让 DualPipe 收工更晚。",
        reached: (s, data) => [s.name, s.second].sort().join() === "DualPipe,ZB1P" && run(s, data, "DualPipe").makespan > run(s, data, "ZB1P").makespan,
        reply: "计算与通信抢资源时，一对可能比先后做还慢，成对就成了负担；DualPipe 的好处全靠 F&amp;B 短。" },
    ],
  };
})();
Kit.add(PipelineLab);
