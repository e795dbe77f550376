// Five answers and three policies: the expected gradient of the KL as one writes it, against the true one; then
// eight answers and the sequence mask. Tested against dsnotes.after.offpolicy.
const OffpolicyLab = (() => {
  const REF = [0.5, 1.2, -0.6, 0.3, -1.4]; // logits of the reference
  const DRIFT = [-0.9, 0.7, 1.1, -0.8, 0.6]; // how the policy of sampling differs, times `stale`
  const RIGHT = [1, 0, 0, 1, 0, 1, 0, 0]; // of eight answers
  const ENGINE = 0.4; // the part of each gap that comes from the engine and not from old weights

  // --- the mathematics ---
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  function softmax(logits) {
    const top = Math.max(...logits), weights = logits.map((x) => Math.exp(x - top)), total = sum(weights);
    return weights.map((w) => w / total);
  }
  const sampler = (now, stale) => now.map((x, i) => x + stale * DRIFT[i]);

  // KL(pi || ref) and its gradient by the logits.
  function exact(now, ref = REF) {
    const p = softmax(now), r = softmax(ref), gap = p.map((one, i) => Math.log(one / r[i]));
    const value = sum(p.map((one, i) => one * gap[i]));
    return { value, gradient: p.map((one, i) => one * (gap[i] - value)) };
  }

  // The mean over samples of `old` of what one writes: its value, and its gradient with the samples drawn.
  function written(way, now, old, ref = REF) {
    const [p, q, r] = [now, old, ref].map(softmax);
    const x = p.map((one, i) => r[i] / one), rho = p.map((one, i) => one / q[i]);
    const k3 = x.map((one) => one - 1 - Math.log(one));
    const weight = { k3: (i) => 1 - x[i], detached: (i) => rho[i] * (1 - x[i]), unbiased: (i) => -rho[i] * Math.log(x[i]) }[way];
    const w = q.map((one, i) => one * weight(i)), all = sum(w);
    const value = sum(q.map((one, i) => one * k3[i] * (way === "k3" ? 1 : rho[i])));
    return { value, gradient: w.map((one, i) => one - p[i] * all) };
  }

  // Length of the error of the gradient over that of the true one.
  function error(state) {
    const right = exact(state.now).gradient, found = written(state.way, state.now, sampler(state.now, state.stale)).gradient;
    const length = (values) => Math.sqrt(sum(values.map((one) => one * one)));
    return length(found.map((one, i) => one - right[i])) / Math.max(length(right), 1e-12);
  }

  // R - mean(R), and what stays: V3.2 (9) and what one writes instead.
  const advantages = () => RIGHT.map((one) => one - sum(RIGHT) / RIGHT.length);
  function keeps(drift, delta, wrong) {
    return advantages().map((advantage, i) => {
      const seen = wrong === "trap2" ? drift[i] - ENGINE : drift[i];
      return !((wrong === "trap3" || advantage < 0) && seen > delta);
    });
  }

  // --- the figure ---
  const NAMES = { k3: "k₃", detached: "ρ·k₃，ρ 不带梯度", unbiased: "ρ·k₃（式 7）" };
  const COLOURS = { k3: "red", detached: "orange", unbiased: "blue" };
  const word = (x, y, words, look) => Kit.text(x, y, words, { anchor: "start", ...look });
  const signed = (value, decimals = 2) => (value > 0 ? "+" : "") + Kit.fix(value, decimals);

  function drawKl(state, width) {
    const narrow = width < 520, left = 10, step = (width - left - 10) / 5, p = softmax(state.now);
    const old = sampler(state.now, state.stale), y = Kit.scale([-4.5, 4.5], [210, 30]), parts = [];
    parts.push(word(2, 12, narrow ? "logit（拖蓝点）" : "logit：拖蓝点改正在训练的策略", { class: "muted" }),
      Kit.line({ x1: left, x2: width - 10, y1: y(0), y2: y(0), class: "s-soft" }));
    for (let i = 0; i < 5; i++) {
      const x = left + step * (i + 0.5), half = Math.min(26, step / 3);
      parts.push(Kit.rect({ x: x - half, y: y(state.now[i]), width: 2 * half, height: Math.max(1, 210 - y(state.now[i])), class: "f-blue faint" }),
        Kit.line({ x1: x - half - 5, x2: x + half + 5, y1: y(REF[i]), y2: y(REF[i]), class: "s-grey thick" }),
        Kit.circle({ cx: x + half + 2, cy: y(old[i]), r: 5, class: "f-none s-ink thick" }),
        word(x, 226, `${Kit.percent(p[i])}`, { anchor: "middle", class: "t-blue" }),
        Kit.handle({ name: `now.${i}`, label: `第 ${i + 1} 个答案的 logit`, x, y: y(state.now[i]), value: state.now[i], min: -3, max: 3, step: 0.1,
          axis: "y", from: y(-3), to: y(3), body: Kit.circle({ cx: x, cy: y(state.now[i]), r: 7, class: "f-blue" }) }));
    }
    const right = exact(state.now), found = written(state.way, state.now, old);
    const most = Math.max(0.05, ...right.gradient.map(Math.abs), ...found.gradient.map(Math.abs));
    const g = Kit.scale([-most, most], [412, 272]);
    parts.push(word(2, 252, narrow ? "期望梯度：柱是真的" : `KL 的期望梯度：柱是真的，记号是 ${NAMES[state.way]}`, { class: "muted" }),
      Kit.line({ x1: left, x2: width - 10, y1: g(0), y2: g(0), class: "s-soft" }));
    for (let i = 0; i < 5; i++) {
      const x = left + step * (i + 0.5), half = Math.min(26, step / 3), a = g(right.gradient[i]), b = g(found.gradient[i]);
      parts.push(Kit.rect({ x: x - half, y: Math.min(a, g(0)), width: 2 * half, height: Math.max(1, Math.abs(a - g(0))), class: "f-grey faint" }),
        Kit.line({ x1: x - half, x2: x + half, y1: a, y2: a, class: "s-ink thick" }));
      parts.push(state.way === "unbiased" ? Kit.circle({ cx: x, cy: b, r: 6, class: "f-blue" })
        : Kit.path({ d: `M${x - 6} ${b - 6}l12 12m0 -12l-12 12`, class: `thick s-${COLOURS[state.way]}` }));
    }
    const words = `真的 KL ${Kit.fix(right.value, 3)}，${NAMES[state.way]} 的平均 ${Kit.fix(found.value, 3)}`;
    parts.push(word(2, 436, words, { class: "bold" }), word(2, 458, `梯度的相对误差 ${Kit.percent(error(state))}`, { class: "bold" }));
    return Kit.svg(width, 470, "三个策略与 KL 的期望梯度", parts.join(""));
  }

  function drawMask(state, width) {
    const narrow = width < 520, left = narrow ? 84 : 100, right = width - 40, row = 34, top = 60;
    const x = Kit.scale([-0.5, 1.5], [left, right]), keep = keeps(state.drift, state.delta, state.wrong), a = advantages();
    const bottom = top + 8 * row, parts = [word(2, 12, narrow ? "平均的 log(采样时/现在)，拖点" : "一份回答平均的 log(采样时/现在)：往右是离得远，拖圆点", { class: "muted" })];
    for (const tick of [-0.5, 0, 0.5, 1, 1.5])
      parts.push(Kit.line({ x1: x(tick), x2: x(tick), y1: top - 8, y2: bottom, class: "s-soft" }),
        word(x(tick), bottom + 16, Kit.fix(tick, 1), { anchor: "middle", class: "muted" }));
    parts.push(Kit.line({ x1: x(state.delta), x2: x(state.delta), y1: top - 12, y2: bottom, class: "s-ink thick dash" }),
      word(x(state.delta), top - 20, `δ = ${Kit.fix(state.delta, 2)}`, { anchor: "middle", class: "bold" }));
    for (let i = 0; i < 8; i++) {
      const y = top + row * i + row / 2, good = a[i] > 0, colour = good ? "blue" : "red", at = x(state.drift[i]);
      parts.push(word(2, y, `${good ? "对" : "错"} ${signed(a[i])}`, { class: `t-${colour}` }),
        Kit.line({ x1: x(0), x2: at, y1: y, y2: y, class: `s-${colour}${keep[i] ? " thick" : " dash"}` }),
        word(right + 8, y, keep[i] ? "留" : "丢", { class: keep[i] ? "muted" : "bold" }));
      if (state.wrong === "trap2") parts.push(Kit.circle({ cx: x(Math.max(-0.5, state.drift[i] - ENGINE)), cy: y, r: 4, class: "f-none s-ink" }));
      parts.push(Kit.handle({ name: `drift.${i}`, label: `第 ${i + 1} 份离得多远`, x: at, y, value: state.drift[i], min: -0.5, max: 1.5, step: 0.05,
        axis: "x", from: left, to: right,
        body: Kit.circle({ cx: at, cy: y, r: 7, class: keep[i] ? `f-${colour}` : `f-ground s-${colour} thick` }) }));
    }
    return Kit.svg(width, bottom + 30, "八份回答的序列掩码", parts.join(""));
  }

  const draw = (state, data, width) => (state.view === "kl" ? drawKl : drawMask)(state, width);

  function say(state) {
    if (state.view === "mask") {
      const keep = keeps(state.drift, state.delta, state.wrong), correct = keeps(state.drift, state.delta, "none");
      const gone = keep.filter((one) => !one).length, differ = keep.filter((one, i) => one !== correct[i]).length;
      if (state.wrong === "trap3") return `不看优势，丢了 ${gone} 份，其中 <b>${differ} 份是好的</b>：好回答离得再远也值得学。`;
      if (state.wrong === "trap2") return `训练器重算旧概率，空心圆是它看到的：<b>有 ${differ} 份该丢没有丢</b>，引擎造成的差别它看不见。`;
      return `丢了 ${gone} 份，都是错的而且超过 δ；<b>好的一份不丢</b>，丢掉的也照付 KL。`;
    }
    const far = error(state), fresh = state.stale === 0 ? "样本新鲜，值是对的；" : "";
    if (far < 1e-9) return state.way === "unbiased" ? `记号全在柱顶：<b>样本来自哪里都不要紧</b>，值与梯度都没有偏差。`
      : `策略与参考正好相同，梯度处处是零，哪种写法都对。`;
    if (state.way === "k3") return `${fresh}k₃ 的梯度<b>偏了 ${Kit.percent(far)}</b>：${state.stale === 0
      ? "它是反方向的散度的梯度。" : "方向是反的散度，权重又是旧策略的。"}`;
    return `${fresh}值总是对的，梯度却<b>偏了 ${Kit.percent(far)}</b>：比率的值不变，导数丢了，与样本多旧无关。`;
  }

  const is = (view) => (state) => state.view === view;
  return {
    softmax, sampler, exact, written, error, advantages, keeps,
    REF, DRIFT, ENGINE,
    name: "offpolicy",
    title: "样本不是自己写的",
    state: { view: "kl", way: "k3", stale: 1, now: [1.5, 0, 0.4, -0.6, -0.2], wrong: "none", delta: 0.5,
      drift: [1.1, 0.2, 0.9, 0.1, -0.2, 0.7, 1.2, 0.35] },
    range: { now: [-3, 3], drift: [-0.5, 1.5] },
    controls: [
      { kind: "tabs", name: "view", label: "看什么", options: [["kl", "KL 的梯度"], ["mask", "序列掩码"]] },
      { kind: "choice", name: "way", label: "写法", when: is("kl"), options: [["k3", "k₃"], ["unbiased", "式 7"], ["detached", "常见错误 1"]] },
      { kind: "slider", name: "stale", label: "样本有多旧", when: is("kl"), min: 0, max: 1.5, step: 0.1, show: (v) => Kit.fix(v, 1) },
      { kind: "choice", name: "wrong", label: "写法", when: is("mask"), options: [["none", "正确"], ["trap2", "常见错误 2"], ["trap3", "常见错误 3"]] },
      { kind: "slider", name: "delta", label: "门槛 δ", when: is("mask"), min: 0, max: 1.5, step: 0.05, show: (v) => Kit.fix(v, 2) },
    ],
    presets: [
      { label: "k₃", state: {} },
      { label: "样本新鲜", state: { stale: 0 } },
      { label: "式 7", state: { way: "unbiased" } },
      { label: "常见错误 1", state: { way: "detached" } },
      { label: "序列掩码", state: { view: "mask" } },
      { label: "常见错误 3", state: { view: "mask", wrong: "trap3" } },
    ],
    draw, say,
    goals: [
      { ask: "留在 k₃，只动一个滑块，让它的值变对。梯度呢？",
        reached: (state) => state.view === "kl" && state.way === "k3" && state.stale === 0 && error(state) > 0.02,
        reply: "样本新鲜，值就对了；梯度仍是反方向的散度的。这个毛病不是旧样本带来的。" },
      { ask: "留在 k₃，拖动蓝点，让它的梯度误差小于一成。",
        reached: (state) => state.view === "kl" && state.way === "k3" && error(state) < 0.1,
        reply: "让样本新鲜，再让策略靠近参考：两个方向的散度在那里二阶相同。离得远了，才分得出写法。" },
      { ask: "在“序列掩码”里用正确的写法，让所有错的都被丢掉，对的一份不丢。",
        reached: (state) => state.view === "mask" && state.wrong === "none" && keeps(state.drift, state.delta, "none").filter((one) => !one).length === 5,
        reply: "错的都拖过 δ 就行；对的怎样拖也丢不掉。变得更可能的错回答（左边）不会被丢，它正该罚。" },
    ],
  };
})();
Kit.add(OffpolicyLab);
