"""The data of 看它学会思考: the record of ``experiments/thinking.py``, marked by the rules.

Curves are of all seeds; texts are of the first one. ``marks`` holds a digit for each answer: 1 when
it is right, and 2 more when it keeps to the template. ``chinese_share`` is what the language rule
gives each answer, where it is part of the reward.
"""

import json
from pathlib import Path
from typing import Any

from dsnotes.rl import shellgame
from dsnotes.rl.reward import accuracy_reward, format_reward, language_reward

ROOT = Path(__file__).parents[4]
RECORD = ROOT / "book" / "data" / "runs" / "thinking.json"
CURVES = ("accuracy", "length", "chinese")


def data() -> dict[str, Any]:
    """Problems, the curves of every variant and the answers after every step."""
    import torch

    record = json.loads(RECORD.read_text("utf8"))
    settings, runs = record["settings"], record["runs"]
    given = shellgame.read(torch.tensor([shellgame.encode(text) for text in settings["problems"]]))
    problems = [
        {"start": text.split()[0], "swaps": text.split()[1:-1], "path": path}
        for text, path in zip(settings["problems"], given.path.tolist(), strict=True)
    ]
    alphabet, right = settings["alphabet"], given.answers
    variants = {}
    for name, first in runs[0]["variants"].items():
        found = {curve: [run["variants"][name][curve] for run in runs] for curve in CURVES}
        found["texts"] = [[" ".join(answers) for answers in step] for step in first["texts"]]
        written = [
            [[decoded(one, alphabet) for one in answers] for answers in step]
            for step in first["texts"]
        ]
        found["marks"] = [list(map(marks, step, right)) for step in written]
        if name == "language":
            found["chinese_share"] = [list(map(chinese_share, step)) for step in written]
        variants[name] = found
    return {
        "alphabet": alphabet,
        "symbols": list(shellgame.SYMBOLS),
        "problems": problems,
        "variants": variants,
    }


def decoded(letters: str, alphabet: str) -> str:
    return shellgame.decode([alphabet.index(letter) for letter in letters])


def marks(texts: list[str], right: str) -> str:
    """A digit for each answer, by the two rules that the model was trained with."""
    pairs = zip(
        accuracy_reward(texts, answer=[right] * len(texts)), format_reward(texts), strict=True
    )
    return "".join(str(int(accuracy) + 2 * int(form)) for accuracy, form in pairs)


def chinese_share(texts: list[str]) -> list[float]:
    """As in the reward of ``language``: also of a text that keeps to no template."""
    return [round(share, 3) for share in language_reward(texts, language=["zh"] * len(texts))]
