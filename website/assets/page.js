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
    else {
      start(); // what was not laid out had no width
      document.documentElement.dataset.settled = "true";
    }
  };
  const settleAll = () => {
    for (const box of late.splice(0)) box.style.contentVisibility = "visible";
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
