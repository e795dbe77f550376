"""A training run that can be stopped and taken up again.

`Learner` holds what the next step depends on (weights, optimizer, random numbers, steps taken), and
`train` repeats a step with a progress bar. With a checkpoint file, a run that was interrupted goes
on where it was saved, and ends with the same numbers as one that was not.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from dsnotes.model import DeepSeek

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

    def __init__(self, model: DeepSeek, *, steps: int, learning_rate: float, seed: int = 0) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {learning_rate}")
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

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state` of a run with the same model and settings."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())  # the states of both live on the CPU
        self.sampler.set_state(state["sampler"].cpu())
        self.step = state["step"]


def train(
    learner: Learner,
    step: Callable[[Learner], dict[str, float]],
    *,
    checkpoint: Path | None = None,
    save_every: int = 25,
    description: str = "",
    progress: bool = True,
) -> list[dict[str, float]]:
    """Take the steps that are left and return what each of all steps reported.

    `step` must call `learner.update` once, and take what is random from the learner. With a
    `checkpoint` path the run is saved every `save_every` steps and at the end; if the file exists
    already, the run goes on from it. ValueError when it was saved by a run of
    another number of steps or `save_every` is below 1.

        >>> history = train(learner, lambda l: supervised_step(l, text), checkpoint=Path("run.pt"))
    """
    if save_every < 1:
        raise ValueError(f"save_every must be at least 1, got {save_every}")
    history: list[dict[str, float]] = []
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["steps"] != learner.steps:
            raise ValueError(
                f"checkpoint {checkpoint} belongs to a run of {saved['steps']} steps, "
                f"got a learner of {learner.steps}"
            )
        learner.load(saved["learner"])
        history = saved["history"]

    def save() -> None:
        if checkpoint is not None:
            # written beside and moved into place: an interruption leaves the old one whole
            unfinished = checkpoint.with_name(checkpoint.name + ".unfinished")
            state = {"steps": learner.steps, "learner": learner.state(), "history": history}
            torch.save(state, unfinished)
            os.replace(unfinished, checkpoint)

    bar = tqdm(
        total=learner.steps,
        initial=learner.step,
        desc=description,
        disable=not progress,
        mininterval=1.0,  # a notebook keeps every state of the bar
        leave=False,
    )
    with bar:
        while learner.step < learner.steps:
            history.append(step(learner))
            bar.set_postfix({name: f"{value:.3g}" for name, value in history[-1].items()})
            bar.update()
            if learner.step % save_every == 0 or learner.step == learner.steps:
                save()
    return history
