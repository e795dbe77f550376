// Slides and sheets (course.py): what is too large for its place is set smaller; keys turn the slides.
const fits = (box) => box.scrollHeight <= box.clientHeight + 1 && box.scrollWidth <= box.clientWidth + 1 &&
  [...box.querySelectorAll(".show")].every((e) => e.scrollHeight <= e.clientHeight + 1 && e.scrollWidth <= e.clientWidth + 1);
const fit = () => {
  for (const box of document.querySelectorAll("[data-fit]")) {
    const whole = parseFloat(getComputedStyle(box).fontSize);
    for (let part = 1; part > 0.5 && !fits(box); part -= 0.02) box.style.fontSize = `${whole * part}px`;
  }
  document.documentElement.dataset.fitted = "";
};
addEventListener("load", () => document.fonts.ready.then(fit));

const slides = [...document.querySelectorAll(".slides section")];
const scale = () => document.documentElement.style.setProperty("--zoom", Math.min(innerWidth / 960, innerHeight / 540));
addEventListener("resize", scale);
addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1 }[event.key];
  if (!slides.length || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "f" || event.key === "F") {
    if (document.fullscreenElement) document.exitFullscreen(); else document.documentElement.requestFullscreen();
  }
  if (!step) return;
  event.preventDefault();
  const tops = slides.map((e) => Math.abs(e.getBoundingClientRect().top));
  const now = tops.indexOf(Math.min(...tops));
  slides[Math.max(0, Math.min(slides.length - 1, now + step))].scrollIntoView();
});
