"""Proximal policy optimization (PPO) with a critic for language models, to compare GRPO with.

A critic, about as large as the policy, predicts the future reward at every token. The advantage of
a token says how much better the outcome was than the prediction. GRPO has a group mean instead.

Equations
    PPO (arXiv 1707.06347): (9) the whole objective, (11)-(12) generalised advantage estimation
    DeepSeekMath (arXiv 2402.03300): (1) the objective for outputs o, with its 1/|o|, (2) a reward
        for each token, with the KL in it

Departures and open points
    - The paper does not define V^targ. The caller gives it, usually as `gae(...) + values`.
    - (9) has one mean over time steps. Here every term is a mean over the tokens of an output,
      then over outputs, like the first term of (1) of DeepSeekMath.
    - gamma is 1 by default: an answer gets its reward once, at its end. lam is PPO's 0.95.

Legend as in `dsnotes.rl.grpo`: a batch is B outputs of at most T tokens.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, narrowed, widened
from dsnotes.rl.objective import check_mask, clipped_surrogate, probability_ratio


@checked
def token_rewards(
    scores: Float[Tensor, "batch"],
    log_probs: Float[Tensor, "batch seq"],
    ref_log_probs: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    *,
    beta: float,
) -> Float[Tensor, "batch seq"]:
    """r_t = score on the last token, minus beta log(pi / pi_ref) on each (DeepSeekMath eq 2).

    It is 0 outside the mask. ValueError when shapes differ, an output has no token, or beta is
    negative.

        >>> log_probs, mask = torch.full((1, 2), -1.0), torch.ones(1, 2, dtype=torch.bool)
        >>> token_rewards(torch.tensor([1.0]), log_probs, log_probs - 1, mask, beta=0.1)
        tensor([[-0.1000,  0.9000]])
    """
    at_least(0, beta=beta)
    check_mask(mask, ref_log_probs=ref_log_probs)
    _check_spans(mask)
    later = mask.flip(1).cumsum(1).flip(1)  # (batch, seq): tokens of the output from here on
    kl = widened(log_probs.detach()) - widened(ref_log_probs)
    rewards = torch.where(later == 1, widened(scores.detach())[:, None], 0) - beta * kl
    return narrowed(rewards.masked_fill(~mask, 0), log_probs, what="a reward is too large")


@checked
def gae(
    rewards: Float[Tensor, "batch seq"],
    values: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> Float[Tensor, "batch seq"]:
    """A_t = delta_t + gamma lam A_{t+1}, delta_t = r_t + gamma V_{t+1} - V_t (PPO eq 11-12).

    `values` holds V before each token; V is 0 after the last one. The result has no gradient and is
    0 outside the mask. With lam = 1 the advantage is the real future reward minus V_t; with lam = 0
    it trusts the critic after one token. ValueError when shapes differ, when an output has no token
    or is in two pieces, and when gamma or lam lies outside 0 .. 1.

        >>> rewards, mask = torch.tensor([[0.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool)
        >>> gae(rewards, torch.tensor([[0.5, 0.8]]), mask, lam=0.5)
        tensor([[0.4000, 0.2000]])
    """
    for name, value in (("gamma", gamma), ("lam", lam)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in 0 .. 1, got {value!r}")
    check_mask(mask)
    _check_spans(mask)
    r, v = (widened(x.detach()).masked_fill(~mask, 0) for x in (rewards, values))
    after = torch.cat([v[:, 1:], torch.zeros_like(v[:, :1])], dim=1)  # V_{t+1}, (batch, seq)
    delta = (r + gamma * after - v).masked_fill(~mask, 0)  # (12)
    advantages, following = torch.zeros_like(delta), torch.zeros_like(delta[:, 0])  # (batch,)
    for t in reversed(range(delta.shape[1])):
        following = delta[:, t] + gamma * lam * following  # (11)
        advantages[:, t] = following
    advantages = advantages.masked_fill(~mask, 0)
    return narrowed(advantages, rewards, what="an advantage is too large")


@checked
def value_loss(
    values: Float[Tensor, "batch seq"],
    targets: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
) -> Float[Tensor, ""]:
    """(V - V^targ)^2, L^VF of PPO eq 9: the mean over the tokens of an output, then over outputs.

    ValueError when shapes differ, mask is empty, or targets carry gradient.

        >>> value_loss(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]), torch.ones(1, 2).bool())
        tensor(5.)
    """
    check_mask(mask, targets=targets)
    loss, steepness = _value_loss(values, targets, mask)
    return narrowed(loss, values, what="values and targets lie too far apart", bound=steepness)


@checked
def ppo_loss(
    log_probs: Float[Tensor, "batch seq"],
    old_log_probs: Float[Tensor, "batch seq"],
    advantages: Float[Tensor, "batch seq"],
    values: Float[Tensor, "batch seq"],
    targets: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    *,
    value_weight: float,
    clip: float = 0.2,
    entropy: Float[Tensor, "batch seq"] | None = None,
    entropy_weight: float = 0.0,
) -> Float[Tensor, ""]:
    """-(L^CLIP - c1 L^VF + c2 S), PPO eq 9; L^CLIP is that of DeepSeekMath eq 1.

    c1 is `value_weight`, c2 `entropy_weight`. `values` comes from the critic, with gradient;
    `targets` is V^targ; `entropy` is that of the policy in nats at each token, with gradient.

    A loss above the largest number of the type of `log_probs` is scaled down until it and its
    gradients fit, as in `grpo_loss`. ValueError when only a derivative does not fit, when shapes
    differ, when the mask is empty, when a weight or clip is negative, and when entropy_weight is
    given without entropy.

        >>> one, mask = torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool)
        >>> ppo_loss(-one, -one, one, 0 * one, one, mask, value_weight=0.5)
        tensor(-0.5000)
    """
    at_least(0, value_weight=value_weight, entropy_weight=entropy_weight, clip=clip)
    check_mask(mask, old_log_probs=old_log_probs, advantages=advantages, targets=targets)
    if entropy_weight > 0 and entropy is None:
        raise ValueError(f"entropy must be given, got entropy_weight {entropy_weight} alone")
    pi, old, a = (widened(x).masked_fill(~mask, 0) for x in (log_probs, old_log_probs, advantages))
    surrogate = clipped_surrogate(probability_ratio(pi - old, a), a, clip_low=clip)
    value, steepness = _value_loss(values, targets, mask)
    objective = _mean(surrogate, mask) - value_weight * value
    steepness = _mean(surrogate.detach().abs(), mask) + value_weight * steepness
    trained = [log_probs, values]
    if entropy_weight > 0 and entropy is not None:
        s = widened(entropy).masked_fill(~mask, 0)
        objective = objective + entropy_weight * _mean(s, mask)
        steepness = steepness + entropy_weight * _mean(s.detach().abs().clamp(min=1), mask)
        trained.append(entropy)
    big = "the loss is too large"
    return narrowed(-objective, *trained, what=big, bound=steepness, saturate=True)


def _value_loss(values: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """L^VF in float64, and a bound of L^VF and of its derivative by each value."""
    error = (widened(values) - widened(targets)).masked_fill(~mask, 0)
    square = error.square()
    return _mean(square, mask), _mean(torch.maximum(square, 2 * error.abs()).detach(), mask)


def _mean(terms: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens of each output, then over outputs; an empty output counts 0."""
    share = len(mask) * mask.sum(dim=1, keepdim=True).clamp(min=1)  # (batch, 1)
    return (terms / share).masked_fill(~mask, 0).sum()  # divided first: a sum can overflow


def _check_spans(mask: Tensor) -> None:
    """Each output must be one piece, since rewards and values pass from token to token."""
    starts = mask[:, 0].long() + (mask[:, 1:] & ~mask[:, :-1]).sum(dim=1)  # (batch,)
    if (starts != 1).any():
        raise ValueError(f"mask must mark one piece in each row, got {starts.tolist()} pieces")
