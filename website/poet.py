"""Record what the figure 让它写诗 says before its weights are loaded, from the weights themselves.

    python website/poet.py

Reads the scripts ``website/assets/labs/poet/weights-*.js`` (dsnotes.weights.script), lets the
figure's own code write the poem it opens with, and writes ``dsbook/labs/poet.json``. To be run
again whenever the weights change.
"""

import hashlib
import json
import sys
from pathlib import Path

from py_mini_racer import MiniRacer

ROOT = Path(__file__).parent
LABS = ROOT / "assets" / "labs"
ORDER = ("weights-before", "weights-after")  # the last one writes when no two are compared
sys.path.insert(0, str(ROOT / "extensions"))

from dsbook.labs import poet  # noqa: E402


def main() -> None:
    racer = MiniRacer()
    for script in ("kit", *poet.SCRIPTS, "poet"):
        racer.eval((LABS / f"{script}.js").read_text("utf8"))

    def ask(expression: str):
        return json.loads(racer.eval(f"JSON.stringify({expression})"))

    models = []
    for file in (LABS / "poet" / f"{name}.js" for name in ORDER):
        if not file.is_file():
            continue
        racer.eval(file.read_text("utf8"))
        names = ask("Object.keys(DeepSeek.received)")
        header = ask(f"{{ ...DeepSeek.received[{json.dumps(names[-1])}], model: undefined }}")
        models.append(
            {
                "name": names[-1],
                "label": header["label"],
                "file": file.name,
                "version": hashlib.sha256(file.read_bytes()).hexdigest()[:8],
                "bytes": file.stat().st_size,
            }
        )
    if not models:
        sys.exit(f"{LABS / 'poet'} holds none of {', '.join(ORDER)}: write them first")
    config = header["config"]
    record = {
        "models": models,
        "forms": {k: {p: v[p] for p in ("lines", "length")} for k, v in header["forms"].items()},
        "rhymes": list(header["rhymes"]),
        "title": header["title"],
        "first": config["first_k_dense_replace"] + 1,  # of the layers with experts, from 1
        "config": {k: v for k, v in config.items() if isinstance(v, int)},
        "characters": "".join(c for c in header["symbols"] if len(c) == 1 and c not in "，。"),
        "samples": {},
    }
    poet.RECORD.write_text(json.dumps(record, ensure_ascii=False), "utf8")
    given = json.dumps(poet.data(), ensure_ascii=False)
    for model in models:
        found = ask(f"PoetLab.poem(PoetLab.state, {given}, {json.dumps(model['name'])})")
        record["samples"][model["name"]] = [
            [cell["c"], cell["by"], cell["refused"], cell["step"], rounded(cell["routing"])]
            for cell in found["cells"]
        ]
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    poet.RECORD.write_text(text + "\n", "utf8")


def rounded(routing):
    """[expert, gate value] of every layer, to two decimals; None for what was not read."""
    return routing and [[[e, round(g, 2)] for e, g in layer] for layer in routing]


if __name__ == "__main__":
    main()
