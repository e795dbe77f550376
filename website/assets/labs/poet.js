// A small DeepSeek writes regulated verse in the page: asks for its weights on a click, writes a step at a time, and shows
// what each step did. Its parts lie in poet/: the model (engine.js), its decoding (decode.js), the rules (verse.js).
// Tested against dsnotes.
const PoetLab = (() => {
  // --- what is asked for ---
  const COMMA = "，", END = "〈终〉";
  const length_of = (form) => form.lines * (form.length + 1);
  const form_of = (state, data) => data.forms[state.form];

  // The rows of both tables as maps; made once.
  const made = {};
  function scripts(data) {
    if (made.traditional) return made;
    Object.assign(made, { traditional: new Map(), simplified: new Map(), readings: Verse.readings(data.readings) });
    for (const [simple, ...others] of data.simplified) {
      made.traditional.set(simple, others[0]);
      for (const c of others) made.simplified.set(c, simple);
    }
    return made;
  }

  // What the reader typed as the model knows it: simplified characters become traditional ones, unless the words hold a
  // character that is traditional already; signs and spaces go. { words, changed: [[from, to]], unknown }.
  function understood(typed, data) {
    const { traditional, simplified } = scripts(data), plain = [...typed].filter((c) => !/[\s\p{P}]/u.test(c));
    const already = plain.some((c) => (simplified.get(c) ?? c) !== c);
    const words = already ? plain : plain.map((c) => traditional.get(c) ?? c);
    return { words, changed: plain.flatMap((c, i) => (c === words[i] ? [] : [[c, words[i]]])),
      unknown: [...new Set(words.filter((c) => !data.characters.includes(c)))] };
  }

  const titled = (state, data) => data.title > 0 && state.kind === "title";

  // Why nothing can be written for this, or "".
  function refusal(state, data) {
    const { words, unknown } = understood(state.words, data), { length } = form_of(state, data);
    const most = titled(state, data) ? data.title : length;
    if (unknown.length) return `模型没见过“${Kit.escape(unknown.join(""))}”：它只认得 ${Kit.int([...data.characters].length)} 个字，请换一个字。`;
    if (words.length > most) return `${titled(state, data) ? "题目" : "首句"}最多 ${most} 个字，现在有 ${words.length} 个。`;
    return "";
  }

  // The tokens of the prompt, and how many of them stand before the poem.
  function prompt(state, data, known) {
    const { words } = understood(state.words, data), title = titled(state, data) ? words : [], line = titled(state, data) ? [] : words;
    const id = (c) => known.symbols.indexOf(c);
    const before = [known.forms[state.form].token, known.rhymes[state.rhyme], ...title.map(id), ...(known.text === null ? [] : [known.text])];
    return { before: before.length, tokens: [...before, ...line.map(id), ...(line.length === form_of(state, data).length ? [id(COMMA)] : [])] };
  }

  // --- poems ---
  const writers = new Map(); // asked for → writer; kept, for a figure is drawn again and again
  const key_of = (state, name) => JSON.stringify([name, state.form, state.rhyme, state.kind, state.words, state.temperature, state.seed]);

  function writer_of(state, data, name) {
    const key = key_of(state, name), known = DeepSeek.received[name];
    if (!writers.has(key)) {
      if (writers.size > 11) writers.clear();
      const { tokens, before } = prompt(state, data, known), limit = length_of(form_of(state, data)) + 1 - (tokens.length - before);
      writers.set(key, { before, writer: Decode.writer(known.model, tokens,
        { temperature: state.temperature, random: Kit.random(state.seed), stop: known.end, limit }) });
    }
    return writers.get(key);
  }

  // The place at which a text leaves the form, or -1.
  function broken(cells, form) {
    return cells.findIndex(({ c }, i) => (i % (form.length + 1) === form.length) !== "，。".includes(c)
      || ("，。".includes(c) && c !== "，。"[Math.floor(i / (form.length + 1)) % 2]) || [...c].length !== 1);
  }

  // The poem of one model as far as `shown`: { cells: [{ c, by, refused, step, routing }], done, trouble, all }, where `all`
  // is how many are written already. The one it opens with is laid into the page; of others stands what is given until
  // the weights are there.
  function poem(state, data, name) {
    const known = DeepSeek.received[name], all = length_of(form_of(state, data));
    let cells = titled(state, data) ? [] : understood(state.words, data).words.map((c) => ({ c, by: "given", refused: null, step: 0, routing: null }));
    let over = false;
    if (known && !refusal(state, data)) {
      const { before, writer } = writer_of(state, data, name);
      const symbol = (token) => (token === null ? null : token === known.end ? END : known.symbols[token]);
      while (!writer.done && writer.tokens.length - before < state.shown) writer.step();
      cells = writer.tokens.slice(before).map((token, i) => ({ ...writer.trace[before + i], c: symbol(token), refused: symbol(writer.trace[before + i].refused) }));
      over = writer.done;
    } else if (data.samples[name] && key_of(state, name) === key_of(PoetLab.state, name)) {
      cells = data.samples[name].map(([c, by, refused, step, routing]) => ({ c, by, refused, step, routing }));
      over = true;
    }
    const end = cells.findIndex(({ c }) => c === END), early = end >= 0 && end < all;
    if (end >= 0) cells = cells.slice(0, end);
    const wrong = broken(cells, form_of(state, data));
    if (wrong >= 0) cells = cells.slice(0, wrong);
    const trouble = wrong >= 0 ? `第 ${Math.floor(wrong / (form_of(state, data).length + 1)) + 1} 句的字数不对` : early ? "没写完就收了尾" : "";
    const shown = Math.max(state.shown, cells.filter(({ by }) => by === "given").length);
    return { cells: cells.slice(0, shown), done: (over || wrong >= 0 || end >= 0) && state.shown >= cells.length, trouble, all: cells.length };
  }

  const names = (state, data) => (state.pair && data.models.length > 1 ? data.models.map(({ name }) => name) : [data.models.at(-1).name]);
  const poems = (state, data) => names(state, data).map((name) => poem(state, data, name));

  // What the rules say of the lines that are whole: { breaches: [[rule, line, place]], bound: [[line, place]], rhymes }.
  // Characters of two tones are counted at the end.
  const RULES = { form: "字数不对", lines: "重复前面的句子", rhyme: "出韵", words: "重韵", ends: "末字该仄", alternation: "平仄不相间",
    dui: "失对", nian: "失粘", guping: "孤平", sanping: "三平尾", jokers: "两读的字太多" };
  function judged(found, state, data) {
    const { lines: count, length } = form_of(state, data), known = scripts(data).readings;
    const lines = (Verse.split(found.cells.map(({ c }) => c).join(""), length, count) ?? []).filter((line) => line.length === length);
    const breaches = lines.length ? Verse.breaches(known, lines, state.rhyme) : [];
    return { known, bound: Verse.bound(known, lines, state.rhyme), lines: lines.length,
      breaches: breaches.filter(([rule]) => rule !== "jokers" || lines.length === count) };
  }

  function verdict(found, state, data) {
    if (found.trouble) return found.trouble;
    const { breaches, lines } = judged(found, state, data);
    if (!lines) return "";
    return breaches.length ? `${breaches.length} 处不合` : found.done ? "合律" : "还没有不合";
  }

  // --- the weights: a script beside this one, asked for when somebody wants a poem ---
  const HERE = typeof document === "undefined" ? "" : document.currentScript?.src ?? "";
  const asked = {}; // name → "loading", "failed" or "done"
  function ask_for(name, data) {
    if (asked[name]) return;
    asked[name] = "loading";
    const script = document.createElement("script"), { file, version } = data.models.find((model) => model.name === name);
    script.src = new URL(`poet/${file}?v=${version}`, HERE).href;
    script.onload = () => { asked[name] = DeepSeek.received[name] ? "done" : "failed"; };
    script.onerror = () => { asked[name] = "failed"; };
    document.head.append(script);
  }
  const there = (state, data) => names(state, data).every((name) => DeepSeek.received[name]);
  const failed = (state, data) => names(state, data).some((name) => asked[name] === "failed");
  const wanted = (state, data) => data.models.filter(({ name }) => names(state, data).includes(name) && !DeepSeek.received[name])
    .reduce((all, { bytes }) => all + bytes, 0);
  const megabytes = (x) => `${Kit.fix(x / 1e6, 1)} MB`;

  // --- the drawing ---
  const EXPERTS = ["blue", "orange", "green", "red", "purple", "sky", "grey", "ink"];
  let fresh = null; // the poem's cells from this one on were written by the last step: they fade in

  const simple = (c, state, data) => (state.simple ? scripts(data).simplified.get(c) ?? c : c);
  const glyph = (x, y, c, size, kind = "") => Kit.text(x, y, Kit.escape(c), { class: `glyph ${kind}`, style: `font-size:${size.toFixed(1)}px` });

  // What stands beside one character.
  const tint = ({ x, y, f }, colour) => Kit.rect({ x: x - f * 0.62, y: y - f * 0.62, width: f * 1.24, height: f * 1.24, rx: 4, class: `f-${colour} tint` });
  const beside = {
    verse({ x, y, f, c, line, place, last, r, side }, { known, breaches, bound, lines }) {
      const found = Verse.tones(known, c), here = ([l, p]) => l === line && p === place;
      const wrong = breaches.filter(([, ...at]) => here(at)), asked_here = bound.some(here);
      const kind = wrong.length ? "s-red thick" : asked_here ? "s-ink" : "s-soft", dark = wrong.length ? "f-red" : asked_here ? "f-ink" : "f-soft";
      const half = Kit.path({ d: `M${side} ${y - r}A${r} ${r} 0 0 1 ${side} ${y + r}Z`, class: `${dark} s-none` });
      const dot = found === "" ? Kit.text(side, y, "？", { class: "small muted" })
        : Kit.circle({ cx: side, cy: y, r, class: `${found === "仄" ? dark : "f-none"} outline ${kind}` }) + (found.length > 1 ? half : "");
      const off = wrong.some(([rule]) => rule === "rhyme" || rule === "words");
      return dot + (wrong.length ? Kit.text(side, y + r + 9, "×", { class: "t-red" }) : "")
        + (line % 2 && place === last && line < lines
          ? Kit.circle({ cx: x, cy: y, r: f * 0.68, class: `f-none outline ${off ? "s-red dash" : "s-green thick"}` }) : "");
    },
    experts(at, _, state, data) {
      if (!at.routing) return "";
      const [[first], ...others] = [...at.routing[state.layer - data.first]].sort((a, b) => b[1] - a[1]);
      return tint(at, EXPERTS[first % EXPERTS.length]) + Kit.text(at.side, at.y - 7, first, { class: "small bold" })
        + others.slice(0, 1).map(([e]) => Kit.text(at.side, at.y + 8, e, { class: "small muted" })).join("");
    },
    cache: () => "",
    draft(at, _, state, data) {
      const small = Math.min(16, at.f * 0.5);
      return (at.by === "draft" ? tint(at, "green") : "") + (at.refused
        ? glyph(at.side, at.y, simple(at.refused, state, data).replace(END, "终"), small, "muted")
          + Kit.line({ x1: at.side - small / 2 - 1, y1: at.y, x2: at.side + small / 2 + 1, y2: at.y, class: "s-red" }) : "");
    },
  };

  // What stands below a poem; as high in every view, so that nothing moves.
  const PANEL = 92;
  const held = (found) => Math.max(0, found.cells.length - (found.done ? 0 : 1));
  function cached(found, state, data) { // bytes, float32: read so far, the prompt included
    const c = data.config, tokens = 2 + held(found) + (titled(state, data) ? understood(state.words, data).words.length : 0);
    return { tokens, latent: tokens * 4 * c.num_hidden_layers * (c.kv_lora_rank + c.qk_rope_head_dim),
      full: tokens * 4 * c.num_hidden_layers * c.num_attention_heads * (c.qk_nope_head_dim + c.qk_rope_head_dim + c.v_head_dim) };
  }
  function drafted(found) {
    const written = found.cells.filter(({ by }) => by !== "given"), steps = new Set(written.map(({ step }) => step)).size;
    const accepted = written.filter(({ by }) => by === "draft").length;
    return { written: written.length, steps, accepted, refused: written.filter(({ refused }) => refused).length };
  }
  function used(found, state, data) { // how often each expert of a layer was chosen
    const load = Array(data.config.n_routed_experts).fill(0);
    for (const { routing } of found.cells) for (const [e] of routing?.[state.layer - data.first] ?? []) load[e]++;
    return load;
  }
  const panel = {
    verse(found, state, data, x, y, w) {
      const sign = (at, kind, words) => Kit.circle({ cx: x + at, cy: y + 18, r: 4.5, class: `outline ${kind}` })
        + Kit.text(x + at + 10, y + 18, words, { anchor: "start", class: "small" });
      return sign(6, "f-none s-ink", "平") + sign(46, "f-ink s-ink", "仄") + sign(86, "f-none s-soft", "淡：此处不论")
        + sign(186, "f-none s-green thick", "大圈：韵脚")
        + Kit.text(x + 270, y + 18, "× 不合", { anchor: "start", class: "small t-red" })
        + Kit.text(x, y + 46, "二四六分明，联内相对，联间相粘，忌孤平与三平尾", { anchor: "start", class: "small muted" });
    },
    experts(found, state, data, x, y, w) {
      const load = used(found, state, data), slot = w / load.length, high = Kit.scale([0, Math.max(6, ...load)], [0, 42]);
      return load.map((n, e) => {
        const middle = x + (e + 0.5) * slot, colour = EXPERTS[e % EXPERTS.length];
        return Kit.rect({ x: middle - slot * 0.36, y: y + 62 - high(n), width: slot * 0.72, height: high(n), class: `f-${colour}` })
          + Kit.text(middle, y + 75, e, { class: "small bold" })
          + (n ? Kit.text(middle, y + 54 - high(n), n, { class: "small muted" }) : "");
      }).join("");
    },
    cache(found, state, data, x, y, w) {
      const { tokens, latent, full } = cached(found, state, data), longest = length_of(form_of(state, data)) + data.title;
      const most = cached({ cells: Array(longest), done: true }, { ...state, words: "" }, data).full;
      const long = Kit.scale([0, most], [0, w - 4]);
      return [["潜在向量", latent, "f-green"], ["若存下每个头的键和值", full, "f-grey"]].map(([words, value, kind], i) =>
        Kit.text(x, y + 14 + i * 38, `${words}：${Kit.bytes(value)}`, { anchor: "start" })
        + Kit.rect({ x, y: y + 24 + i * 38, width: Math.max(1, long(value)), height: 9, class: kind })).join("")
        + Kit.text(x + w, y + 14, `${tokens} 个 token`, { anchor: "end", class: "muted" });
    },
    draft(found, state, data, x, y, w) {
      const words = (at, text) => Kit.text(x + at, y + 18, text, { anchor: "start", class: "small" });
      return Kit.rect({ x, y: y + 11, width: 14, height: 14, rx: 3, class: "f-green tint" }) + words(20, "草稿说中的")
        + Kit.text(x + 106, y + 18, "字", { class: "small muted" })
        + Kit.line({ x1: x + 98, y1: y + 18, x2: x + 114, y2: y + 18, class: "s-red" }) + words(120, "被拒的草稿")
        + Kit.text(x, y + 46, "预测模块猜下一个字，主模型一步里核对它，再写一个", { anchor: "start", class: "small muted" });
    },
  };

  // One sheet: columns from right to left, hairlines between them, the title in the margin. Eight lines on a narrow sheet
  // stand in two tiers.
  function sheet(state, data, name, x, y, w) {
    const form = form_of(state, data), found = poem(state, data, name), margin = w < 420 ? 26 : 44;
    const tiers = form.lines > 4 && w < 480 ? 2 : 1, columns = form.lines / tiers;
    const wide = Math.min(104, (w - margin) / columns), across = wide * columns + margin, left = x + (w - across) / 2, right = left + across;
    const f = Math.min(tiers > 1 ? 30 : 38, wide * 0.52), row = f * 1.46, top = y + 30, tier = row * (form.length + 0.55) + 16, high = tiers * tier;
    const marks = state.view === "verse" ? judged(found, state, data) : null;
    const edge_of = (line) => right - margin - (line % columns) * wide;
    const rule = (at, from = top, to = top + high) => Kit.line({ x1: at, y1: from, x2: at, y2: to, class: "s-soft thin" });
    const rules = Array.from({ length: columns }, (_, i) => rule(edge_of(i))).join("")
      + Kit.rect({ x: left, y: top, width: across, height: high, class: "f-none outline s-soft" })
      + (tiers > 1 ? Kit.line({ x1: left, y1: top + tier, x2: right - margin, y2: top + tier, class: "s-soft thin" }) : "");
    const words = found.cells.map((cell, i) => {
      const line = Math.floor(i / (form.length + 1)), place = i % (form.length + 1), edge = edge_of(line), r = f < 26 ? 3.6 : 4.5;
      const cx = edge - wide * 0.56, cy = top + tier * Math.floor(line / columns) + 12 + row * (Math.min(place, form.length - 0.26) + 0.5);
      const kind = [cell.by === "given" && "t-blue", fresh?.key === key_of(state, name) && i >= fresh.from && "fresh"].filter(Boolean).join(" ");
      if (place === form.length) return glyph(cx + f * 0.42, cy - f * 0.3, cell.c, f * 0.62, `muted ${kind}`);
      const at = { ...cell, x: cx, y: cy, f, line, place, last: form.length - 1, r, side: edge - Math.max(8, wide * 0.13) };
      return beside[state.view](at, marks, state, data) + glyph(cx, cy, simple(cell.c, state, data), f, kind);
    }).join("");
    const title = titled(state, data) ? understood(state.words, data).words : [...state.form, " ", state.rhyme, "韻"];
    const small = margin < 30 ? 13 : 16;
    const heading = title.map((c, i) => glyph(right - margin / 2, top + 18 + i * small * 1.28, simple(c, state, data), small, "muted")).join("");
    return { height: top + high + PANEL - y, text: found.cells.map(({ c }) => c).join(""),
      body: Kit.text(left, y + 14, data.models.find((model) => model.name === name).label, { anchor: "start", class: "muted" })
        + Kit.text(right, y + 14, names(state, data).length > 1 ? verdict(found, state, data) : `种子 ${state.seed}`, { anchor: "end", class: "small muted" })
        + rules + heading + words + panel[state.view](found, state, data, left, top + high, across) };
  }

  function draw(state, data, width) {
    const all = names(state, data), beside_each_other = all.length > 1 && width >= 620, w = beside_each_other ? (width - 32) / 2 : width;
    let x = 0, y = 0, body = "", height = 0, label = [];
    for (const name of all) {
      const one = sheet(state, data, name, x, y, w);
      body += one.body;
      label.push(one.text);
      height = Math.max(height, y + one.height);
      if (beside_each_other) x += w + 32;
      else y += one.height + 12;
    }
    fresh = null;
    return Kit.svg(width, height, label.filter(Boolean).join("；") || "一张还没有写字的纸", body);
  }

  // --- what is said ---
  function said_of(found, state, data) {
    const most = (list) => list.indexOf(Math.max(...list));
    if (state.view === "verse") {
      if (found.trouble) return `这一首没写成：${found.trouble}。`;
      const { breaches } = judged(found, state, data), { lines, length } = form_of(state, data);
      const rules = [...new Set(breaches.map(([rule]) => rule))];
      const where = (rule) => [...new Set(breaches.filter(([name]) => name === rule).map(([, line]) => line + 1))].join("、");
      const more = rules.length > 3 ? `，还有${rules.slice(3).map((rule) => RULES[rule]).join("、")}` : "";
      if (rules.length) return `${rules.slice(0, 3).map((rule) => `${RULES[rule]}（第 ${where(rule)} 句）`).join("，")}${more}。`;
      const words = found.cells.filter((_, i) => i % (2 * (length + 1)) === 2 * length).map(({ c }) => `“${simple(c, state, data)}”`).join("");
      return `${words}同在${simple(state.rhyme, state, data)}韵，${lines} 句里没有不合的地方：<b>合律</b>。`;
    }
    if (state.view === "experts") {
      const load = used(found, state, data), all = load.reduce((a, b) => a + b, 0);
      return `第 ${state.layer} 层里，每个字由 ${data.config.num_experts_per_tok} 个专家算，底色是占得多的那个；`
        + `这首诗去得最多的是专家 ${most(load)}，占 ${Kit.percent(Math.max(...load) / all)}。`;
    }
    if (state.view === "cache") {
      const { tokens, latent, full } = cached(found, state, data);
      return `${tokens} 个 token 读进来，缓存了 <b>${Kit.bytes(latent)}</b>；若存下每个头的键和值，要 ${Kit.num(full / latent, 2)} 倍。`;
    }
    const { written, steps, accepted, refused } = drafted(found);
    return `主模型走了 <b>${steps}</b> 步写出 ${written} 个字，每步 ${Kit.fix(written / steps, 2)} 个；`
      + `草稿接受率 ${Kit.percent(accepted / Math.max(1, accepted + refused))}。`;
  }

  function say(state, data) {
    const { words, changed } = understood(state.words, data), no = refusal(state, data);
    if (no) return no;
    if (failed(state, data)) return "取不到权重，或这个浏览器运行不了它。换一个较新的浏览器，或重新载入本页再试。";
    const all = poems(state, data);
    if (all.every((found) => found.done)) {
      if (all.length === 1) return said_of(all[0], state, data);
      const short = (found) => (found.trouble ? `没写成：${found.trouble}` : verdict(found, state, data));
      const told = all.map((found, i) => (state.view === "verse" ? `${data.models[i].label}的一首，${short(found)}`
        : `${data.models[i].label}：${said_of(found, state, data)}`));
      return state.view === "verse" ? `${told.join("；")}。` : told.join("<br>");
    }
    if (names(state, data).some((name) => asked[name] === "loading") && !there(state, data)) return `正在取权重，${megabytes(wanted(state, data))}……`;
    if (state.shown && there(state, data)) return "正在写，一步一步来；按“停”可以停下看。";
    const size = wanted(state, data), given = words.join(""), what = titled(state, data) ? `题目是“${given}”` : `接着首句“${given}”`;
    const turned = changed.length ? `（${changed.map(([a, b]) => `${a} 作 ${b}`).join("，")}）` : "";
    return `${given ? what : "没有题目"}，温度 ${Kit.fix(state.temperature, 1)}，种子 ${state.seed}${turned}。按“写”开始`
      + (size ? `，先取 ${megabytes(size)} 的权重。` : "。");
  }

  // --- the figure ---
  const finished = (state, data) => Boolean(refusal(state, data)) || failed(state, data)
    || (state.shown > 0 && poems(state, data).every((found) => found.done));
  function step(state, data) { // as many characters as the next step of each model writes
    if (!there(state, data)) {
      names(state, data).forEach((name) => ask_for(name, data));
      return state;
    }
    const next = Math.min(...names(state, data).map((name) => {
      const { all, done } = poem({ ...state, shown: state.shown + 1 }, data, name);
      return done ? Infinity : Math.max(all, state.shown + 1);
    }));
    const shown = Number.isFinite(next) ? next : state.shown + 1;
    fresh = { key: key_of(state, names(state, data)[0]), from: state.shown };
    return { ...state, shown };
  }
  const PROMPT = ["form", "rhyme", "kind", "words", "temperature", "seed"];
  const WHOLE = 99; // more than any poem has

  return {
    understood, refusal, prompt, poem, judged, verdict, cached, drafted,
    name: "poet", title: "让它写诗",
    state: { view: "verse", form: "五絕", rhyme: "東", kind: "line", words: "", temperature: 0.8, pair: false, simple: false, layer: 2, seed: 1, shown: WHOLE },
    range: { seed: [1, 99999], shown: [0, WHOLE] },
    controls: [
      { kind: "tabs", name: "view", label: "看什么", options: [["verse", "平仄与韵"], ["experts", "专家"], ["cache", "缓存"], ["draft", "草稿"]] },
      { kind: "text", name: "words", label: "给它几个字开头（可以空着）" },
      { kind: "choice", name: "kind", label: "当作", options: [["line", "首句"], ["title", "题目"]], when: (state, data) => data.title > 0 },
      { kind: "select", name: "form", label: "体裁", options: (state, data) => Object.keys(data.forms).map((form) => [form, form.replace("絕", "绝")]),
        when: (state, data) => Object.keys(data.forms).length > 1 },
      { kind: "select", name: "rhyme", label: "限韵", options: (state, data) => data.rhymes.map((rhyme) => [rhyme, rhyme]) },
      { kind: "slider", name: "temperature", label: "温度", min: 0, max: 1.5, step: 0.1, show: (v) => Kit.fix(v, 1) },
      { kind: "number", name: "seed", label: "种子" },
      { kind: "slider", name: "layer", label: "看哪一层的专家", min: (state, data) => data.first, max: (state, data) => data.config.num_hidden_layers, step: 1, show: Kit.int,
        when: ({ view }) => view === "experts" },
      { kind: "toggle", name: "pair", label: "强化前后并排", when: (state, data) => data.models.length > 1 },
      { kind: "toggle", name: "simple", label: "显示简体" },
    ],
    play: { every: 160, pause: "停", step, done: finished,
      label: (state, data) => (finished(state, data) && !refusal(state, data) ? "再写一首" : state.shown > 0 && there(state, data) ? "接着写" : "写"),
      again: (state, data) => (refusal(state, data) || failed(state, data) ? state : { ...state, seed: (state.seed % 99999) + 1, shown: 0 }) },
    presets: [
      { label: "打开时", state: {} },
      { label: "强化前后", state: { pair: true } },
      { label: "给它首句", state: { words: "空山新雨後", shown: 0 } },
      { label: "温度 0", state: { temperature: 0, shown: 0 } },
    ],
    // Whoever asks for something else gets a new sheet.
    tidy: (state, data, before) => {
      const layer = Math.max(data.first, Math.min(data.config.num_hidden_layers, state.layer));
      const other = before && PROMPT.some((field) => state[field] !== before[field]) && state.shown === before.shown;
      return { ...state, layer, shown: other ? 0 : state.shown };
    },
    draw, say,
    goals: [
      { ask: "温度调到 0，写完一首，再写一首。种子变了，诗为什么不变？",
        reached: (state, data) => state.temperature === 0 && state.seed > 1 && state.shown >= length_of(form_of(state, data)),
        reply: "温度 0 时每一步都取最可能的字，没有什么要抽的，种子就用不上。" },
      { ask: "并排写一首新的：同样的提示，同样的种子，哪一边更守韵？",
        reached: (state, data) => state.pair && state.seed > 1 && state.shown >= length_of(form_of(state, data)),
        reply: "多写几首再下结论：一首诗押不押韵是抽签，比例才看得出强化学习改了什么。" },
    ],
  };
})();
Kit.add(PoetLab);
