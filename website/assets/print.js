// Paper is light: a page read in the dark theme is printed in the light one. It cannot unfold: what is folded is printed.
{
  const root = document.documentElement;
  let dark = false;
  let opened = [];
  window.addEventListener("beforeprint", () => {
    dark = root.dataset.theme === "dark";
    if (dark) root.dataset.theme = "light";
    opened = [...document.querySelectorAll("article details:not([open])")];
    for (const fold of opened) fold.open = true;
  });
  window.addEventListener("afterprint", () => {
    if (dark) root.dataset.theme = "dark";
    for (const fold of opened) fold.open = false;
  });
}
