// Live code on notebook pages, when the book is served by `make live` (website/live.py). The address it
// prints carries the port and the token of its Jupyter server behind the "#"; they are kept for this tab.
{
  const given = location.hash.match(/^#live=(\d+):([\w-]+)$/);
  if (given) {
    sessionStorage.setItem("live", JSON.stringify({ port: given[1], token: given[2] }));
    history.replaceState(null, "", location.pathname + location.search);
  }
  const server = JSON.parse(sessionStorage.getItem("live") || "null");
  const inputs = document.querySelectorAll("div.cell_input pre");

  const say = (text) => {
    status.textContent = text;
  };

  const load = (tag, attributes) =>
    new Promise((resolve, reject) => {
      const element = Object.assign(document.createElement(tag), attributes);
      element.onload = resolve;
      element.onerror = () => reject(new Error(element.src || element.href));
      document.head.append(element);
    });

  const base = `http://127.0.0.1:${server?.port}/`;

  // whether anybody is there to run the code; says so when not
  const answers = async () => {
    try {
      const answer = await fetch(`${base}api/status`, {
        headers: { Authorization: `token ${server.token}` },
      });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      return true;
    } catch (error) {
      button.hidden = true;
      say(`运行代码的服务没有应答（${error.message}）。它可能已经结束，请重新运行 make live。`);
      return false;
    }
  };

  const start = async () => {
    button.disabled = true;
    say("正在启动内核……");
    if (!(await answers())) return;
    await load("link", { rel: "stylesheet", href: "/live/thebe.css" });
    await load("script", { src: "/live/index.js" });
    for (const pre of inputs) {
      pre.parentElement.querySelector("button.copybtn")?.remove();
      pre.setAttribute("data-executable", "true");
      const output = pre.closest("div.cell")?.querySelector("div.cell_output");
      if (output) {
        output.setAttribute("data-output", "true");
        pre.after(output);
      }
    }
    // requests of the library for widgets would leave this machine; the book uses none
    const { session } = await window.thebe.bootstrap({
      requestKernel: true,
      useBinder: false,
      useJupyterLite: false,
      mathjaxUrl: "",
      mathjaxConfig: "",
      selector: "[data-executable]",
      outputSelector: "[data-output]",
      predefinedOutput: true,
      codeMirrorConfig: { mode: "python" },
      kernelOptions: { kernelName: "python3", path: "." },
      serverSettings: {
        baseUrl: base,
        wsUrl: base.replace(/^http/, "ws"),
        token: server.token,
        appendToken: true,
      },
    });
    button.hidden = true;
    say("本页的代码可以修改并运行；各格共用一个会话，改动不会保存。");
    window.addEventListener("pagehide", () => session?.shutdown?.());
  };

  const bar = document.createElement("p");
  const button = Object.assign(document.createElement("button"), {
    type: "button",
    className: "live-start",
    textContent: "在页内编辑并运行",
  });
  const status = document.createElement("span");
  status.setAttribute("role", "status");
  // a page that is only read has no button that could not work
  if (inputs.length && server) {
    bar.className = "live-bar";
    button.hidden = true;
    bar.append(button, status);
    document.querySelector("main article h1")?.after(bar);
    button.addEventListener("click", start);
    answers().then((there) => {
      button.hidden = !there;
    });
  }
}
