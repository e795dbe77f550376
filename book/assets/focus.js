// A formula wider than the page scrolls in its box; the keyboard must reach the box to scroll it.
{
  const reach = () => {
    for (const box of document.querySelectorAll("div.math > .katex-display")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  window.addEventListener("load", reach);
  window.addEventListener("resize", reach);
}
