"""One training loop for all of the book, and the step of a language model.

`train` repeats a step. A step is a function of the `TrainState` that computes a loss, hands it to
`state.update` and returns a report: `language_step` below, and `supervised_step` and `grpo_step` in
`dsnotes.rl.r1_zero`. `train` hands out the report of each step, so whoever runs it records, draws
or stops early in an ordinary `for` loop. A run with a checkpoint file can be interrupted; taken up
again, it ends with the same numbers.

The order inside `language_step` is that of V3 (arXiv 2412.19437) §2.1.2: the balancing losses and
the loss of the prediction modules (§2.2) join the language loss, the optimizer moves the weights,
and only then the load of the step moves the biases.
"""

import numbers
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, token_ids
from dsnotes.model.balance import (
    BiasBalancer,
    expert_balance_loss,
    expert_load,
    normalised,
    sequence_balance_loss,
)
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.moe import MoE, Routing, record_routing
from dsnotes.model.mtp import mtp_loss, predict
from dsnotes.training import texts
from dsnotes.training.padding import padding_documents, without_padding
from dsnotes.training.state import Report, Snapshot, TrainState


class Evaluation(NamedTuple):
    """The language loss over a fixed batch (nats per token) and the load by domain of the text."""

    loss: float
    load: Int[Tensor, "domains layers experts"]


@checked
def train(
    state: TrainState,
    step: Callable[..., Report],
    data: Iterable[Any] | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    save_every: int = 25,
    description: str = "",
    progress: bool = True,
) -> Iterator[Report]:
    """Take the steps that are left, one at a time, and yield what each reports.

    A step is `step(state)`, or `step(state, item)` with its item of `data`. It must call
    `state.update` once, take what is random from the state, and return numbers (of Python, NumPy or
    PyTorch) and tensors by name. Nothing happens until the result is iterated: `list(train(...))`
    trains to the end.

    With a `checkpoint` path the run is saved every `save_every` steps and at the end. If the file
    exists already, the run goes on from it, past the items of `data` that it has seen;
    `state.history` then holds the reports of the steps before as well.

    Raises, before the first step, ValueError when the file is of another run or of something else,
    or `save_every` is below 1, and OSError when it cannot be written; ValueError or TypeError when
    `step` does not do what it must, ValueError when `data` ends too early.

        >>> data = texts.batches(steps=2, batch_size=4, seq_len=16, seed=0)
        >>> state = TrainState.create(model, steps=2, learning_rate=1e-3)
        >>> [list(report) for report in train(state, language_step, data, progress=False)]
        [['loss', 'load'], ['loss', 'load']]
    """
    at_least(1, save_every=save_every)
    snapshot = None if checkpoint is None else Snapshot(checkpoint)
    if snapshot is not None:
        snapshot.load(state)
    items = None if data is None else islice(data, state.step, None)
    bar = tqdm(
        total=state.steps,
        initial=state.step,
        desc=description,
        disable=not progress,
        mininterval=1.0,  # a notebook keeps every state of the bar
        leave=False,
    )
    with bar:
        while (before := state.step) < state.steps:
            report = _plain(step(state) if items is None else step(state, _next(items, state)))
            if (times := state.step - before) != 1:
                raise ValueError(f"step must call state.update once, it was called {times} times")
            state.history.append(report)
            if snapshot is not None and (state.step % save_every == 0 or state.step == state.steps):
                snapshot.save(state)
            bar.set_postfix({k: f"{x:.3g}" for k, x in report.items() if isinstance(x, float)})
            bar.update()
            yield report


@checked
def language_step(
    state: TrainState,
    batch: texts.Batch,
    *,
    gamma: float = 0.0,
    expert_alpha: float = 0.0,
    sequence_alpha: float = 0.0,
    mtp_weight: float = 0.0,
    padding: int | None = None,
) -> Report:
    """One step of next-token prediction: its loss (nats per token), and the load of each MoE layer.

    `gamma` is the bias update speed. `expert_alpha` weighs the expert-level loss over the whole
    batch, `sequence_alpha` that of each sequence (`model.balance`), both summed over the MoE
    layers. All zero: nothing balances. `mtp_weight` is the lambda of `mtp.mtp_loss`; 0 leaves the
    prediction modules alone, and their experts are then not in the load (layers, experts).
    `padding` is a token after the end of shorter sequences: nothing predicts it, and it is not in
    the load. Bad values raise ValueError as there, as does a weight for a model without modules,
    and `sequence_alpha` with padding.

        >>> batch = next(texts.batches(steps=1, batch_size=4, seq_len=16, seed=0))
        >>> state = TrainState.create(model, steps=1, learning_rate=1e-3)
        >>> language_step(state, batch, gamma=0.01)["load"].shape
        torch.Size([2, 16])
    """
    at_least(0, mtp_weight=mtp_weight, expert_alpha=expert_alpha, sequence_alpha=sequence_alpha)
    if padding is not None and sequence_alpha > 0:
        raise ValueError(f"sequence_alpha must be 0 with padding, got {sequence_alpha}")
    model = state.model
    moes = moe_layers(model.model.layers) if mtp_weight > 0 else _main_moe_layers(model)
    # a constant 0 needs no biases: gates without them (V1, V2) can be trained as well
    balancer = BiasBalancer([moe.gate for moe in moes], gamma=gamma) if gamma != 0 else None
    tokens = batch.tokens.to(model.device)
    with record_routing(model) as routings:
        hidden = model.hidden(tokens)  # (batch, seq, hidden)
        total = loss = next_token_loss(model.lm_head(hidden), tokens, padding=padding)
        if mtp_weight > 0:
            ahead, documents = predict(model, hidden, tokens), padding_documents(tokens, padding)
            total = total + mtp_loss(ahead, tokens, weight=mtp_weight, documents=documents)
    routings = without_padding(routings, tokens, padding)
    for indices, _, scores in routings:
        s_prime, _ = normalised(scores)  # sigmoid ones do not sum to 1
        total = total + expert_balance_loss(s_prime, indices, alpha=expert_alpha)
        if padding is None:
            total = total + sequence_balance_loss(
                scores.unflatten(0, (len(tokens), -1)),  # (batch, seq, experts), fewer in a module
                num_experts_per_tok=indices.shape[1],
                alpha=sequence_alpha,
            )
    state.update(total)
    if balancer is not None:
        balancer.observe([routing.indices for routing in routings])
        balancer.step()
    return {"loss": loss.item(), "load": _load(routings)}


@torch.no_grad()
@checked
def evaluate(model: DeepSeek, batch: texts.Batch) -> Evaluation:
    """Language loss and load of `batch`, one domain after the other; nothing is changed.

    Sum the load over the domains for MaxVio_global of each layer. Prediction modules do not run.
    ValueError for a batch without tokens to predict.

        >>> evaluate(model, texts.held_out(seq_len=512)).load.shape  # domains, layers, experts
        torch.Size([4, 2, 16])
    """
    if batch.tokens[:, 1:].numel() == 0:
        raise ValueError(f"batch must hold tokens to predict, got {tuple(batch.tokens.shape)}")
    losses, loads = [], []
    for domain in batch.domain.unique():
        tokens = batch.tokens[batch.domain == domain].to(model.device)
        with record_routing(model) as routings:
            losses.append(next_token_loss(model(tokens), tokens).item() * len(tokens))
        loads.append(_load(routings))
    return Evaluation(sum(losses) / len(batch.tokens), torch.stack(loads))


@checked
def next_token_loss(
    logits: Float[Tensor, "batch seq vocab"],
    tokens: Integer[Tensor, "batch seq"],
    *,
    padding: int | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy, in nats, of each token given the ones before it, `padding` left out.

    ValueError for sequences of one token, or none, of which there is nothing to predict.

        >>> next_token_loss(torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2]]))  # ln 4
        tensor(1.3863)
    """
    if tokens[:, 1:].numel() == 0:
        raise ValueError(f"tokens must hold two of a sequence, got shape {tuple(tokens.shape)}")
    tokens = token_ids(tokens, vocab_size=logits.shape[-1])
    if padding is not None and bool((tokens[:, 1:] == padding).all()):
        raise ValueError(f"tokens must hold something else than padding, got {tuple(tokens.shape)}")
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1),
        tokens[:, 1:].flatten(),
        ignore_index=-100 if padding is None else padding,
    )


@checked
def moe_layers(model: nn.Module) -> list[MoE]:
    """The MoE layers of a model, from the first to the last."""
    return [module for module in model.modules() if isinstance(module, MoE)]


def _main_moe_layers(model: DeepSeek) -> list[MoE]:
    return moe_layers(model.model.layers[: model.config.num_hidden_layers])


def _load(routings: list[Routing]) -> Tensor:
    """Load of a forward pass, (layers, E); (0, 0) for a dense model."""
    loads = [expert_load(r.indices, n_routed_experts=r.scores.shape[1]) for r in routings]
    return torch.stack(loads) if loads else torch.zeros(0, 0, dtype=torch.long)


def _next(items: Iterator[Any], state: TrainState) -> Any:
    for item in items:
        return item
    raise ValueError(f"data must hold an item for each of {state.steps} steps, got {state.step}")


def _plain(report: Any) -> Report:
    """Numbers of any kind as floats of Python, and tensors without their graph: safe to save."""
    if not isinstance(report, Mapping):
        raise TypeError(f"step must return numbers by name, got {type(report).__name__}")
    plain: Report = {}
    for name, value in report.items():
        number = value
        if isinstance(value, Tensor | np.ndarray | np.generic) and value.shape in ((), (1,)):
            number = value.item()
        if isinstance(name, str) and isinstance(number, numbers.Real):
            plain[str(name)] = float(number)
        elif isinstance(name, str) and isinstance(value, Tensor):
            plain[str(name)] = value.detach().cpu()
        else:
            raise TypeError(f"step must return numbers by name, got {name!r}: {value!r}")
    return plain
