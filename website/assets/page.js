// Three things that the theme's scripts do by laying out the whole page at once, which keeps a phone busy for
// seconds, done without that: menus that close (Bootstrap), the button back to the top (Bootstrap), and
// boxes the keyboard can scroll (pydata-sphinx-theme; bundle.py takes its way of doing it out).
{
  const closeMenus = (event) => {
    for (const menu of document.querySelectorAll("details.dropdown[open]")) {
      if (event.key === "Escape" || !(event.key || menu.contains(event.target))) menu.open = false;
    }
  };
  document.addEventListener("click", closeMenus);
  document.addEventListener("keydown", closeMenus);

  const top = document.getElementById("pst-back-to-top");
  let last = 0;
  top?.addEventListener("click", () => window.scrollTo(0, 0));
  const showTop = () => {
    top.style.display = scrollY > 0 && scrollY < last ? "block" : "none";
    last = scrollY;
  };
  if (top) addEventListener("scroll", showTop, { passive: true });

  // Only what is wider or higher than its box becomes a stop of the tab key; a few boxes at a time.
  const later = window.requestIdleCallback ?? ((f) => setTimeout(f, 1, { timeRemaining: () => 5 }));
  let waiting = [];
  const check = (deadline) => {
    do {
      const box = waiting.pop();
      if (!box) return;
      const formula = box.matches(".katex-display"); // cut off above and below on purpose
      const scrolls =
        box.scrollWidth > box.clientWidth || (!formula && box.scrollHeight > box.clientHeight);
      if (scrolls) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    } while (deadline.timeRemaining() > 4);
    later(check);
  };
  const start = () => {
    const idle = !waiting.length;
    waiting = [
      ...document.querySelectorAll(
        "article pre, .cell_output > .output, .pst-scrollable-table-container, .katex-display"
      ),
    ].reverse();
    if (idle) later(check);
  };
  addEventListener("resize", start);
  // what was folded had no width: looked at again when it is unfolded
  document.addEventListener("toggle", () => setTimeout(start), true);
  document.addEventListener("click", (event) => {
    if (event.target.closest(".toggle-button, .admonition-title")) setTimeout(start);
  });

  // What the style sheet leaves for later (content-visibility) is laid out while nobody waits, and at once for the
  // End key: a page that grows as one reads has a scroll bar that lies, and an end that is not there.
  const LATE = "article > section > section ~ section ~ section > *, article > section > section ~ section ~ section section > *";
  let late = [];
  const settle = (deadline) => {
    const begin = performance.now();
    while (late.length && deadline.timeRemaining() > 4 && performance.now() - begin < 20) {
      const box = late.shift();
      box.style.contentVisibility = "visible";
      box.getBoundingClientRect(); // laid out now, or the time spent would not be seen
    }
    if (late.length) later(settle);
    else settled();
  };
  const settled = () => {
    start(); // what was not laid out had no width
    document.documentElement.dataset.settled = "true";
  };
  const settleAll = () => {
    for (const box of late.splice(0)) box.style.contentVisibility = "visible";
    settled(); // now, before the browser looks where the end is
  };
  addEventListener("keydown", (event) => event.key === "End" && settleAll());

  // The contents of the page say where one is, also on arriving at a place that is no heading.
  const mark = () => {
    const links = [...document.querySelectorAll("#pst-page-toc-nav a[href^='#']")];
    if (!links.length || links.some((a) => a.classList.contains("active"))) return;
    const above = links.filter((a) => {
      const place = document.getElementById(decodeURIComponent(a.hash.slice(1)));
      return place && place.getBoundingClientRect().top < innerHeight * 0.3;
    });
    const here = above.at(-1);
    if (!here) return;
    here.classList.add("active");
    here.setAttribute("aria-current", "true");
    for (let item = here.parentElement; item; item = item.parentElement?.closest(".toc-entry")) item.classList.add("active");
  };

  // Who follows a link into what is folded sees it (folds.py); not all browsers do that by themselves.
  const unfold = (hash) => {
    const fold = hash && document.getElementById(decodeURIComponent(hash.slice(1)))?.closest("details");
    if (fold && !fold.open) fold.open = true;
  };
  unfold(location.hash);
  document.addEventListener("click", (event) => unfold(event.target.closest("a[href^='#']")?.hash));

  // On a phone the contents of the page lie over it: a choice made there closes them.
  document.addEventListener("click", (event) => {
    if (event.target.closest("a[href^='#']")) event.target.closest("dialog[open]")?.close();
  });

  const begin = () => {
    start();
    late = [...document.querySelectorAll(LATE)].filter((box) => getComputedStyle(box).contentVisibility === "auto");
    later(settle);
    if (location.hash) setTimeout(mark, 50);
  };
  if (document.readyState === "complete") begin();
  else addEventListener("load", begin);
}

// A guess before a result (predict.py): the result unfolds once something was typed or chosen, and says how far off it was.
{
  const number = (text) => {
    const found = text.replace(/−/g, "-").replace(/[,，\s]/g, "").match(/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?(%?)$/i);
    return found ? parseFloat(found[0]) / (found[3] ? 100 : 1) : NaN;
  };
  const shown = (value) => String(+value.toPrecision(4)).replace("-", "−");

  // what to say of a guess; nothing, when it is no number and a number was asked for
  const said = (guess, { answer, tolerance }, choices) => {
    if (!answer) return `你猜“${guess}”。`;
    if (choices) return guess === answer ? `你猜“${guess}”，猜对了。` : `你猜“${guess}”，答案是“${answer}”。`;
    const [mine, right] = [number(guess), number(answer)];
    if (Number.isNaN(mine)) return "";
    const off = mine - right;
    const near = Math.abs(off) <= tolerance * (Math.abs(right) || 1);
    const how = near ? "猜得很准" : off > 0 ? "猜高了" : "猜低了";
    return `你猜 ${shown(mine)}，答案是 ${shown(right)}：${how}。`;
  };

  for (const form of document.querySelectorAll(".predict-form")) {
    const result = form.parentElement.querySelector(".predict-result");
    const says = form.parentElement.querySelector(".predict-said");
    const key = `predict ${location.pathname}#${form.parentElement.id}`;
    const field = form.elements[0];
    const show = (guess) => {
      const text = said(guess, form.dataset, field.type === "radio");
      says.textContent = text || "请填一个数。";
      if (!text) return field.focus();
      result.open = true;
      form.parentElement.classList.add("answered");
      try { sessionStorage.setItem(key, guess); } catch { /* a page from a folder may not store */ }
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const guess = new FormData(form).get(field.name).trim();
      if (guess) show(guess);
    });
    let before = null;
    try { before = sessionStorage.getItem(key); } catch { /* as above */ }
    if (before) {
      if (field.type === "radio") [...form.elements].forEach((e) => { if (e.value === before) e.checked = true; });
      else field.value = before;
      show(before);
    }
  }
}

// Equation beside code (eqcode.py): what has the same colour lights up together.
for (const pair of document.querySelectorAll(".eqcode")) {
  const light = (event) => {
    const symbol = event.type === "mouseover" && event.target.closest?.(".sym");
    const colour = symbol && [...symbol.classList].find((name) => /^sym-/.test(name));
    for (const other of pair.querySelectorAll(".sym")) other.classList.toggle("on", Boolean(colour) && other.classList.contains(colour));
  };
  pair.addEventListener("mouseover", light);
  pair.addEventListener("mouseleave", light);
}

// Poems before and after (verses.py): written character by character, and a button for the next prompt.
for (const verses of document.querySelectorAll("figure.verses")) {
  const pairs = [...verses.querySelectorAll(".pair")];
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  for (const character of verses.querySelectorAll(".poem")) {
    const texts = [];
    for (const walk = document.createTreeWalker(character, NodeFilter.SHOW_TEXT); walk.nextNode();) texts.push(walk.currentNode);
    for (const text of texts) {
      text.replaceWith(...[...text.data].map((c) => Object.assign(document.createElement("span"), { textContent: c })));
    }
  }
  const write = (pair) => {
    for (const other of pairs) other.hidden = other !== pair;
    if (still.matches) return;
    for (const poem of pair.querySelectorAll(".poem")) {
      poem.querySelectorAll("span").forEach((character, i) => character.animate(
        [{ opacity: 0 }, { opacity: 1 }], { duration: 150, delay: 110 * i, fill: "backwards" }));
    }
  };
  const next = Object.assign(document.createElement("button"), { type: "button", textContent: "换一首" });
  let shown = 0;
  next.addEventListener("click", () => write(pairs[(shown = (shown + 1) % pairs.length)]));
  verses.querySelector("figcaption").append(next);
  verses.setAttribute("aria-live", "polite");
  write(pairs[0]);
}
