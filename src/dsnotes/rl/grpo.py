"""Group relative policy optimization (GRPO): a policy gradient whose baseline is the group mean.

One question is answered G times; each answer's advantage is how far its reward lies above the mean
of the group, and a clipped ratio keeps the policy near the one that sampled. No critic is trained.

Equations
    DeepSeekMath (arXiv 2402.03300): (3) objective with a ratio for each token; section 4.1.2
        outcome and 4.1.3 process supervision
    V3 (arXiv 2412.19437): (26) objective with a ratio for each output, (28) advantage
    the clipped surrogate and the estimators of KL that both use are in `dsnotes.rl.objective`
    R1 v2 (arXiv 2501.12948): V3's objective; section 3.2.1: clip width 10, beta 0.001
    Dr. GRPO (arXiv 2503.20783) section 3.2: no 1/|o|, no std
    DAPO (arXiv 2503.14476): (8) one mean over all tokens of a group, two clip widths

Departures and open points
    - No paper says which std: here that of the population (`correction=0`) and nothing added to it.
      TRL's is `correction=1, eps=1e-4`. A group of equal rewards has advantage 0, not 0/0.
    - Losses are minimised, so they are the objectives with the sign turned.
    - DeepSeekMath, V2 and V3 give no clip width; 0.2 is PPO's.
    - `ratio="geometric"` is the per-token mean of a sequence's log-ratio, which TRL calls
      "sequence"; here "sequence" is the ratio of the probabilities of whole outputs, as V3 prints.
    - DAPO (8) averages over the tokens of each group, then over groups; "token" takes one mean over
      all tokens given, as TRL does: the same for one group, for several a long group weighs more.
    - "constant" divides by max_length, as the code of Dr. GRPO does; its formula is max_length=1.

Legend: a batch is B outputs of at most T tokens, whole groups of G outputs or not; log-probs are
natural logarithms of the probability of the token in place t given all before it.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, narrowed, widened
from dsnotes.rl.objective import check_mask, clipped_surrogate, k3, probability_ratio

Ratio = Literal["token", "sequence", "geometric"]
Average = Literal["sequence", "token", "constant"]


class Variant(NamedTuple):
    """A published objective: `scale` for `group_advantages`, `loss` for `grpo_loss`."""

    scale: bool
    loss: dict[str, Any]


# What a report leaves open (clip width, beta of V3) keeps the default of `grpo_loss`; "dr-grpo"
# wants its max_length besides.
VARIANTS = {
    "deepseekmath": Variant(True, {"ratio": "token", "average": "sequence", "beta": 0.04}),
    "deepseek-v3": Variant(True, {"ratio": "sequence", "average": "sequence"}),
    "deepseek-r1": Variant(  # first RL stage; its second version, section 3.2.1
        True, {"ratio": "sequence", "average": "sequence", "clip_low": 10.0, "beta": 0.001}
    ),
    "dr-grpo": Variant(False, {"ratio": "token", "average": "constant"}),
    "dapo": Variant(
        True, {"ratio": "token", "average": "token", "clip_low": 0.2, "clip_high": 0.28}
    ),
}


@checked
def group_advantages(
    rewards: Float[Tensor, "groups samples"],
    *,
    scale: bool = True,
    correction: int = 0,
    eps: float = 0.0,
) -> Float[Tensor, "groups samples"]:
    """A_i = (r_i - mean(r)) / (std(r) + eps) within each row, V3 eq 28; 0 where all are equal.

    `scale=False` leaves the std out (Dr. GRPO). `correction` is 0 for the std of the population, 1
    for that of a sample. ValueError for fewer than 2 samples, a reward that is not finite, a
    negative eps or another correction, TypeError for rewards of a whole-number dtype.

        >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
        tensor([[ 1.7321, -0.5774, -0.5774, -0.5774]])
    """
    if rewards.shape[1] < 2:
        raise ValueError(
            f"rewards must be (groups, samples) with at least 2 samples, got {tuple(rewards.shape)}"
        )
    everything = torch.ones_like(rewards, dtype=torch.bool)
    normalised = _normalise(rewards, everything, scale=scale, correction=correction, eps=eps)
    return narrowed(normalised, rewards, what="rewards lie too far apart")


@checked
def process_advantages(
    rewards: Float[Tensor, "groups samples seq"],
    step_ends: Bool[Tensor, "groups samples seq"],
    *,
    scale: bool = True,
    correction: int = 0,
    eps: float = 0.0,
) -> Float[Tensor, "groups samples seq"]:
    """Advantage of each token under process supervision (DeepSeekMath section 4.1.3).

    `step_ends` marks index(j), the last token of each reasoning step, and `rewards` holds the
    step's reward there (elsewhere: ignored). Rewards are normalised over all steps of the group;
    the advantage of a token is the sum over the steps that end at it or later. ValueError as in
    `group_advantages`, the steps of a group being the samples there.

        >>> ends = torch.tensor([[[False, True, True], [False, False, True]]])
        >>> process_advantages(torch.tensor([[[9.0, 1.0, 0.0], [9.0, 9.0, 0.5]]]), ends)
        tensor([[[0.0000, 0.0000, -1.2247], [0.0000, 0.0000, 0.0000]]])
    """
    if (step_ends.sum(dim=(1, 2)) < 2).any():
        raise ValueError(
            "step_ends must mark at least 2 steps in each group, got "
            f"{step_ends.sum(dim=(1, 2)).tolist()}"
        )
    normalised = _normalise(
        rewards.flatten(1), step_ends.flatten(1), scale=scale, correction=correction, eps=eps
    ).view_as(rewards)
    advantages = normalised.flip(-1).cumsum(-1).flip(-1)
    return narrowed(advantages, rewards, what="rewards lie too far apart")


def _normalise(
    rewards: Tensor, valid: Tensor, *, scale: bool, correction: int, eps: float
) -> Tensor:
    """Each row by the mean and std of its valid entries, in float64; 0 at the others."""
    if correction not in (0, 1):
        raise ValueError(f"correction must be 0 or 1, got {correction!r}")
    at_least(0, eps=eps)
    rewards = widened(rewards).masked_fill(~valid, 0)
    if not rewards.isfinite().all():
        raise ValueError("rewards must be finite, got nan or inf")
    n = valid.sum(1, keepdim=True)
    low = rewards.detach().masked_fill(~valid, math.inf).amin(1, keepdim=True)
    high = rewards.detach().masked_fill(~valid, -math.inf).amax(1, keepdim=True)
    # A mean of what is left above the lowest, in units of the largest: sums of large rewards
    # overflow, squares of small ones underflow, and ten times 0.1 has a mean that is not 0.1.
    unit = torch.maximum(low.abs(), high.abs()).masked_fill(low == high, 1)
    above = (rewards / unit - low / unit).masked_fill(~valid, 0)
    centred = (above - above.sum(1, keepdim=True) / n).masked_fill(~valid | (low == high), 0)
    if not scale:
        return centred * unit
    variance = centred.square().sum(1, keepdim=True) / (n - correction)
    std = variance.masked_fill(low == high, 1).sqrt()
    return centred / (std + eps / unit if eps else std)  # unit may be too small to divide by


@checked
def grpo_loss(
    log_probs: Float[Tensor, "batch seq"],
    old_log_probs: Float[Tensor, "batch seq"],
    advantages: Float[Tensor, " batch"] | Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    *,
    clip_low: float = 0.2,
    clip_high: float | None = None,
    beta: float = 0.0,
    ref_log_probs: Float[Tensor, "batch seq"] | None = None,
    ratio: Ratio = "token",
    average: Average = "sequence",
    max_length: int | None = None,
) -> Float[Tensor, ""]:
    """Minus the objective of DeepSeekMath eq 3 (as it stands), V3 eq 26, Dr. GRPO or DAPO eq 8.

    At log_probs = old_log_probs its gradient is minus that of DeepSeekMath eq 20.

    `mask` is True on the tokens of the output: not on prompt nor padding, where anything may stand.
    `ratio` "token", "sequence" or "geometric" (module docstring) is what is clipped; the KL is that
    of each token, with "sequence" that of whole outputs (V3 eq 27). `average` "sequence" is a mean
    over tokens, then over outputs; "token" one mean over all tokens of the call: when gradients are
    accumulated, weigh calls by their tokens; "constant" divides by B * `max_length`. An output
    without tokens counts 0. Only `log_probs` may carry gradient.

    A loss beyond the largest number of the type of `log_probs` (exp of a log-ratio of 89, in
    float32) is scaled down until it and its gradient fit: sign and direction stay.

    ValueError when only a derivative does not fit, when shapes differ, mask is empty, beta > 0
    comes without `ref_log_probs`, or an option is not one of these; TypeError when mask is not
    bool.

        >>> old = torch.full((2, 3), -1.0)
        >>> grpo_loss(old, old, torch.tensor([1.0, -1.0]), torch.ones(2, 3, dtype=torch.bool))
        tensor(-0.)
    """
    at_least(0, beta=beta)
    at_least(1, max_length=max_length)
    if (average == "constant") != (max_length is not None):
        raise ValueError(
            "max_length must be at least 1 with average 'constant' and None otherwise, got "
            f"{max_length!r} with {average!r}"
        )
    if beta > 0 and ref_log_probs is None:
        raise ValueError(f"ref_log_probs must be given when beta is not 0, got beta {beta}")
    constants = {"old_log_probs": old_log_probs, "ref_log_probs": ref_log_probs}
    check_mask(mask, advantages=advantages, **constants)
    if advantages.ndim == 1:
        advantages = advantages[:, None].expand_as(mask)

    n_tokens = mask.sum(dim=1, keepdim=True)
    pi, old, a = (widened(x).masked_fill(~mask, 0) for x in (log_probs, old_log_probs, advantages))
    log_ratio = pi - old
    if ratio != "token":
        log_ratio = log_ratio.sum(dim=1, keepdim=True)  # V3 (26)
    if ratio == "geometric":
        log_ratio = log_ratio / n_tokens.clamp(min=1)
    rho = probability_ratio(log_ratio, a)
    objective = clipped_surrogate(rho, a, clip_low=clip_low, clip_high=clip_high)
    steepness = objective.detach().abs()  # bounds the derivative by a log-prob
    if beta > 0 and ref_log_probs is not None:
        ref = widened(ref_log_probs).masked_fill(~mask, 0)
        if ratio == "sequence":
            pi, ref = pi.sum(dim=1, keepdim=True), ref.sum(dim=1, keepdim=True)
        kl = k3(pi, ref)  # DeepSeekMath (4), V3 (27)
        objective = objective - beta * kl
        slope = (kl + ref - pi).abs()  # |r - 1|
        steepness = steepness + beta * torch.maximum(kl, slope).detach()

    if max_length is not None:
        share: Tensor | int = len(mask) * max_length  # "constant": Dr. GRPO
    elif average == "token":
        share = n_tokens.sum()  # DAPO (8)
    else:
        share = len(mask) * n_tokens.clamp(min=1)  # DeepSeekMath (3), V3 (26)

    def mean(terms: Tensor) -> Tensor:
        return (terms / share).masked_fill(~mask, 0).sum()  # divided first: a sum can overflow

    far = "log_probs lie too far from old_log_probs or ref_log_probs"
    bound = mean(steepness)
    return narrowed(-mean(objective), log_probs, what=far, bound=bound, saturate=True)
