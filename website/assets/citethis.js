// Fills in what a citation can only know when it is read: the day, and the address of the book.
{
  const now = new Date();
  const two = (n) => String(n).padStart(2, "0");
  const today = `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
  const root = document.documentElement.dataset.content_root;
  for (const box of document.querySelectorAll(".cite-this")) {
    const walk = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
    const id = [...box.classList].find((name) => name.startsWith("id-"))?.slice(3);
    // the address of this machine is of no use in a citation
    const own = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(location.hostname);
    const served = location.protocol.startsWith("http") && !own && root !== undefined && id;
    const address = served ? new URL(`${root}id/${id}.html`, location.href).href : null;
    while (walk.nextNode()) {
      const text = walk.currentNode;
      if (!text.parentElement.closest("pre")) continue;
      let value = text.data.replace("访问日期", today);
      if (address) value = value.replace("网址", address);
      if (value !== text.data) text.data = value;
    }
  }
}
