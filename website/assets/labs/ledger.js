// How long a text may be before its keys and values fill a card: what the models from V1 to V4 keep of a text, the part
// that grows and the window that does not. Tested against dsnotes.after.ledger.
const LedgerLab = (() => {
  // --- the mathematics: bytes kept of each token over all layers, and bytes kept however short the text is ---
  const BF16 = 2, ENTRY = 584, INDEX = 68;
  const grouped = (layers, groups, width) => BF16 * 2 * layers * groups * width;
  const latent = (layers, width) => BF16 * layers * width;
  const sparse = (layers) => layers * (656 + 132);
  const compressed = (csa, hca) => csa * (ENTRY + INDEX) / 4 + hca * ENTRY / 128;

  const MODELS = [ // name, bytes a token, bytes of the window, colour
    ["V1 67B", grouped(95, 8, 128), 0, "grey"],
    ["V3", latent(61, 576), 0, "orange"],
    ["V3.2", sparse(61), 0, "green"],
    ["V4-Pro", compressed(30, 31), 61 * 128 * ENTRY, "blue"],
    ["V4-Flash", compressed(21, 20), 43 * 128 * ENTRY, "sky"],
  ];
  // A window is as full as the text is long.
  const kept = (tokens) => MODELS.map(([name, each, window]) => ({ name, grows: each * tokens,
    window: window * Math.min(1, tokens / 128) }));
  // The longest text whose keys and values fit.
  const fits = (bytes) => MODELS.map(([name, each, window]) => ({ name,
    tokens: Math.max(0, Math.floor((bytes - window) / each)) }));

  // --- the figure ---
  const bytes = (n) => n >= 1e9 ? `${Kit.num(n / 1e9)} GB` : n >= 1e6 ? `${Kit.num(n / 1e6)} MB` : `${Kit.num(n / 1e3)} KB`;
  const tokens = (n) => n >= 1e6 ? `${Kit.num(n / 1e6)} 百万` : n >= 1e4 ? `${Kit.num(n / 1e4)} 万` : Kit.int(n);
  const all = ({ grows, window }) => grows + window;

  function draw({ context, card }, data, width) {
    const rows = kept(context), narrow = width < 480, side = narrow ? 66 : 80, room = width - side - 78, row = 42, top = 34;
    const whole = card * 1e9, low = 1e5, x = Kit.log([low, 1e12], [side, side + room]), parts = [];
    for (const [tick, name] of [[1e6, "1 MB"], [1e9, "1 GB"], [1e12, "1 TB"]])
      parts.push(Kit.line({ x1: x(tick), x2: x(tick), y1: top - 8, y2: top + row * rows.length, class: "s-soft" }),
        Kit.text(x(tick), top - 18, name, { anchor: "middle", class: "muted" }));
    rows.forEach((model, i) => {
      const y = top + row * i, long = Math.max(2, x(Math.max(all(model), low)) - side), colour = MODELS[i][3];
      const split = model.window ? long * model.window / all(model) : 0; // a share of the bar, not of its logarithm
      parts.push(Kit.text(0, y + 15, model.name, { anchor: "start", class: "bold" }),
        Kit.rect({ x: side, y, width: long, height: 26, rx: 2, class: `f-${colour}` }),
        split > 1 ? Kit.rect({ x: side, y, width: split, height: 26, rx: 2, class: "f-purple" }) : "",
        Kit.text(side + long + 6, y + 14, bytes(all(model)), { anchor: "start", class: all(model) > whole ? "bold t-red" : "" }));
    });
    const end = top + row * rows.length;
    parts.push(Kit.line({ x1: x(whole), x2: x(whole), y1: top - 8, y2: end + 4, class: "dash thick" }),
      Kit.text(x(whole), end + 18, `一张卡 ${card} GB`, { anchor: "end" }),
      Kit.rect({ x: side, y: end + 12, width: 12, height: 12, rx: 2, class: "f-purple" }),
      Kit.text(side + 18, end + 18, "窗口所占的份", { anchor: "start" }));
    return Kit.svg(width, end + 34, "一段文本留下多少字节", parts.join(""));
  }

  function say({ context, card }) {
    const rows = kept(context), flash = rows[4], v3 = rows[1], longest = fits(card * 1e9)[4].tokens;
    if (flash.window >= flash.grows) return `${tokens(context)}个 token 还太短：V4-Flash 存的<b>大半是窗口</b>，` +
      `只省到 V3 的 1/${Kit.num(all(v3) / all(flash))}；窗口不随文本变长，文本再长些才显出压缩的好处。`;
    return `${tokens(context)}个 token，V4-Flash 存 ${bytes(all(flash))}，V3 存 ${bytes(all(v3))}，是它的 ` +
      `<b>${Kit.num(all(v3) / all(flash))} 倍</b>；一张 ${card} GB 的卡，V4-Flash 装得下 ${tokens(longest)}个 token。`;
  }

  return {
    kept, fits, MODELS,
    name: "ledger", title: "一段文本留下多少",
    state: { context: 131072, card: 80 },
    controls: [
      { kind: "slider", name: "context", label: "上下文", min: 128, max: 1048576, step: 1, log: true, show: (v) => `${tokens(v)}个 token` },
      { kind: "slider", name: "card", label: "一张卡", min: 8, max: 192, step: 1, show: (v) => `${v} GB` },
    ],
    presets: [
      { label: "一段话", state: { context: 512 } },
      { label: "一本书", state: {} },
      { label: "一百万", state: { context: 1048576 } },
    ],
    draw, say,
    goals: [
      { ask: "上下文多长时，V4-Flash 的窗口和压缩的部分一样多？（差一成以内）",
        reached: ({ context }) => { const { grows, window } = kept(context)[4]; return Math.abs(grows / window - 1) < .1; },
        reply: "不到一千个 token。再短，压缩几乎不省；再长，窗口可以不计。" },
      { ask: "V3 的一段文本刚好装不进一张 24 GB 的卡，同样长的 V4-Pro 占多少？",
        reached: ({ context, card }) => { const v3 = all(kept(context)[1]); return card === 24 && v3 > 24e9 && v3 < 26e9; },
        reply: "V4-Pro 不到 2 GB：每个 token 少存了十几倍。装不下的是权重，缓存反而不是难处了。" },
    ],
  };
})();
Kit.add(LedgerLab);
