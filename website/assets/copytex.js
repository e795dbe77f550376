// A formula is copied as its TeX, once: $…$ in a line, $$…$$ by itself. KaTeX writes every formula twice (MathML for
// readers that speak, HTML for the eye) and a browser copies both in pieces; the TeX stands in the MathML.
{
  const TEX = 'annotation[encoding="application/x-tex"]';

  // a formula is taken whole, also where the selection begins or ends inside it
  const widened = (range) => {
    const formula = (node) => (node.closest ? node : node.parentElement)?.closest(".katex-display, .katex");
    const [first, last] = [formula(range.startContainer), formula(range.endContainer)];
    if (first) range.setStartBefore(first);
    if (last) range.setEndAfter(last);
    return range.cloneContents();
  };

  const written = (formula) => {
    const tex = formula.querySelector(TEX)?.textContent.trim() ?? "";
    return formula.matches(".katex-display") ? `$$${tex}$$` : `$${tex}$`;
  };

  document.addEventListener("copy", (event) => {
    const selection = getSelection();
    if (selection.isCollapsed || !event.clipboardData) return;
    const copied = document.createElement("div");
    for (let i = 0; i < selection.rangeCount; i++) copied.append(widened(selection.getRangeAt(i).cloneRange()));
    if (!copied.querySelector(TEX)) return; // the browser copies the rest as well as we could
    for (const formula of copied.querySelectorAll(".katex-display, :not(.katex-display) > .katex"))
      formula.replaceWith(written(formula));
    for (const line of copied.querySelectorAll(":is(td, th) > p:only-child")) line.replaceWith(...line.childNodes);
    copied.querySelectorAll("button, .headerlink, .eqno, .ink-dark, script").forEach((gone) => gone.remove());
    // what stands in a line and what in a row of a table, the browser knows only of what is on the page
    copied.className = "copied";
    document.querySelector("article").append(copied);
    const [text, html] = [copied.innerText, copied.innerHTML];
    copied.remove();
    event.clipboardData.setData("text/plain", text);
    event.clipboardData.setData("text/html", html);
    event.preventDefault();
  });
}
