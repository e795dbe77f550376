// Scrub through sixty steps of RL and read what the model writes at each of them, under four rewards.
// The record is book/data/runs/thinking.json; tested against dsnotes.rl.shellgame and dsnotes.rl.reward.
const ThinkingLab = (() => {
  const LAST = 60;
  const ENGLISH = ["one", "two", "three", "four", "five"];
  const CHINESE = ["一", "二", "三", "四", "五"];
  const NAMES = { zero: "规则", language: "加语言", random: "随机", forbidden: "不许思考" };

  // --- the mathematics ---
  // The symbols of one answer: the words of its thought, what stands for its answer, the rest.
  function read(letters, data) {
    const symbols = [...letters].map((letter) => data.symbols[data.alphabet.indexOf(letter)]);
    const end = symbols.indexOf("</think>");
    const words = symbols.slice(1, end < 0 ? symbols.length : end);
    const [open, answer, close] = symbols.slice(end + 1);
    const kept = end >= 0 && open === "<answer>" && close === "</answer>" && symbols.length === end + 4;
    return { words, answer: kept && /^[1-5]$/.test(answer) ? answer : null };
  }

  const position = (word) => [ENGLISH, CHINESE].map((names) => names.indexOf(word)).find((i) => i >= 0) ?? -1;
  // Of each word of a thought, whether the ball is there.
  const checked = (words, path) => words.map((word, i) => position(word) === path[i]);
  const chinese = (words) => words.filter((word) => CHINESE.includes(word)).length / Math.max(words.length, 1);

  // The answers to one problem after one step, as the record has them.
  function answers({ step, variant, problem }, data) {
    const { texts, marks, chinese_share: shares } = data.variants[variant];
    return texts[step][Number(problem)].split(" ").map((letters, i) => {
      const mark = Number(marks[step][Number(problem)][i]); // 1: right, 2: in the template
      const found = read(letters, data);
      const [right, format] = [mark % 2, mark >> 1];
      const score = right + 0.1 * format + (shares ? shares[step][Number(problem)][i] : 0);
      return { ...found, right, format, score };
    });
  }

  // --- the figure ---
  const px = (value) => Math.round(value * 10) / 10;
  const put = (x, y, words, { anchor = "start", ...rest } = {}) => Kit.text(x, y - 5, words, { anchor, ...rest });
  const isFull = (answer, data) => answer.words.length === data.problems[0].path.length;

  function chart({ x, width, title, shown, key, top, marks }, state, data) {
    const [y0, y1] = [104, 32];
    const right = x + width;
    const across = Kit.scale([0, LAST], [x, right]);
    const up = Kit.scale([0, top], [y0, y1]);
    const line = (values, from, to) => values.slice(from, to + 1)
      .map((value, i) => `${i ? "L" : "M"}${px(across(from + i))} ${px(up(value))}`).join("");
    const [own, ...others] = data.variants[state.variant][key];
    let body = put(x, 14, title, { class: "muted" }) + put(right, 14, shown(own[state.step]), { anchor: "end" });
    for (const [value, name] of marks) {
      body += Kit.line({ x1: x, y1: up(value), x2: right, y2: up(value), class: "s-grey thin dash" });
      body += value > top / 2 ? put(right, up(value) - 4, name, { anchor: "end", class: "muted" })
        : put(x, up(value) + 13, name, { class: "muted" }); // where no curve comes by
    }
    body += Kit.line({ x1: x, y1: y0, x2: right, y2: y0, class: "s-grey thin" });
    for (const values of others) body += Kit.path({ d: line(values, 0, LAST), class: "s-blue faint" });
    if (state.variant !== "zero") body += Kit.path({ d: line(data.variants.zero[key][0], 0, LAST), class: "s-grey dash" });
    if (state.step < LAST) body += Kit.path({ d: line(own, state.step, LAST), class: "s-blue faint thick" });
    if (state.step) body += Kit.path({ d: line(own, 0, state.step), class: "s-blue thick" });
    return body + Kit.circle({ cx: across(state.step), cy: up(own[state.step]), r: 4.5, class: "f-blue" });
  }

  // One column a step, one row an answer, filled where it is right: the film, and its head.
  function film(state, data, width, top) {
    const [left, right, row] = [14, width - 14, 9];
    const pitch = (right - left) / (LAST + 1);
    const cells = { past: "", future: "", wrong: "" };
    for (let step = 0; step <= LAST; step++) {
      const marks = data.variants[state.variant].marks[step][Number(state.problem)];
      [...marks].forEach((mark, i) => {
        const cell = `M${px(left + pitch * step + 0.5)} ${top + row * i + 0.5}h${px(pitch - 1)}v${row - 1}h${px(1 - pitch)}z`;
        cells[Number(mark) % 2 ? (step <= state.step ? "past" : "future") : "wrong"] += cell;
      });
    }
    const x = left + pitch * (state.step + 0.5);
    const foot = top + 4 * row;
    let body = Kit.path({ d: cells.wrong || "M0 0", class: "f-grey s-none faint" });
    body += Kit.path({ d: cells.future || "M0 0", class: "f-green s-none faint" });
    body += Kit.path({ d: cells.past || "M0 0", class: "f-green s-none" });
    body += Kit.handle({
      name: "step", label: "第几步", x, y: foot + 12, value: state.step, min: 0, max: LAST, step: 1, axis: "x",
      from: left + pitch / 2, to: right - pitch / 2,
      body: Kit.line({ x1: x, y1: top - 5, x2: x, y2: foot + 6, class: "s-ink thick" }) + Kit.circle({ cx: x, cy: foot + 12, r: 9, class: "f-blue" }),
    });
    const side = state.step > LAST / 2 ? { at: x - 16, anchor: "end" } : { at: x + 16, anchor: "start" };
    return body + put(side.at, foot + 17, `第 ${state.step} 步`, { anchor: side.anchor });
  }

  function draw(state, data, width) {
    const narrow = width < 520;
    const gap = narrow ? 12 : 24;
    const third = (width - 2 * gap - 4) / 3;
    const charts = [
      { title: "正确率", key: "accuracy", top: 1, shown: (v) => Kit.percent(v), marks: [[0.2, "瞎猜"]] },
      { title: narrow ? "长度" : "长度（token）", key: "length", top: 12, shown: (v) => Kit.fix(v, 1), marks: [[11, narrow ? "六步" : "写满六步"]] },
      { title: narrow ? "中文" : "思考里的中文", key: "chinese", top: 1, shown: (v) => Kit.percent(v), marks: [] },
    ];
    let body = charts.map((one, i) => chart({ ...one, x: 2 + i * (third + gap), width: third }, state, data)).join("");
    body += film(state, data, width, 124);
    const { start, swaps, path } = data.problems[Number(state.problem)];
    const left = narrow ? 2 : 66;
    const [answerWidth, y0, row] = [narrow ? 72 : 120, 236, 38];
    const pitch = (width - left - answerWidth) / swaps.length;
    const cell = narrow ? pitch - 3 : pitch - 8;
    const middle = (i) => left + pitch * i + cell / 2;
    body += put(2, y0 - 22, narrow ? `球在 ${start}，依次交换：` : `球在 ${start}`, {});
    swaps.forEach((swap, i) => {
      body += put(middle(i), narrow ? y0 - 4 : y0 - 22, swap.replace("-", "↔"), { anchor: "middle" });
      if (!narrow) body += put(middle(i), y0 - 4, path[i] + 1, { anchor: "middle", class: "muted" });
    });
    if (!narrow) body += put(2, y0 - 4, "应当在", { class: "muted" });
    const away = width - answerWidth / 2 + (narrow ? 2 : 8);
    body += put(away, narrow ? y0 - 4 : y0 - 22, narrow ? `应答 ${path.at(-1) + 1}` : "答案", { anchor: "middle", class: narrow ? "muted" : "" });
    if (!narrow) body += put(away, y0 - 4, path.at(-1) + 1, { anchor: "middle", class: "muted" });
    answers(state, data).forEach((answer, k) => {
      const y = y0 + 6 + row * k;
      if (!narrow) body += put(2, y + 20, `第 ${k + 1} 份`, { class: "muted" });
      const good = checked(answer.words, path);
      for (let i = 0; i < swaps.length; i++) {
        const box = { x: left + pitch * i, y, width: cell, height: 30, rx: 5 };
        const word = answer.words[i];
        if (word === undefined) { body += Kit.rect({ ...box, class: "f-none s-grey faint dash" }); continue; }
        const color = good[i] ? "green" : "red";
        body += Kit.rect({ ...box, class: `f-${color} faint` }) + Kit.rect({ ...box, class: `f-none s-${color}${good[i] ? "" : " dash"}` });
        body += put(middle(i), y + 20, word, { anchor: "middle" });
      }
      const mark = answer.right ? "✓" : "✗";
      body += put(away - (narrow ? 0 : 28), y + 20, `${answer.answer ?? "—"} ${mark}`, { anchor: "middle", class: answer.right ? "t-green" : "t-red" });
      if (!narrow) body += put(width - 2, y + 20, state.variant === "random" ? "抛硬币" : `${Kit.fix(answer.score, 2)} 分`, { anchor: "end", class: "muted" });
    });
    return Kit.svg(width, y0 + 6 + row * 4, `奖励：${NAMES[state.variant]}，第 ${state.step} 步：四份回答`, body);
  }

  // --- what just happened ---
  function say(state, data) {
    const found = answers(state, data);
    const full = found.filter((one) => isFull(one, data)).length;
    const right = found.filter((one) => one.right).length;
    const scores = data.variants[state.variant];
    const [now, then] = [scores.accuracy[0][state.step], scores.accuracy[0][0]].map((v) => Kit.percent(v));
    const some = (many, what) => `${["没有一份", "一份", "两份", "三份", "都"][many]}${what}`;
    const count = `四份${full === 4 ? "" : "里"}${some(full, "写满六步")}，${some(right, "答对")}`;
    const head = state.step ? `第 ${state.step} 步` : "训练之前";
    if (state.variant === "forbidden") {
      return `${head}：思考被强加成空的，没有地方写步骤；留出的题对 ${now}${state.step ? `，开始时 ${then}` : ""}，<b>离瞎猜不远</b>，分数再多也没有步骤可以加强。`;
    }
    if (state.variant === "random") {
      return state.step ? `${head}：每份的分是抛硬币，与写了什么无关，推力<b>没有方向</b>；${count}，留出的题对 ${now}，开始时 ${then}。`
        : `${head}：${count}；往后每份的分都是抛硬币。`;
    }
    if (state.variant === "language") {
      const share = Kit.percent(scores.chinese[0][state.step]);
      return `${head}：${count}；奖励里多了中文的比例，思考里的中文占 ${share}${state.step ? `，开始时 ${Kit.percent(scores.chinese[0][0])}` : ""}。<b>奖励管什么，什么才变</b>。`;
    }
    if (!state.step) return `${head}：${count}，没写满的只好<b>猜</b>；留出的题对 ${now}。按“播放”，看分数把它教成什么样。`;
    const why = right === 4 ? "英文与中文没有人管，<b>照旧混着</b>" : "分数只看答案与格式，<b>写满六步的更常对</b>，于是越写越满";
    return `${head}：${count}；留出的题对 ${now}，开始时 ${then}。${why}。`;
  }

  return {
    read, position, checked, chinese, answers,
    name: "thinking",
    title: "看它学会思考",
    state: { step: 0, variant: "zero", problem: "0" },
    range: { step: [0, LAST] },
    controls: [
      { kind: "tabs", name: "variant", label: "奖励", options: Object.entries(NAMES) },
      { kind: "choice", name: "problem", label: "题目", options: [["0", "一"], ["1", "二"], ["2", "三"]] },
    ],
    play: {
      label: "播放", every: 220,
      step: (state) => ({ ...state, step: Math.min(state.step + 1, LAST) }),
      done: (state) => state.step >= LAST,
      again: (state) => ({ ...state, step: 0 }),
    },
    keep: ["variant", "problem"],
    tidy: (state) => ({ ...state, step: Math.round(state.step) }),
    presets: [
      { label: "训练之前", state: {} },
      { label: "第 20 步", state: { step: 20 } },
      { label: "六十步以后", state: { step: LAST } },
    ],
    draw,
    say,
    goals: [
      {
        ask: "“规则”，题目一：拖到四份第一次全对的一步。写满六步与答对，哪一个在先？",
        reached: (state, data) => state.variant === "zero" && state.problem === "0" && answers(state, data).every((one) => one.right),
        reply: "写满在先。往回拖几步：先有写满了却走错的，后来才步步都对。",
      },
      {
        ask: "换一种奖励，让英文从四份回答里消失，而且都答对。",
        reached: (state, data) => state.variant !== "forbidden"
          && answers(state, data).every((one) => one.right && one.words.length && chinese(one.words) === 1),
        reply: "只按规则给分时没有人管语言，六十步以后仍是混着的；奖励里加上中文的比例，英文才没有了。",
      },
      {
        ask: "“加语言”，题目三，走到最后一步：它的分从哪里来？",
        reached: (state) => state.variant === "language" && state.problem === "2" && state.step === LAST,
        reply: "都写满了六步，都是中文，第一步却写错了：语言与格式的分拿到了，答案的分没有。平均九成多的题它会，这一道不会。",
      },
    ],
  };
})();
Kit.add(ThinkingLab);
