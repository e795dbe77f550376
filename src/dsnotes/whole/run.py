"""A run in a folder: stages one after the other, each done once, that go on where they stopped.

A stage is a function of the `Run`. What it found stands in `<stage>.json`, its model in the folder
`<stage>` in the released layout (`weights.checkpoint`). A stage that trains saves itself in
`<stage>.pt` while it does. The same command, given again, passes over what is done and goes on: the
numbers are those of a run that was never interrupted, but for the times.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least
from dsnotes.data.poems import Verse, verses
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.novelty import Known
from dsnotes.training.loop import train
from dsnotes.training.state import Report, Snapshot, TrainState
from dsnotes.training.verses import Vocabulary
from dsnotes.weights import checkpoint
from dsnotes.whole.sizes import SIZES

Result = dict[str, Any]


class Stopped(Exception):
    """The run has stopped in good order before its end; the same command goes on."""


class Run:
    """The folder `out` of a run of a size and a seed, and what its stages share.

    `corpus` is a file as `data.poems.verses` takes it; None means the poems of the package. `fp8`
    pretrains with FP8 inputs of the linear layers. With `processes` as many of them pretrain, each
    on a part of every batch (`reading`): no setting, but for rounding the numbers are the same.
    After `until` seconds the run stops by `Stopped`, as it does once `stop` is set: in a stage that
    trains, after the step at hand.

    ValueError for an unknown size, a corpus that is none or too small, a folder that holds a run
    with other settings; OSError for a file that is not there.

        >>> run = Run("tiny-0", size="tiny", seed=0)
        >>> run.stage("counting", lambda run: {"poems": len(run.poems)})["poems"]
        12568
        >>> run.result("counting")["poems"]
        12568
    """

    @checked
    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        size: str,
        seed: int,
        corpus: str | os.PathLike[str] | None = None,
        device: str = "cpu",
        fp8: bool = False,
        processes: int = 1,
        until: float | None = None,
        progress: bool = False,
    ) -> None:
        if size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
        self.folder, self.size, self.seed, self.device = Path(out), SIZES[size], seed, device
        self.corpus = None if corpus is None else str(corpus)
        self.fp8, self.processes, self.progress = fp8, processes, progress
        self.stop, self._until = False, until
        self._began = time.monotonic()
        at_least(0, seed=seed, until=until)
        at_least(1, processes=processes)
        torch.device(device)  # RuntimeError for what is none
        if not self.poems or not self.held_out:
            raise ValueError(f"corpus must hold poems to train on and to hold out, got {corpus}")
        file = None if corpus is None else Path(corpus).name
        settings = {"size": size, "seed": seed, "corpus": file, "fp8": fp8}
        self.settings = json.loads(json.dumps({**settings, **asdict(self.size)}))
        self.folder.mkdir(parents=True, exist_ok=True)
        found = self.result("settings")
        if found is None:
            self._write("settings", self.settings)
        elif found != self.settings:
            other = [name for name in self.settings if found.get(name) != self.settings[name]]
            raise ValueError(f"out must be a folder of this run, {out} has another {other[0]}")

    def stage(self, name: str, work: Callable[["Run"], Result]) -> Result:
        """What `work` finds, from the file if it is done; the times are those of all calls."""
        found = self.result(name)
        if found is None:
            if self.is_over():
                raise Stopped(f"stopped before {name}")
            began, clock = _clock(), self.result("clock") or {}
            spent = clock.setdefault(name, dict.fromkeys(began, 0.0))
            try:
                found = work(self)
            finally:
                for which, now in _clock().items():
                    spent[which] = round(spent[which] + now - began[which], 1)
                self._write("clock", clock)
            self._write(name, {**found, **spent})
            (self.folder / f"{name}.pt").unlink(missing_ok=True)
        return self.result(name) or {}

    def result(self, name: str) -> Result | None:
        """What a stage found, or None if it is not done."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text("utf8")) if path.exists() else None

    def is_over(self) -> bool:
        """Whether the time is up, or somebody has asked to stop."""
        late = self._until is not None and time.monotonic() - self._began > self._until
        return self.stop or late

    def train(
        self,
        name: str,
        state: TrainState,
        step: Callable[..., Report],
        data: Iterable[Any] | None = None,
    ) -> list[Report]:
        """Train to the end and return the reports of all steps; `Stopped` if it must stop before.

        The model is then in its folder, for `model`.
        """
        file = self.folder / f"{name}.pt"
        steps = train(
            state,
            step,
            data,
            checkpoint=file,
            save_every=self.size.save_every,
            description=name,
            progress=self.progress,
        )
        for _ in steps:
            if self.is_over() and state.step < state.steps:
                Snapshot(file).save(state)
                raise Stopped(f"stopped in {name}, after step {state.step} of {state.steps}")
        self.keep(name, state.model)
        return state.history

    def keep(self, name: str, model: DeepSeek, *, fp8: bool = False) -> Path:
        """Write a model into the folder of a stage; the path of that."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        checkpoint.save(model, folder, fp8=fp8)
        return folder

    def model(self, name: str) -> DeepSeek:
        """The model that a stage has left."""
        return checkpoint.load(self.folder / name).to(self.device)

    def say(self, text: str) -> None:
        """A line for whoever watches."""
        if self.progress:
            print(text, file=sys.stderr, flush=True)

    def generator(self, seed: int = 0) -> torch.Generator:
        """Draws tokens on the device of the run."""
        return torch.Generator(device=self.device).manual_seed(seed)

    @property
    def poems(self) -> tuple[Verse, ...]:
        """The poems to train on."""
        return verses(self.corpus)

    @property
    def held_out(self) -> tuple[Verse, ...]:
        """Poems that no stage trains on: about `size.held_out` from all over those held out."""
        poems = verses(self.corpus, held_out=True)
        return poems[:: max(len(poems) // self.size.held_out, 1)]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """That of all poems of the corpus."""
        return Vocabulary.of(self.poems + self.held_out)

    @cached_property
    def known(self) -> Known:
        """The lines of the poems to train on."""
        return Known(line for verse in self.poems for line in verse.lines)

    def _write(self, name: str, found: Mapping[str, Any]) -> None:
        """Written beside and moved into place: an interruption leaves the old file whole."""
        unfinished = self.folder / f"{name}.unfinished"
        unfinished.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", "utf8")
        os.replace(unfinished, self.folder / f"{name}.json")


def _clock() -> dict[str, float]:
    """Now, by the wall and by what the process has used of the CPU."""
    return {"seconds": time.monotonic(), "cpu_seconds": time.process_time()}
