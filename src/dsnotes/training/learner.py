"""A training run that can be stopped and taken up again.

`Learner` holds what the next step depends on (weights, optimizer, random numbers, steps taken), and
`train` repeats a step with a progress bar. With a checkpoint file, a run that was interrupted goes
on where it was saved, and ends with the same numbers as one that was not.
"""

import math
import numbers
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from dsnotes.checks.arguments import checked
from dsnotes.model.deepseek import DeepSeek

_WARM_UP_STEPS = 10
_DECAY_SHARE = 0.3  # of the steps, at the end: the rate falls linearly, which steadies the result


class Learner:
    """Model and optimizer (AdamW) of a run of `steps` steps, and its random numbers.

    `generator` makes data, on the CPU, and `sampler` draws tokens, on the model's device; both
    start from `seed`. The learning rate rises over ten steps, stays, and falls to 0 over the last
    three tenths. ValueError for steps below 1 or a rate that is not positive.

        >>> learner = Learner(DeepSeek(TINY), steps=100, learning_rate=1e-3, seed=0)
        >>> learner.update(loss)
    """

    @checked
    def __init__(self, model: DeepSeek, *, steps: int, learning_rate: float, seed: int = 0) -> None:
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps must be a whole number of at least 1, got {steps}")
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0 and finite, got {learning_rate}")
        self.model, self.steps, self.learning_rate = model, steps, learning_rate
        self.step = 0  # taken so far
        self.optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.01)
        self.generator = torch.Generator().manual_seed(seed)
        self.sampler = torch.Generator(device=model.lm_head.weight.device).manual_seed(seed)

    def rate(self) -> float:
        """The learning rate of the next step."""
        rise = (self.step + 1) / _WARM_UP_STEPS
        fall = (self.steps - self.step) / (_DECAY_SHARE * self.steps)
        return self.learning_rate * min(1.0, rise, fall)

    @checked
    def update(self, loss: Float[Tensor, ""]) -> None:
        """One optimizer step downhill, its gradient clipped to norm 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "sampler": self.sampler.get_state(),
        }

    @checked
    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state` of a run with the same model and settings."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())  # the states of both live on the CPU
        self.sampler.set_state(state["sampler"].cpu())
        self.step = state["step"]


@checked
def train(
    learner: Learner,
    step: Callable[[Learner], Mapping[str, Any]],
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    save_every: int = 25,
    description: str = "",
    progress: bool = True,
) -> list[dict[str, float]]:
    """Take the steps that are left and return what each of all steps reported.

    `step` must call `learner.update` once, and take what is random from the learner; what it
    returns are numbers, of Python, of NumPy, or tensors of one element, by name. With a
    `checkpoint` path the run is saved every `save_every` steps and at the end (its folder is made
    where there is none); if the file exists already, the run goes on from it.

    Raises, before the first step, ValueError when the file was saved by a run of another model or
    number of steps, or by something else, or `save_every` is below 1, and OSError when it cannot be
    written; ValueError or TypeError when `step` does not do what it must.

        >>> history = train(learner, lambda l: supervised_step(l, text), checkpoint="run.pt")
    """
    if not isinstance(save_every, int) or save_every < 1:
        raise ValueError(f"save_every must be a whole number of at least 1, got {save_every}")
    file = None if checkpoint is None else _Checkpoint(Path(checkpoint))
    history: list[dict[str, float]] = [] if file is None else file.take_up(learner)
    bar = tqdm(
        total=learner.steps,
        initial=learner.step,
        desc=description,
        disable=not progress,
        mininterval=1.0,  # a notebook keeps every state of the bar
        leave=False,
    )
    with bar:
        while (before := learner.step) < learner.steps:
            history.append(_plain(step(learner)))
            if (times := learner.step - before) != 1:
                raise ValueError(f"step must call learner.update once, it was called {times} times")
            bar.set_postfix({name: f"{value:.3g}" for name, value in history[-1].items()})
            bar.update()
            if file is not None and (
                learner.step % save_every == 0 or learner.step == learner.steps
            ):
                file.save(learner, history)
    return history


class _Checkpoint:
    """The file of a run. Writing is tried at once: hours later it would be too late."""

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise ValueError(f"checkpoint must be the path of a file, got the folder {path}")
        self.path = path
        self._unfinished = path.with_name(path.name + ".unfinished")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished.touch()
        self._unfinished.unlink()

    def take_up(self, learner: Learner) -> list[dict[str, float]]:
        """Bring `learner` to where the file is, and return the history of the run up to there."""
        if not self.path.exists():
            return []
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            steps, state, history = saved["steps"], saved["learner"], list(saved["history"])
        except (RuntimeError, EOFError, LookupError, TypeError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"checkpoint {self.path} is no file that train has saved, or only a part of one "
                f"({type(error).__name__})"
            ) from error
        if steps != learner.steps:
            raise ValueError(
                f"checkpoint {self.path} belongs to a run of {steps} steps, "
                f"got a learner of {learner.steps}"
            )
        try:
            learner.load(state)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"checkpoint {self.path} belongs to a run of another model: {error}"
            ) from error
        return history

    def save(self, learner: Learner, history: list[dict[str, float]]) -> None:
        """Written beside and moved into place: an interruption leaves the old one whole."""
        state = {"steps": learner.steps, "learner": learner.state(), "history": history}
        try:
            torch.save(state, self._unfinished)
            os.replace(self._unfinished, self.path)
        finally:
            self._unfinished.unlink(missing_ok=True)


def _plain(metrics: Any) -> dict[str, float]:
    """Numbers of any kind as floats of Python, which a checkpoint holds without running code."""
    if not isinstance(metrics, Mapping):
        raise TypeError(f"step must return numbers by name, got {type(metrics).__name__}")
    plain: dict[str, float] = {}
    for name, value in metrics.items():
        number = value
        if isinstance(value, Tensor | np.ndarray | np.generic) and math.prod(value.shape) == 1:
            number = value.item()
        if not isinstance(name, str) or not isinstance(number, numbers.Real):
            raise TypeError(f"step must return numbers by name, got {name!r}: {value!r}")
        plain[str(name)] = float(number)
    return plain
