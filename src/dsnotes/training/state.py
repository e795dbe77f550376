"""What a training run depends on, in one object that can be saved and loaded again.

`TrainState` holds the model, the optimizer with its learning rate, the random numbers and the
number of steps taken. It has PyTorch's protocol, `state_dict` and `load_state_dict`. `Snapshot` is
the file it is saved in. `dsnotes.training.loop.train` uses both.

Departures
    - V3 (arXiv 2412.19437) section 4.2 warms up over 2000 steps and decays along a cosine. Here the
      learning rate rises over 10 steps and, with `cooldown`, falls along a line at the end.
    - AdamW's betas, its weight decay and the clipping of gradients to norm 1 are V3's.
"""

import copy
import math
import os
import pickle
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from dsnotes.checks.arguments import check_fields, checked
from dsnotes.checks.numeric import at_least
from dsnotes.model.deepseek import DeepSeek

Report = dict[str, Any]  # what one step says of itself: numbers and tensors by name
_WARM_UP_STEPS = 10


@dataclass
class TrainState:
    """Everything that the next of `steps` steps depends on, and the reports of those taken.

    `create` fills it for AdamW; whoever wants another optimizer or schedule puts them in its place.

        >>> state = TrainState.create(model, steps=100, learning_rate=1e-3)
        >>> state.update(model(tokens).square().mean())
        >>> state.step, state.scheduler.get_last_lr()
        (1, [0.0002])
    """

    model: DeepSeek
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    generator: torch.Generator  # makes data, on the CPU
    sampler: torch.Generator  # draws tokens, on the model's device
    steps: int
    step: int = 0  # taken so far
    reference: DeepSeek | None = None  # pi_ref of a KL term, see `set_reference`
    history: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_fields(self)
        at_least(1, steps=self.steps)
        at_least(0, step=self.step)

    @classmethod
    @checked
    def create(
        cls,
        model: DeepSeek,
        *,
        steps: int,
        learning_rate: float,
        weight_decay: float = 0.1,
        cooldown: float = 0.0,
        seed: int = 0,
    ) -> "TrainState":
        """The start of a run of `steps` steps with AdamW; both generators start from `seed`.

        The learning rate rises over ten steps, stays, and falls to 0 over the last `cooldown` (a
        share from 0 to 1) of the steps. ValueError for steps below 1, a learning rate that is not
        positive, a negative weight decay, or a cooldown outside 0 to 1.
        """
        at_least(1, steps=steps)
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0 and finite, got {learning_rate}")
        at_least(0, weight_decay=weight_decay)
        if not 0 <= cooldown <= 1:
            raise ValueError(f"cooldown must lie between 0 and 1, got {cooldown}")

        def share(step: int) -> float:
            rise = (step + 1) / _WARM_UP_STEPS
            fall = (steps - step) / (cooldown * steps) if cooldown > 0 else 1.0
            return min(1.0, rise, fall)

        optimizer = torch.optim.AdamW(
            model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=weight_decay
        )
        return cls(
            model=model,
            optimizer=optimizer,
            scheduler=LambdaLR(optimizer, share),
            generator=torch.Generator().manual_seed(seed),
            sampler=torch.Generator(device=model.device).manual_seed(seed),
            steps=steps,
        )

    @checked
    def update(self, loss: Float[Tensor, ""]) -> None:
        """One optimizer step downhill, its gradient clipped to norm 1.

        ValueError for a loss that is not finite, which would spoil every weight, or that no
        gradient can be taken of.
        """
        if not loss.isfinite():
            raise ValueError(f"loss must be finite, got {loss.item()}")
        if not loss.requires_grad:
            raise ValueError("loss must carry a gradient, got one that depends on no weight")
        self.optimizer.zero_grad()
        loss.backward()
        self.descend()

    def descend(self) -> None:
        """The second half of `update`: a step along the gradients that the weights hold."""
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1

    def set_reference(self) -> DeepSeek:
        """Keep, and return, a frozen copy of the model as it is now: pi_ref of a KL term."""
        self.reference = copy.deepcopy(self.model).requires_grad_(False)
        return self.reference

    def state_dict(self) -> dict[str, Any]:
        """All of it as numbers and tensors, for `torch.save`."""
        return {
            "steps": self.steps,
            "step": self.step,
            "config": self.model.config.to_json(),
            "model": self.model.state_dict(),
            "reference": None if self.reference is None else self.reference.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.generator.get_state(),
            "sampler": self.sampler.get_state(),
            "history": self.history,
        }

    @checked
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of a run with the same model and settings.

        ValueError, before anything is loaded, when that run has another number of steps, another
        model or other settings of the optimizer.
        """
        ours = self.state_dict()
        if state.keys() != ours.keys():
            raise ValueError(f"state must hold {', '.join(ours)}, got {', '.join(map(str, state))}")
        if state["steps"] != self.steps:
            raise ValueError(f"state must be of {self.steps} steps, got one of {state['steps']}")
        if state["sampler"].shape != ours["sampler"].shape:
            raise ValueError(
                f"state must have a sampler of {self.model.device.type}, where this run draws; "
                f"its own drew on another kind of device"
            )
        expected, found = _constants(ours), _constants(state)
        for name in expected | found:
            if expected.get(name) != found.get(name):
                raise ValueError(
                    f"state must have {name} {expected.get(name)}, got {found.get(name)}"
                )
        self.model.load_state_dict(state["model"])
        self.reference = None
        if state["reference"] is not None:
            self.set_reference().load_state_dict(state["reference"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"].cpu())  # the states of both live on the CPU
        self.sampler.set_state(state["sampler"].cpu())
        self.step, self.history = state["step"], list(state["history"])


def _constants(state: dict[str, Any]) -> dict[str, Any]:
    """What stays the same from the first step of a run to its last, by name."""
    constants = {f"config.{name}": value for name, value in state["config"].items()}
    for name, weight in state["model"].items():
        constants[f"model.{name}"] = weight.dtype, tuple(weight.shape)
    for i, group in enumerate(state["optimizer"]["param_groups"]):
        kept = group.keys() - {"params", "lr", "betas", "momentum"}  # schedules move these
        constants |= {f"optimizer.{i}.{name}": group[name] for name in sorted(kept)}
        constants[f"optimizer.{i}.params"] = len(group["params"])
    return constants


class Snapshot:
    """The file of a run. Writing is tried at once: hours later it would be too late.

    ValueError when `path` is a folder, OSError when the file cannot be written.

        >>> Snapshot("run.pt").load(TrainState.create(model, steps=100, learning_rate=1e-3))
    """

    @checked
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise ValueError(f"checkpoint must be the path of a file, got the folder {path}")
        self._unfinished = self.path.with_name(self.path.name + ".unfinished")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished.touch()
        self._unfinished.unlink()

    @checked
    def load(self, state: TrainState) -> None:
        """Bring `state` to where the file is; without a file it stays.

        ValueError when the file was saved by another run or by something else.
        """
        if not self.path.exists():
            return
        try:
            with zipfile.ZipFile(self.path) as archive:  # torch.load does not look at checksums
                if (damaged := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"{damaged} is damaged")
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            if saved.keys() != state.state_dict().keys():
                raise KeyError(f"other names: {', '.join(saved)}")
        except (RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError,
                pickle.UnpicklingError, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
            raise ValueError(
                f"checkpoint {self.path} is no file that train has saved, or only a part of one "
                f"({type(error).__name__})"
            ) from error
        try:
            state.load_state_dict(saved)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"checkpoint {self.path} belongs to another run: {error}") from error

    @checked
    def save(self, state: TrainState) -> None:
        """Written beside and moved into place: an interruption leaves the old one whole."""
        try:
            torch.save(state.state_dict(), self._unfinished)
            os.replace(self._unfinished, self.path)
        finally:
            self._unfinished.unlink(missing_ok=True)
