"""The directive {scoreboard} of the site, on a record of two seeds."""

import json
import re
import sys
import warnings
from io import StringIO
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[3]
CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "website" / "extensions")!r})
extensions = ["myst_nb", "dsbook.scoreboard"]
nb_execution_mode = "off"
"""
PAGES = {
    "book/start/model", "book/model/moe", "book/model/balance", "book/model/mla", "book/model/mtp",
    "book/training/fp8", "book/training/dualpipe", "book/rl/grpo",
}  # fmt: skip


def runs() -> list[dict]:
    """Two seeds of every row; the loss of the experts overlaps, that after RL does not."""
    sizes = {
        "dense": (1_629_056, 4096),
        "experts": (2_516_840, 4096),
        "bias": (2_516_840, 4096),
        "mla": (2_500_000, 1024),
        "mtp": (3_038_960, 1280),
        "fp8": (3_038_960, 1280),
        "rl": (3_038_960, 1280),
    }
    losses = {"dense": [6.0, 6.2], "experts": [6.1, 6.3], "rl": [6.8, 6.9]}
    found = [
        {
            "variant": name,
            "seed": seed,
            "parameters": parameters,
            "active_parameters": 1_241_088 + 3096 * (name != "dense"),
            "cache_bytes": cache,
            "multiply_adds": 1_253_248,
            "loss": losses.get(name, [6.0, 6.0])[seed],
            "max_vio": None if name == "dense" else [0.5, 0.7][seed],
            "tokens_per_pass": 1.0,
            "tokens_per_second": [100.2, 100.4][seed],
            "verse": {"rules": [0.031, 0.05][seed]},
        }
        for name, (parameters, cache) in sizes.items()
        for seed in (0, 1)
    ]
    found += [
        {
            "variant": "processes",
            "seed": seed,
            "steps_alike": [40, 30][seed],
            "differences": [[2e-7] * 40, [4.8e-7] * 30 + [0.012] * 10][seed],
            "idle": 0.25,
            "training_tokens_per_second": 4000,
            "one_process_tokens_per_second": 2500,
        }
        for seed in (0, 1)
    ]
    return found


def build(root: Path, page: str, rows: list[dict] | None) -> str:
    """Build a site of one page and of those that a row links to; returns the warnings."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    record = {"seeds": [0, 1], "settings": {"steps": 600, "pipeline_steps": 40}, "runs": rows}
    if rows is not None:
        (root / "book/data/runs").mkdir(parents=True)
        (root / "book/data/runs/scoreboard.json").write_text(json.dumps(record), "utf8")
    (root / "conf.py").write_text(CONF, "utf8")
    (root / "index.md").write_text(f"---\norphan: true\n---\n{page}", "utf8")
    for name in PAGES:
        path = root / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("---\norphan: true\n---\n# 页\n", "utf8")
    problems = StringIO()
    path = list(sys.path)
    # the namespace: what one application registers with docutils is not left to the next
    with warnings.catch_warnings(), docutils_namespace():
        warnings.simplefilter("ignore")  # Sphinx's and docutils' own deprecations are not ours
        out = root / "build"
        app = Sphinx(
            root, root, out / "html", out / "doctrees", "html", status=None, warning=problems
        )
        app.build(force_all=True)
    sys.path[:] = path
    said = re.sub(r"\x1b\[[\d;]*m", "", problems.getvalue())
    # an application built earlier in this process, by another test, may have left its nodes
    return "".join(x for x in said.splitlines(keepends=True) if "is already registered" not in x)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    root = tmp_path_factory.mktemp("good")
    page = (
        "# 页\n\n```{scoreboard} mla\n```\n\n```{scoreboard}\n```\n\n```{scoreboard} dense\n```\n"
    )
    assert build(root, page, runs()) == ""
    html = (root / "build/html/index.html").read_text("utf8")
    return BeautifulSoup(html, "html.parser").select("table.scoreboard")


def cells(row):
    """Of each cell what is large, then what is small."""
    found = []
    for cell in row.select("td"):
        small = [part.extract().get_text() for part in cell.select("span.worse, span.spread")]
        found.append([cell.get_text(strip=True), *small])
    return found


def test_rows_up_to_the_one_that_is_lit(tables):
    up_to, whole, first = tables
    assert [r.select_one("td a").get_text() for r in up_to.select("tbody tr")] == [
        "稠密模型", "＋专家", "＋偏置", "＋MLA",
    ]  # fmt: skip
    lit = ["lit" in r.get("class", []) for r in up_to.select("tbody tr")]
    assert lit == [False, False, False, True]
    assert len(whole.select("tbody tr")) == 8
    assert not whole.select("tr.lit")
    assert len(first.select("tbody tr")) == 1


def test_a_row_leads_to_its_section(tables):
    links = [a["href"] for a in tables[1].select("td a")]
    assert {re.sub(r"\.html.*", "", link) for link in links} == PAGES


def test_cells_are_means_with_spread_and_say_what_is_worse(tables):
    rows = [cells(row) for row in tables[1].select("tbody tr")]
    dense, experts, _, mla, mtp, _, _, rl = rows
    assert dense[1:7] == [
        ["163 万"], ["124 万"], ["4,096"], ["125 万"], ["6.10", "6.00–6.20"], ["—"],
    ]  # fmt: skip
    assert dense[7:] == [["1.00"], ["100"], ["4.0%", "3.1%–5.0%"]]
    assert experts[1] == ["252 万", "▾"]
    assert experts[2] == ["124 万"]  # too little more to be seen
    assert experts[5] == ["6.20", "6.10–6.30"]  # the seeds overlap
    assert mla[3] == ["1,024"]
    assert mtp[3] == ["1,280", "▾"]
    assert rl[5] == ["6.85", "▾", "6.80–6.90"]


def test_four_processes_have_the_sizes_of_their_model_and_a_sentence(tables):
    _, whole, first = tables
    processes = cells(whole.select("tbody tr")[6])
    assert processes[1] == ["250 万"]
    assert processes[5:] == [["—"]] * 5
    said = whole.caption.get_text()
    assert "2 个种子" in said
    assert "40 步，每秒读 4,000 个 token，一个进程 2,500 个，四个进程平均有 25% 的时间空闲" in said
    assert "前 30 步每个 token 选的专家都与一个进程的相同，损失与一个进程至多相差 5×10⁻⁷" in said
    assert "此后至多相差 2×10⁻²。" in said
    assert "四个进程" not in first.caption.get_text()


def test_four_processes_that_never_part_are_not_said_to(tmp_path):
    rows = runs()
    for run in rows[-2:]:
        run |= {"steps_alike": 40, "differences": [4.8e-7] * 40}
    assert build(tmp_path, "# 页\n\n```{scoreboard}\n```\n", rows) == ""
    html = (tmp_path / "build/html/index.html").read_text("utf8")
    said = BeautifulSoup(html, "html.parser").caption.get_text()
    assert said.endswith("时间空闲。损失与一个进程至多相差 5×10⁻⁷。¶")


@pytest.mark.parametrize(
    ("markup", "rows", "says"),
    [
        ("```{scoreboard} moe\n```", runs(), "scoreboard has the rows dense, experts"),
        ("```{scoreboard} bias\n```", runs()[:4], "has no runs of bias"),
        ("```{scoreboard}\n```", None, "no file book/data/runs/scoreboard.json"),
    ],
)
def test_what_is_not_there_is_a_warning(tmp_path, markup, rows, says):
    assert says in build(tmp_path, f"# 页\n\n{markup}\n", rows)
