"""Lighthouse (mobile, simulated throttling) over one page of every kind, on the built book.

    python website/lighthouse.py [--runs 3] [--only NAME ...] [--json FILE]    (make lighthouse)

Serves _build/html on the loopback address, compressed as real servers do, and prints the four
scores of every kind of page: the median of the runs. Ends with 1 if a score is below its limit.
Needs Chromium and Node (npx fetches Lighthouse, pinned below, the first time).

The simulation slows the processor down by a fixed factor, so a busy or slow machine lowers the
performance: the load and Lighthouse's own benchmark of the machine are printed with the scores
(above 1500: a recent desktop; below 750 Lighthouse itself warns).
"""

import argparse
import functools
import gzip
import http.server
import json
import os
import statistics
import subprocess
import sys
import threading
from pathlib import Path

import serve

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
LIGHTHOUSE = "lighthouse@13.5.0"
LIMITS = {"performance": 95, "accessibility": 100, "best-practices": 100, "seo": 100}
METRICS = {"FCP": "first-contentful-paint", "LCP": "largest-contentful-paint",
           "TBT": "total-blocking-time", "CLS": "cumulative-layout-shift"}  # fmt: skip
PAGES = {  # the longest of each kind
    "title page": "book/index.html",
    "map of the papers": "book/papers.html",
    "opening of a part": "book/model/index.html",
    "section": "book/rl/grpo.html",
    "section, interactive": "book/training/dualpipe.html",
    "results": "book/results/r1.html",
    "notebook": "notebooks/grpo.html",
    "appendix, table": "book/appendix/ambiguities.html",
    "appendix, formulas": "book/appendix/notation.html",
    "search": "search.html?q=负载均衡",
    "source code": "source/dsnotes/model.html",
}
TEXT = {".html", ".css", ".js", ".svg", ".json", ".csv", ".txt"}


@functools.cache
def compressed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes())


class Handler(http.server.SimpleHTTPRequestHandler):
    """Text goes out gzipped; all but the pages may be kept by the browser."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.suffix not in TEXT or not path.is_file():
            super().do_GET()
            return
        body = compressed(path)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path) + "; charset=utf-8")
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        if not self.path.split("?")[0].endswith((".html", "/")):
            self.send_header("Cache-Control", "public, max-age=31536000, immutable")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


def measure(url: str) -> dict:
    """One run of Lighthouse: its whole report."""
    command = ["npx", "--yes", LIGHTHOUSE, url, "--quiet", "--output=json",
               "--no-enable-error-reporting",
               "--chrome-flags=--headless=new --no-sandbox --disable-gpu"]  # fmt: skip
    environment = {"CHROME_PATH": serve.find_chromium()} | os.environ
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"Lighthouse failed on {url}:\n{done.stderr}")
    report = json.loads(done.stdout)
    if error := report.get("runtimeError"):
        sys.exit(f"Lighthouse could not load {url}: {error['message']}")
    return report


def summary(reports: list[dict]) -> dict[str, float]:
    """Medians: the scores (0 to 100), the metrics (ms), the benchmark of the machine."""
    rows = [
        {name: round(100 * r["categories"][name]["score"]) for name in LIMITS}
        | {name: r["audits"][audit]["numericValue"] for name, audit in METRICS.items()}
        | {"benchmark": r["environment"]["benchmarkIndex"]}
        for r in reports
    ]
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def failed_audits(report: dict) -> list[str]:
    """What costs points in the three categories that must be full."""
    return [
        f"{audit['id']}: {audit['title']}"
        for name in list(LIMITS)[1:]
        for ref in report["categories"][name]["auditRefs"]
        if ref["weight"] and (audit := report["audits"][ref["id"]])["score"] not in (1, None)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="of each page (default 3)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="kinds of pages, e.g. search")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the last reports here")
    arguments = parser.parse_args()
    if not (HTML / "index.html").is_file():
        sys.exit("there is no book in _build/html: run `make book` first")
    pages = {k: p for k, p in PAGES.items() if not arguments.only or k in arguments.only}
    if unknown := set(arguments.only or ()) - set(PAGES):
        parser.error(f"no such kind of page: {', '.join(unknown)}; there are {', '.join(PAGES)}")

    print(f"{LIGHTHOUSE}, mobile, median of {arguments.runs}; load {os.getloadavg()[0]:.2f}")
    print(f"{'page':24}{'perf':>5}{'a11y':>5}{'best':>5}{'SEO':>5}{'FCP':>7}{'LCP':>7}{'TBT':>6}"
          f"{'CLS':>7}{'benchmark':>11}")  # fmt: skip
    handler = functools.partial(Handler, directory=HTML)
    low, kept = [], {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for kind, page in pages.items():
            url = f"http://127.0.0.1:{server.server_port}/{page}"
            reports = [measure(url) for _ in range(arguments.runs)]
            row, kept[kind] = summary(reports), reports[-1]
            print(f"{kind:24}" + "".join(f"{row[name]:5.0f}" for name in LIMITS)
                  + f"{row['FCP']:7.0f}{row['LCP']:7.0f}{row['TBT']:6.0f}{row['CLS']:7.3f}"
                  f"{row['benchmark']:11.0f}", flush=True)  # fmt: skip
            if any(row[name] < limit for name, limit in LIMITS.items()):
                low.append(kind)
                for line in failed_audits(reports[-1]):
                    print(f"    {line}")
        server.shutdown()
    print(f"load {os.getloadavg()[0]:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(kept))
    if low:
        limits = ", ".join(f"{name} {limit}" for name, limit in LIMITS.items())
        sys.exit(f"below the limits ({limits}): {', '.join(low)}")


if __name__ == "__main__":
    main()
