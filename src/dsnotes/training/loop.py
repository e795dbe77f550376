"""A plain training loop for toy models, shared by the notebooks and the experiments.

`train` is a generator: it takes one optimizer step and hands it out, so whoever runs it records,
draws, stops early or changes something between two steps in an ordinary `for` loop. The order
inside a step is that of V3 (arXiv 2412.19437) §2.1.2: the balancing losses and that of the
prediction modules (§2.2) join the language loss, the optimizer moves the weights, and only then the
load of the whole step moves the biases.

Departure: the learning rate rises over ten steps; after that it is what the caller says.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

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
from dsnotes.model.moe import MoE
from dsnotes.model.mtp import mtp_loss, predict
from dsnotes.training.texts import Batch

Schedule = float | Callable[[int], float]
_WARM_UP_STEPS = 10


class Step(NamedTuple):
    """What one optimizer step saw: the language loss (nats per token) and each layer's load."""

    loss: float
    load: Int[Tensor, "layers experts"]


class Evaluation(NamedTuple):
    """The language loss over a fixed batch (nats per token) and the load by domain of the text."""

    loss: float
    load: Int[Tensor, "domains layers experts"]


@checked
def moe_layers(model: nn.Module) -> list[MoE]:
    """The MoE layers of a model, from the first to the last."""
    return [module for module in model.modules() if isinstance(module, MoE)]


@checked
def next_token_loss(
    logits: Float[Tensor, "batch seq vocab"], tokens: Integer[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy, in nats, of each token given the ones before it."""
    tokens = token_ids(tokens, vocab_size=logits.shape[-1])
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


@checked
def train(
    model: DeepSeek,
    data: Iterable[Batch],
    *,
    learning_rate: Schedule = 3e-3,
    gamma: Schedule = 0.0,
    expert_alpha: float = 0.0,
    sequence_alpha: float = 0.0,
    mtp_weight: float = 0.0,
) -> Iterator[Step]:
    """Train in place with AdamW, one optimizer step per batch, yielding after each.

    `gamma` is the bias update speed; it and `learning_rate` may be functions of the step, from 0.
    `expert_alpha` weighs the expert-level loss over the whole batch, `sequence_alpha` that of each
    sequence (`model.balance`), both summed over the MoE layers. All zero: nothing balances.
    `mtp_weight` is the lambda of `mtp.mtp_loss`; 0 leaves the prediction modules alone, and
    their experts are then not among those of `Step.load`.
    Bad values raise ValueError as there, as does a weight for a model without modules.

        >>> data = batches(steps=100, batch_size=16, seq_len=128, seed=0)
        >>> losses = [step.loss for step in train(DeepSeek(TINY), data, gamma=0.01)]
    """
    at_least(0, mtp_weight=mtp_weight, expert_alpha=expert_alpha, sequence_alpha=sequence_alpha)
    moes = moe_layers(model.model.layers) if mtp_weight > 0 else _main_moe_layers(model)
    # a constant 0 needs no biases: gates without them (V1, V2) can be trained as well
    balancer = BiasBalancer([moe.gate for moe in moes], gamma=0.0) if gamma != 0 else None
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    for number, batch in enumerate(data):
        for group in optimizer.param_groups:
            group["lr"] = _at(number, learning_rate) * min(1.0, (number + 1) / _WARM_UP_STEPS)
        tokens = batch.tokens.to(next(model.parameters()).device)
        hidden = model.model(tokens)
        total = loss = next_token_loss(model.head(hidden), tokens)
        if mtp_weight > 0:
            ahead = predict(model, hidden, tokens)
            total = total + mtp_loss(ahead, tokens, weight=mtp_weight)
        routings = [moe.routing for moe in moes if moe.routing is not None]
        for indices, _, scores in routings:
            s_prime, _ = normalised(scores)  # sigmoid ones do not sum to 1
            total = total + expert_balance_loss(s_prime, indices, alpha=expert_alpha)
            total = total + sequence_balance_loss(
                scores.unflatten(0, (len(tokens), -1)),  # a module sees fewer tokens
                num_experts_per_tok=indices.shape[1],
                alpha=sequence_alpha,
            )
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if balancer is not None:
            balancer.gamma = _at(number, gamma)
            balancer.observe([routing.indices for routing in routings])
            balancer.step()
        yield Step(loss.item(), _load(moes))


@torch.no_grad()
@checked
def evaluate(model: DeepSeek, batch: Batch) -> Evaluation:
    """Language loss and load of `batch`, one domain after the other; nothing is changed.

    Sum the load over the domains for MaxVio_global of each layer. Prediction modules do not run.

        >>> result = evaluate(model, held_out(seq_len=128))
        >>> max_vio(result.load.sum(0)).mean()  # over the layers
    """
    losses, loads = [], []
    for domain in batch.domain.unique():
        tokens = batch.tokens[batch.domain == domain].to(next(model.parameters()).device)
        losses.append(next_token_loss(model(tokens), tokens).item() * len(tokens))
        loads.append(_load(_main_moe_layers(model)))
    return Evaluation(sum(losses) / len(batch.tokens), torch.stack(loads))


def _main_moe_layers(model: DeepSeek) -> list[MoE]:
    return moe_layers(model.model.layers[: model.config.num_hidden_layers])


def _at(step: int, schedule: Schedule) -> float:
    return schedule(step) if callable(schedule) else schedule


def _load(moes: list[MoE]) -> Tensor:
    """Load of the last forward pass, (layers, E); (0, 0) for a dense model."""
    routings = [moe.routing for moe in moes if moe.routing is not None]
    loads = [expert_load(r.indices, n_routed_experts=r.scores.shape[1]) for r in routings]
    return torch.stack(loads) if loads else torch.zeros(0, 0, dtype=torch.long)
