"""Group relative policy optimization (GRPO): a policy gradient whose baseline is the group mean.

One question is answered G times. The advantage of an answer is how far its reward lies above the
mean of its group; a clipped ratio keeps the policy near the one that sampled. No critic is trained.

Equations
    DeepSeekMath (arXiv 2402.03300): (3) objective with a ratio for each token; section 4.1.2
        outcome and 4.1.3 process supervision
    V3 (arXiv 2412.19437): (26) objective with a ratio for each output, (28) advantage
    the clipped surrogate and the estimators of KL that both use are in `dsnotes.rl.objective`
    R1 v2 (arXiv 2501.12948): V3's objective; section 3.2.1: clip width 10, beta 0.001
    Dr. GRPO (arXiv 2503.20783) section 3.2: no 1/|o|, no std
    DAPO (arXiv 2503.14476): (8) one mean over all tokens of a group, two clip widths

Departures and open points
    - No paper says which std. Here it is that of the population (`correction=0`), and nothing is
      added to it. TRL's is `correction=1, eps=1e-4`. Equal rewards have advantage 0, not 0/0.
    - An optimizer minimises, so a loss is minus the objective.
    - DeepSeekMath, V2 and V3 give no clip width; 0.2 is PPO's.
    - `ratio="geometric"` is the per-token mean of a sequence's log-ratio, which TRL calls
      "sequence"; here "sequence" is the ratio of the probabilities of whole outputs, as V3 prints.
    - DAPO (8) averages over the tokens of each group, then over groups; "token" takes one mean over
      all tokens given, as TRL does: the same for one group, for several a long group weighs more.
    - "constant" divides by max_length, as the code of Dr. GRPO does (the longest output it lets the
      model write); its formula is max_length=1.

Legend: a batch is B outputs of at most T tokens; it need not consist of whole groups. A log-prob is
the natural logarithm of the probability of the token in place t given all tokens before it.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, narrowed, widened
from dsnotes.rl.objective import (
    GRPO,
    Objective,
    check_mask,
    clipped_surrogate,
    k3,
    probability_ratio,
)


@checked
def group_advantages(
    rewards: Float[Tensor, "groups samples"],
    *,
    scale: bool = True,
    correction: int = 0,
    eps: float = 0.0,
) -> Float[Tensor, "groups samples"]:
    """A_i = (r_i - mean(r)) / (std(r) + eps) within each row, V3 eq 28; 0 where all are equal.

    `scale=False` leaves the std out (Dr. GRPO). `correction` is 0 for the std of the population and
    1 for that of a sample. ValueError for fewer than 2 samples, a reward that is not finite, a
    negative eps or another correction; TypeError for rewards of a whole-number dtype.

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

    `step_ends` marks index(j), the last token of each reasoning step. `rewards` holds the reward of
    the step there; other places are ignored. Rewards are normalised over all steps of the group.
    The advantage of a token is the sum over the steps that end at it or later. ValueError as in
    `group_advantages`; the steps of a group are its samples.

        >>> ends = torch.tensor([[[False, True, True], [False, False, True]]])
        >>> process_advantages(torch.tensor([[[9.0, 1.0, 0.0], [9.0, 9.0, 0.5]]]), ends)
        tensor([[[ 0.0000,  0.0000, -1.2247],
                 [ 0.0000,  0.0000,  0.0000]]])
    """
    if (step_ends.sum(dim=(1, 2)) < 2).any():
        raise ValueError(
            "step_ends must mark at least 2 steps in each group, got "
            f"{step_ends.sum(dim=(1, 2)).tolist()}"
        )
    normalised = _normalise(
        rewards.flatten(1), step_ends.flatten(1), scale=scale, correction=correction, eps=eps
    ).view_as(rewards)  # (groups, samples, seq)
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
    n = valid.sum(1, keepdim=True)  # (groups, 1)
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
    advantages: Float[Tensor, "batch"] | Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    *,
    objective: Objective = GRPO,
    ref_log_probs: Float[Tensor, "batch seq"] | None = None,
) -> Float[Tensor, ""]:
    """Minus the objective of DeepSeekMath eq 3 (as it stands), V3 eq 26, Dr. GRPO or DAPO eq 8.

    At log_probs = old_log_probs its gradient is minus that of DeepSeekMath eq 20.

    `objective` says which of them; the named ones are in `rl.objective`. `mask` is True on the
    tokens of the output and False on prompt and padding, whose values are ignored. The KL is that
    of each token, and with ratio "sequence" that of whole outputs (V3 eq 27). Whoever accumulates
    gradients with average "token" weighs each call by its tokens. An output without tokens counts
    0. Only `log_probs` may carry gradient.

    A loss beyond the largest number of the type of `log_probs` (exp of a log-ratio of 89, in
    float32) is scaled down until it and its gradient fit: sign and direction stay.

    ValueError when only a derivative does not fit, when shapes differ, mask is empty, the objective
    has a beta and `ref_log_probs` is not given, or it averages by a constant and has no
    `max_length`; TypeError when mask is not bool.

        >>> old, mask = torch.full((2, 3), -1.0), torch.ones(2, 3, dtype=torch.bool)
        >>> grpo_loss(old, old, torch.tensor([2.0, -1.0]), mask)
        tensor(-0.5000)
        >>> from dsnotes.rl.objective import DAPO
        >>> grpo_loss(old, old, torch.tensor([2.0, -1.0]), mask, objective=DAPO)
        tensor(-0.5000)
    """
    if objective.average == "constant" and objective.max_length is None:
        raise ValueError("objective must have a max_length with average 'constant', got None")
    if objective.beta > 0 and ref_log_probs is None:
        raise ValueError(f"ref_log_probs must be given with a beta, got beta {objective.beta}")
    constants = {"old_log_probs": old_log_probs, "ref_log_probs": ref_log_probs}
    check_mask(mask, advantages=advantages, **constants)
    if advantages.ndim == 1:
        advantages = advantages[:, None].expand_as(mask)  # (batch, seq)

    n_tokens = mask.sum(dim=1, keepdim=True)  # (batch, 1)
    pi, old, a = (widened(x).masked_fill(~mask, 0) for x in (log_probs, old_log_probs, advantages))
    log_ratio = pi - old  # (batch, seq)
    if objective.ratio != "token":
        log_ratio = log_ratio.sum(dim=1, keepdim=True)  # V3 (26), (batch, 1)
    if objective.ratio == "geometric":
        log_ratio = log_ratio / n_tokens.clamp(min=1)
    rho = probability_ratio(log_ratio, a)
    terms = clipped_surrogate(  # (batch, seq)
        rho, a, clip_low=objective.clip_low, clip_high=objective.clip_high
    )
    steepness = terms.detach().abs()  # bounds the derivative by a log-prob
    if objective.beta > 0 and ref_log_probs is not None:
        ref = widened(ref_log_probs).masked_fill(~mask, 0)
        if objective.ratio == "sequence":
            pi, ref = pi.sum(dim=1, keepdim=True), ref.sum(dim=1, keepdim=True)
        kl = k3(pi, ref)  # DeepSeekMath (4), V3 (27)
        terms = terms - objective.beta * kl
        slope = (kl + ref - pi).abs()  # |x - 1|
        steepness = steepness + objective.beta * torch.maximum(kl, slope).detach()

    if objective.max_length is not None:
        share: Tensor | int = len(mask) * objective.max_length  # "constant": Dr. GRPO
    elif objective.average == "token":
        share = n_tokens.sum()  # DAPO (8)
    else:
        share = len(mask) * n_tokens.clamp(min=1)  # DeepSeekMath (3), V3 (26)

    loss = -(terms / share).masked_fill(~mask, 0).sum()  # divided first: a sum can overflow
    bound = (steepness / share).masked_fill(~mask, 0).sum()
    far = "log_probs lie too far from old_log_probs or ref_log_probs"
    return narrowed(loss, log_probs, what=far, bound=bound, saturate=True)
