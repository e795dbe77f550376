// Turn the step γ, or break the rule, and see the biases level the load of 8 experts, step by step. The affinities
// stay as they are; only the biases move. Tested against dsnotes.model.balance and dsnotes.model.moe.Gate.
const BalanceLab = (() => {
  const EXPERTS = 8, CHOSEN = 2, MICRO = 4, EACH = 64, STEPS = 60; // 4 micro-batches of 64 tokens
  const TOKENS = MICRO * EACH, MEAN = (TOKENS * CHOSEN) / EXPERTS;
  const TEXTS = ["唐诗", "英文", "代码", "算式"]; // one kind of text fills a micro-batch

  // --- the mathematics ---

  // Affinities of every token: what all like, what its kind of text likes, and chance.
  const LIKED = [1, 0.5, 0.2, 0, -0.1, -0.3, -0.6, -0.9];
  const OWN = [[1, 2.5], [3, 2.5], [6, 4], [4, 2.5]]; // for each text: expert, by how much
  const SCORES = (() => {
    const uniform = Kit.random(1), normal = () => 2 * (uniform() + uniform() + uniform() - 1.5);
    return Array.from({ length: TOKENS }, (_, t) => LIKED.map((z, i) => {
      const [own, more] = OWN[Math.floor(t / EACH)];
      return 1 / (1 + Math.exp(-(z + (i === own ? more : 0) + normal())));
    }));
  })();

  // The two experts with the largest s + b, the largest first.
  function choose(scores, bias) {
    let first = -1, second = -1, high = -Infinity, next = -Infinity;
    for (let i = 0; i < EXPERTS; i++) {
      const x = scores[i] + bias[i];
      if (x > high) [second, next, first, high] = [first, high, i, x];
      else if (x > next) [second, next] = [i, x];
    }
    return [first, second];
  }

  const load = (tokens, bias) => {
    const counts = Array(EXPERTS).fill(0);
    for (const scores of tokens) for (const i of choose(scores, bias)) counts[i]++;
    return counts;
  };
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const maxVio = (counts) => Math.max(...counts) / (sum(counts) / counts.length) - 1;

  // The biases after a load was counted. e = mean − c, the error of an expert.
  function update(bias, counts, gamma, rule) {
    const mean = sum(counts) / counts.length;
    const pace = { share: (e) => e / mean, trap3: (e) => e }[rule] ?? Math.sign;
    return bias.map((b, i) => b + gamma * pace(mean - counts[i]));
  }

  const BATCHES = Array.from({ length: MICRO }, (_, m) => SCORES.slice(m * EACH, (m + 1) * EACH));

  // One optimizer step: the load of each micro-batch, and the biases after it.
  function step(bias, gamma, rule) {
    const loads = [];
    for (let m = 0; m < MICRO; m++) {
      loads.push(load(BATCHES[m], bias));
      if (rule === "trap2") bias = update(bias, loads[m], gamma, rule); // each one moves it at once
    }
    const total = loads[0].map((_, i) => sum(loads.map((counts) => counts[i])));
    return { loads, total, next: rule === "trap2" ? bias : update(bias, total, gamma, rule) };
  }

  // All steps from bias 0. The last runs are kept: drawing, sentence and goals ask for the same.
  const kept = new Map();
  function run(gamma, rule) {
    const key = `${rule} ${gamma}`;
    if (!kept.has(key)) {
      const steps = [];
      for (let n = 0, bias = Array(EXPERTS).fill(0); n <= STEPS; n++) {
        const { loads, total, next } = step(bias, gamma, rule);
        steps.push({ bias, loads, total, next, vio: maxVio(total) });
        bias = next;
      }
      if (kept.size > 8) kept.clear();
      kept.set(key, steps);
    }
    return kept.get(key);
  }

  // --- one token, in the third row: the first that the biases send elsewhere ---

  const TOKEN = SCORES[8], FROM = 0, TO = 2; // it prefers FROM to TO, by LEAD
  const LEAD = TOKEN[FROM] - TOKEN[TO];
  const moved = ({ bias }) => choose(TOKEN, bias).includes(TO);
  // By the 2γ step: FROM is too full and loses γ, TO is too empty and gains γ.
  const expected = (gamma) => Math.ceil(LEAD / (2 * gamma));

  // --- the figure ---

  const each = (make) => Array.from({ length: EXPERTS }, (_, i) => make(i)).join("");
  const name = (i) => `专家 ${i + 1}`;
  const signed = (x) => (x > 0 ? "+" : "") + Kit.fix(x, Math.abs(x) < 0.1 ? 3 : 2).replace(/0$/, "");
  const box = (x, y, width, height, kind) => Kit.rect({ x, y, width, height: Math.max(0, height), class: kind });
  const side = (count) => (count > MEAN ? "red" : count < MEAN ? "blue" : "grey");

  function draw(state, _data, width) {
    const all = run(state.gamma, state.rule), now = all[state.steps];
    const narrow = width < 560, left = narrow ? width : 440;
    const column = (left - 4) / EXPERTS, at = (i) => 2 + (i + 0.5) * column; // the middle of an expert's column
    const place = { column, at, left, thick: Math.min(30, column - 12) };
    let body = state.pick ? box(at(state.pick - 1) - column / 2, 24, column, 390, "f-soft faint") : "";
    body += loads(state, now, place) + biases(state, now, place) + token(now, place) + (narrow
      ? curve(state, all, { x: 0, y: 426, width, height: 130 })
      : curve(state, all, { x: left + 24, y: 0, width: width - left - 24, height: 424 }));
    return Kit.svg(width, narrow ? 558 : 426, `第 ${state.steps} 步：各专家的负载 ${now.total.join("、")}，MaxVio ${Kit.fix(now.vio, 2)}`, body);
  }

  const heading = (x, y, words, more) =>
    Kit.text(x, y, `${words}<tspan class="plain" dx="8">${more}</tspan>`, { anchor: "start", class: "bold" });

  // Row 1: the load, one piece for each micro-batch.
  function loads(state, { loads: pieces, total }, { column, at, left, thick }) {
    const base = 140, along = Kit.scale([0, Math.max(140, ...total)], [0, 92]);
    return heading(0, 10, "① 数负载", `${TOKENS} 个 token，各选 ${CHOSEN} 个`) +
      Kit.text(left, 10, `虚线：平均 ${MEAN}`, { anchor: "end", class: "small muted" }) +
      Kit.line({ x1: 0, x2: left, y1: base - along(MEAN), y2: base - along(MEAN), class: "dash" }) + each((i) => {
      let y = base, stack = "";
      for (const [m, counts] of pieces.entries()) {
        const high = along(counts[i]);
        y -= high;
        stack += box(at(i) - thick / 2, y, thick, high - 1, `f-${side(total[i])}`);
        if (high > 15) stack += Kit.text(at(i), y + high / 2, TEXTS[m][0], { class: side(total[i]) === "blue" ? "on-dark" : "on" });
      }
      const words = `专家 ${i + 1}：收到 ${total[i]} 个`, chosen = state.pick === i + 1;
      return stack + Kit.text(at(i), y - 9, total[i], { class: "bold halo" }) +
        Kit.press({ name: "pick", value: chosen ? 0 : i + 1, label: words, pressed: chosen,
          body: Kit.rect({ x: at(i) - column / 2 + 3, y: base + 4, width: column - 6, height: 26, rx: 4,
            class: chosen ? "f-none s-ink" : "f-none s-soft" }) +
            Kit.text(at(i), base + 17, i + 1) });
    }) + Kit.line({ x1: 0, x2: left, y1: base, y2: base });
  }

  // Row 2: the biases, and where this step sends them.
  function biases(state, { bias, next, loads: pieces }, { at, left, thick }) {
    const zero = 236, most = Math.max(...bias.map(Math.abs), ...next.map(Math.abs));
    const reach = [0.1, 0.25, 0.5, 1, 2].find((top) => top >= most) ?? most, along = Kit.scale([0, reach], [0, 34]);
    return heading(0, 188, "② 挪偏置", `γ = ${Kit.num(state.gamma)}`) + Kit.line({ x1: 0, x2: left, y1: zero, y2: zero }) +
      each((i) => {
        const step = next[i] - bias[i], tip = zero - along(next[i]), from = zero - along(bias[i]);
        const kind = step < 0 ? "red" : step > 0 ? "blue" : "grey";
        const votes = state.rule === "trap2" // of each micro-batch, against its own mean
          ? pieces.map((counts) => "−·+"[1 + Math.sign(MEAN / MICRO - counts[i])]).join("") : "";
        const words = state.rule === "sign" || votes ? inGammas(Math.round(step / state.gamma)) : signed(step);
        return box(at(i) - thick / 2, Math.min(zero, from), thick, Math.abs(along(bias[i])), frame(bias[i])) +
          (Math.abs(tip - from) > 1 ? Kit.arrow({ x1: at(i), x2: at(i), y1: from, y2: tip, head: 6, class: `s-${kind}` }) : "") +
          Kit.text(at(i), zero + 47, words, { class: `bold t-${kind}` }) +
          (votes ? Kit.text(at(i), zero + 62, votes, { class: "small mono" }) : "");
      }) + Kit.text(left, 188, votesNote(state, reach), { anchor: "end", class: "small muted" });
  }
  const inGammas = (n) => (n ? `${n > 0 ? "+" : "−"}${Math.abs(n) > 1 ? Math.abs(n) : ""}γ` : "0");
  const frame = (b) => `f-none s-${b < 0 ? "red" : "blue"} dash`;
  const votesNote = ({ rule }, reach) => (rule === "trap2" ? "每个微批次投一票；" : "") + `满格 ±${Kit.num(reach)}`;

  // Row 3: one token of the first micro-batch, and whom it chooses by s + b.
  function token({ bias }, { at, left, thick }) {
    const biased = TOKEN.map((s, i) => s + bias[i]), chosen = choose(TOKEN, bias);
    const along = Kit.scale([Math.min(0, ...biased), Math.max(1, ...biased)], [410, 352]), zero = along(0);
    return heading(0, 326, "③ 再选择", "一个 token：按 s + b 取前 2 名") + each((i) => {
      const takes = chosen.includes(i), x = at(i) - thick / 2, s = along(TOKEN[i]), both = along(biased[i]);
      const words = Kit.fix(biased[i], 2).replace(/^(−?)0/, "$1"); // .62
      return box(x, s, thick, zero - s, takes ? "f-blue" : "f-grey faint") +
        box(x, Math.min(s, both), thick, Math.abs(both - s), frame(bias[i])) +
        Kit.text(at(i), Math.min(s, both, zero) - 8, words, { class: takes ? "small bold" : "small muted" });
    }) + Kit.line({ x1: 0, x2: left, y1: zero, y2: zero });
  }

  // MaxVio of every step: what is done in full, what comes in dashes, and the rule of V3 to compare with.
  function curve(state, all, { x, y, width, height }) {
    const right = state.rule === "sign" ? null : run(state.gamma, "sign");
    const highest = Math.max(...all.map(({ vio }) => vio), ...(right ?? []).map(({ vio }) => vio));
    const top = highest <= 1.2 ? 1.2 : 3, ticks = top === 3 ? [0, 1, 2, 3] : [0, 0.5, 1];
    const across = Kit.scale([0, STEPS], [x + 30, x + width - 12]), up = Kit.scale([0, top], [y + height - 26, y + 34]);
    const line = (steps, kind) => Kit.path({ class: kind,
      d: "M" + steps.map(([n, vio]) => `${across(n).toFixed(1)} ${up(vio).toFixed(1)}`).join("L") });
    const points = (steps) => steps.map(({ vio }, n) => [n, vio]);
    const { vio } = all[state.steps], px = across(state.steps), py = up(vio);
    return heading(x, y + 10, "MaxVio", "最忙的超出平均多少") +
      ticks.map((t) => Kit.line({ x1: across(0), x2: across(STEPS), y1: up(t), y2: up(t), class: t ? "s-soft thin" : "" }) +
        Kit.text(across(0) - 6, up(t), t, { anchor: "end", class: "small" })).join("") +
      [0, 20, 40].map((n) => Kit.text(across(n), up(0) + 14, n, { class: "small" })).join("") +
      Kit.text(across(STEPS), up(0) + 14, `${STEPS} 步`, { anchor: "end", class: "small" }) +
      (right ? line(points(right), "s-grey") + Kit.text(across(STEPS), up(right[STEPS].vio) - 16, "sign",
        { anchor: "end", class: "small muted halo" }) : "") +
      line(points(all), "s-blue dash thin") + line(points(all).slice(0, state.steps + 1), "s-blue thick") +
      Kit.circle({ cx: px, cy: py, r: 5, class: "f-blue" }) +
      Kit.text(Math.min(px + 8, x + width - 40), py - 12, Kit.fix(vio, 2), { anchor: "start", class: "bold halo" });
  }

  // --- the sentence ---

  function say(state) {
    const all = run(state.gamma, state.rule), now = all[state.steps], { total, bias, next } = now;
    const busiest = total.indexOf(Math.max(...total)), vio = `MaxVio 是 <b>${Kit.fix(now.vio, 2)}</b>`;
    const pieces = now.loads.map((counts) => counts[state.pick - 1]);
    const detail = state.pick ? `${name(state.pick - 1)} 从四个微批次里收 ${pieces.join("、")} 个；` : "";
    const start = `${detail}第 ${state.steps} 步，`;
    const worst = all.slice(-20).reduce((most, step) => Math.max(most, step.vio), 0);
    if (state.rule === "trap2") {
      const wrong = [...total.keys()].filter((i) => total[i] > MEAN && next[i] > bias[i]).sort((i, j) => total[j] - total[i])[0];
      const most = wrong === undefined ? `${name(busiest)} 最忙，收到 ${total[busiest]} 个`
        : `${name(wrong)} 收到 ${total[wrong]} 个，超过平均，可是四个微批次里多数嫌它闲，偏置反而加 ${Math.round((next[wrong] - bias[wrong]) / state.gamma)}γ`;
      return `${start}${most}；${vio}，走完停在 ${Kit.fix(all[STEPS].vio, 2)}，合计后再动是 ${Kit.fix(run(state.gamma, "sign")[STEPS].vio, 2)}。`;
    }
    const far = next.map((b, i) => Math.abs(b - bias[i])), longest = far.indexOf(Math.max(...far));
    if (state.rule === "trap3") return start + (worst > 0.5
      ? `步子是 γ 乘原始计数：${name(longest)} 一步走 ${signed(next[longest] - bias[longest])}，比亲和度之间的差还大，token 成批搬家；${vio}，停不下来。`
      : `步子是 γ 乘原始计数，${name(longest)} 走 ${signed(next[longest] - bias[longest])}；${vio}，这批 token 少、γ 够小才走得稳，批次大十倍，步子也大十倍。`);
    if (state.rule === "share") return `${start}步子先除以平均，${name(longest)} 走 ${signed(next[longest] - bias[longest])}，快到平衡时自己变小；${vio}。`;
    if (worst > 0.25 && state.gamma > 0.02 && state.steps > STEPS / 2) return `${start}${name(busiest)} 收到 ${total[busiest]} 个，` +
      `下一步又会太闲：一步就跨过平衡点，来回摆动，${vio}，降不下去。`;
    const left = TOKEN[FROM] + bias[FROM] - TOKEN[TO] - bias[TO];
    return `${start}${name(busiest)} 最忙，收到 ${total[busiest]} 个，减 γ；${vio}；` + (moved(now)
      ? `③ 的 token 已从${name(FROM)} 改选${name(TO)}。`
      : `③ 的 token 选${name(FROM)} 不选${name(TO)}，还差 ${Kit.num(left, 2)}，每步缩 2γ = ${Kit.num(2 * state.gamma)}，` +
        `再走 ${Math.ceil(left / (2 * state.gamma))} 步改选。`);
  }

  const goals = [
    { ask: "把 γ 调到 0.005 以下，用 2γ 算出 ③ 的 token 第几步改选，再把步数拖到那里。",
      reached: ({ rule, gamma, steps }) => rule === "sign" && gamma <= 0.005 && steps === expected(gamma) &&
        moved(run(gamma, rule)[steps]),
      reply: `它对专家 1 的亲和度比专家 3 高 ${Kit.fix(LEAD, 4)}，一个减 γ，一个加 γ，差距每步缩 2γ，除一下再进一就是步数。` },
    { ask: "在常见错误 2 里，点一个已经超过平均、偏置却还在涨的专家。",
      reached: ({ rule, gamma, steps, pick }) => {
        const { total, bias, next } = run(gamma, rule)[steps];
        return rule === "trap2" && pick > 0 && total[pick - 1] > MEAN && next[pick - 1] > bias[pick - 1];
      },
      reply: "它的 token 多半来自一类文本：那个微批次嫌它忙，只有一票，另外三个嫌它闲，有三票。投票不看差多少，合计才看。" },
    { ask: "每步按 sign 走，找一个 γ，让 MaxVio 在 15 步之内降到 0.1 以下。",
      reached: (state) => state.rule === "sign" && state.steps <= 15 && run(state.gamma, "sign")[state.steps].vio < 0.1,
      reply: "小一点走不到，大一点跨过头，停在高处摆动：γ 是快慢与粗细的交换。" },
  ];

  return {
    SCORES, choose, load, maxVio, update, step, run, expected, MEAN, STEPS, EACH,
    name: "balance", title: "偏置的一圈", draw, say, goals,
    state: { rule: "sign", gamma: 0.01, steps: 4, pick: 0 },
    range: { pick: [0, EXPERTS] },
    controls: [
      { kind: "button", label: "一步", act: (state) => ({ ...state, steps: Math.min(STEPS, state.steps + 1) }) },
      { kind: "slider", name: "steps", label: "第几步", min: 0, max: STEPS, step: 1 },
      { kind: "slider", name: "gamma", label: "步长 γ", min: 0.001, max: 0.1, log: true },
      { kind: "choice", name: "rule", label: "怎样动", options: [["sign", "sign"], ["share", "成正比，除以平均"],
        ["trap2", "常见错误 2"], ["trap3", "常见错误 3"]] },
    ],
    play: { label: "播放", every: 200, step: (state) => ({ ...state, steps: Math.min(STEPS, state.steps + 1) }),
      done: (state) => state.steps >= STEPS, again: (state) => ({ ...state, steps: 0 }) },
    presets: [
      { label: "正确", state: {} },
      { label: "步长太大", state: { gamma: 0.1, steps: 40 } },
      { label: "常见错误 2：逐个微批次", state: { rule: "trap2", steps: 20 } },
      { label: "常见错误 3：乘原始计数", state: { rule: "trap3", steps: 20 } },
    ],
  };
})();
Kit.add(BalanceLab);
