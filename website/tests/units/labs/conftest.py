"""The mathematics of an interactive figure, called from Python: JSON in and out."""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]
sys.path.insert(0, str(ROOT / "website" / "extensions"))

from dsbook import lab as directive  # noqa: E402

NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
PLAIN = "(key, value) => typeof value === 'number' && !Number.isFinite(value) ? `#${value}` : value"


def _back(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _back(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_back(item) for item in value]
    if isinstance(value, str) and value[:1] == "#":
        return NOT_FINITE.get(value[1:], value)
    return value


class LabCode:
    """The scripts of one figure. `spec` is a JavaScript expression for it."""

    def __init__(self, name: str) -> None:
        self.name, self.spec = name, f"Kit.figures[{json.dumps(name)}]"
        self.engine = directive.engine(name, os.getpid())

    @property
    def data(self) -> Any:
        return json.loads(directive.as_json(self.name))

    def eval(self, expression: str) -> Any:
        found = self.engine.eval(f"JSON.stringify({expression}, {PLAIN}) ?? 'null'")
        return _back(json.loads(found))

    def call(self, function: str, *arguments: Any) -> Any:
        """`call("SizeLab.total", config)`; NaN and infinities may go in and out."""
        return self.eval(f"{function}({', '.join(json.dumps(a) for a in arguments)})")

    def state(self, **fields: Any) -> dict:
        """The state it opens in, with some fields changed."""
        return self.eval(f"({{ ...Kit.start({self.spec}), ...{json.dumps(fields)} }})")

    def goal(self, index: int, state: dict) -> bool:
        """Whether a state reaches the goal of this number."""
        given = f"{json.dumps(state)}, {directive.as_json(self.name)}"
        return bool(self.eval(f"{self.spec}.goals[{index}].reached({given})"))

    def say(self, state: dict) -> str:
        return self.eval(f"{self.spec}.say({json.dumps(state)}, {directive.as_json(self.name)})")


@pytest.fixture
def lab():
    """Name of a figure → its code."""
    return LabCode
