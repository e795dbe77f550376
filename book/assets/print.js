// Paper is light: a page read in the dark theme is printed in the light one.
{
  const root = document.documentElement;
  let dark = false;
  window.addEventListener("beforeprint", () => {
    dark = root.dataset.theme === "dark";
    if (dark) root.dataset.theme = "light";
  });
  window.addEventListener("afterprint", () => {
    if (dark) root.dataset.theme = "dark";
  });
}
