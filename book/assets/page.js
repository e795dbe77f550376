// Three things the theme's scripts do by laying out the whole page at once, which keeps a phone busy for
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
  if (document.readyState === "complete") start();
  else addEventListener("load", start);
  addEventListener("resize", start);
}
