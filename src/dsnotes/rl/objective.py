"""What PPO and GRPO share: log-probs and mask of an output, the clipped ratio, estimators of KL.

The logits in place t predict the token in place t + 1, so log-probs and masks are one shorter than
the tokens. All losses work on these two. An `Objective` names the choices in which the published
objectives of GRPO differ.

Equations
    PPO (arXiv 1707.06347): (7) the clipped surrogate
    DeepSeekMath (arXiv 2402.03300): (4), V3 (arXiv 2412.19437): (27), the estimator k3 of KL
    the named objectives: equations and open points in `dsnotes.rl.grpo`

Departures
    DeepSeekMath calls k3 positive; it is 0 where the two policies agree. No paper mentions that an
    estimator of KL need not have the gradient of KL; see `k1`, `k2`, `k3`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from dsnotes.checks.arguments import check_fields, checked
from dsnotes.checks.numeric import at_least, narrowed, token_ids, widened


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What `grpo.grpo_loss` maximises; the defaults are those of `GRPO`.

    What is clipped is the `ratio` of each "token", of the whole "sequence", or its "geometric" mean
    per token. `average` is over the tokens of a "sequence" and then over outputs, over every
    "token" at once, or the sum divided by a "constant" number of tokens, `max_length`.

    ValueError for a negative clip width or beta, another ratio or average, and a `max_length` below
    1 or without "constant".

        >>> Objective(average="token", clip_high=0.28) == DAPO
        True
    """

    scale: bool = True  # advantages are divided by the std of their group
    ratio: Literal["token", "sequence", "geometric"] = "token"
    average: Literal["sequence", "token", "constant"] = "sequence"
    clip_low: float = 0.2
    clip_high: float | None = None  # as clip_low
    beta: float = 0.0  # weight of the KL to the reference
    max_length: int | None = None  # None with "constant": `rollout.policy_step` knows it

    def __post_init__(self) -> None:
        check_fields(self)
        at_least(0, clip_low=self.clip_low, clip_high=self.clip_high, beta=self.beta)
        at_least(1, max_length=self.max_length)
        if self.max_length is not None and self.average != "constant":
            raise ValueError(
                f"max_length must be None unless average is 'constant', got {self.max_length} "
                f"with {self.average!r}"
            )


# What a report leaves open (clip width, beta of V3) keeps the default.
GRPO = Objective()  # DeepSeekMath's without KL
DEEPSEEKMATH = Objective(beta=0.04)
V3 = Objective(ratio="sequence")
R1 = Objective(ratio="sequence", clip_low=10.0, beta=0.001)  # first RL stage; v2 section 3.2.1
DR_GRPO = Objective(scale=False, average="constant")
DAPO = Objective(average="token", clip_high=0.28)
OBJECTIVES = {
    "deepseekmath": DEEPSEEKMATH,
    "deepseek-v3": V3,
    "deepseek-r1": R1,
    "dr-grpo": DR_GRPO,
    "dapo": DAPO,
}


@checked
def token_log_probs(
    logits: Float[Tensor, "batch seq vocab"],
    tokens: Integer[Tensor, "batch seq"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, "batch seq-1"]:
    """log pi(o_t | q, o_<t): column j is about `tokens[:, j + 1]`, predicted by `logits[:, j]`.

    `temperature` is the one that the tokens were sampled at: the ratio is about that distribution.
    The result is float32 or wider. ValueError when the temperature is not positive, when a gradient
    of 1 / temperature does not fit the type of the logits, or when a log-prob does not fit.

        >>> token_log_probs(torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2]]))
        tensor([[-1.3863, -1.3863]])
    """
    tokens = token_ids(tokens, vocab_size=logits.shape[-1])
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature!r}")
    least = 1 / torch.finfo(logits.dtype).max
    if temperature < least and logits.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"temperature must exceed {least:.3g} for gradients, got {temperature!r}")
    # a temperature that float32 would round to 0 divides in float64
    wide = torch.promote_types(logits.dtype, torch.float64 if temperature < 1e-30 else torch.float)
    x = logits[:, :-1].to(wide)
    if temperature < 1:  # nothing overflows but what is infinitely unlikely
        x = x - x.detach().amax(-1, keepdim=True)
    log_p = (x / temperature).log_softmax(-1)  # (batch, seq - 1, vocab)
    found = log_p.gather(-1, tokens[:, 1:, None])[..., 0]  # (batch, seq - 1)
    found = found.to(torch.promote_types(logits.dtype, torch.float))
    if not found.isfinite().all() and (logits[:, :-1].isfinite().all(-1) & ~found.isfinite()).any():
        raise ValueError(f"logits are too far apart: a log-prob does not fit {found.dtype}")
    return found


@checked
def completion_mask(
    tokens: Integer[Tensor, "batch seq"],
    prompt_lengths: Integer[Tensor, "batch"],
    *,
    eos: int | Sequence[int],
) -> Bool[Tensor, "batch seq-1"]:
    """True on the log-probs of the output: after the prompt, up to its first `eos` and with it.

    `prompt_lengths` counts all tokens before the output, with the padding on the left. The first of
    any `eos` ends the output. The eos is trained: otherwise the policy would not learn to stop.
    ValueError when a prompt is empty or longer than the row.

        >>> completion_mask(torch.tensor([[5, 6, 7, 0, 0]]), torch.tensor([2]), eos=0)
        tensor([[False,  True,  True, False]])
    """
    tokens, prompt_lengths = tokens.long(), prompt_lengths.long()
    if ((prompt_lengths < 1) | (prompt_lengths > tokens.shape[1])).any():
        raise ValueError(
            f"prompt_lengths must lie in 1 .. {tokens.shape[1]}, got {prompt_lengths.tolist()}"
        )
    output = torch.arange(tokens.shape[1], device=tokens.device) >= prompt_lengths[:, None]
    ends = torch.tensor(eos, device=tokens.device, dtype=torch.long)
    ended = (torch.isin(tokens, ends) & output).long()
    before_end = ended.cumsum(1) - ended == 0  # no eos strictly before
    return (output & before_end)[:, 1:]


@checked
def k1(
    log_probs: Float[Tensor, "*shape"], ref_log_probs: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """-log x with x = pi_ref / pi: an unbiased estimate of KL(pi || ref), which can be negative.

    As a loss its gradient is 0 in expectation over samples from pi. All three estimators are
    computed in float64; ValueError when the result does not fit the type of `log_probs`.

        >>> k1(torch.tensor([-1.0]), torch.tensor([-2.0]))
        tensor([1.])
    """
    log_x = widened(ref_log_probs) - widened(log_probs)
    return _estimate(-log_x, log_probs, ref_log_probs)


@checked
def k2(
    log_probs: Float[Tensor, "*shape"], ref_log_probs: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """(log x)^2 / 2: a biased estimate, at least 0. As a loss it has the gradient of KL(pi || ref).

    >>> k2(torch.tensor([-1.0]), torch.tensor([-2.0]))
    tensor([0.5000])
    """
    log_x = widened(ref_log_probs) - widened(log_probs)
    return _estimate(log_x.square() / 2, log_probs, ref_log_probs, slope=log_x)


@checked
def k3(
    log_probs: Float[Tensor, "*shape"], ref_log_probs: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """x - 1 - log x (DeepSeekMath eq 4, V3 eq 27): an unbiased estimate of the KL, at least 0.

    As a loss it has the gradient of the other direction, KL(ref || pi).

        >>> k3(torch.tensor([-1.0]), torch.tensor([-2.0]))
        tensor([0.3679])
    """
    log_x = widened(ref_log_probs) - widened(log_probs)
    return _estimate(log_x.expm1() - log_x, log_probs, ref_log_probs, slope=log_x)


def _estimate(k: Tensor, *log_probs: Tensor, slope: Tensor | None = None) -> Tensor:
    bound = None if slope is None else k + slope.abs()  # k3: |1 - x| <= k3 + |log x|
    return narrowed(
        k, *log_probs, what="log_probs and ref_log_probs lie too far apart", bound=bound
    )


@checked
def clipped_surrogate(
    ratio: Float[Tensor, "..."],
    advantages: Float[Tensor, "..."],
    *,
    clip_low: float = 0.2,
    clip_high: float | None = None,
) -> Float[Tensor, "..."]:
    """min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), PPO eq 7; the shapes broadcast.

    `clip_high` is `clip_low` unless given. ValueError when one is negative, or when the result does
    not fit the type of `ratio`.

        >>> clipped_surrogate(torch.tensor([1.5, 1.5]), torch.tensor([1.0, -1.0]))
        tensor([ 1.2000, -1.5000])
    """
    clip_high = clip_low if clip_high is None else clip_high
    at_least(0, clip_low=clip_low, clip_high=clip_high)
    rho, a = widened(ratio), widened(advantages)
    surrogate = torch.min(rho * a, rho.clamp(1 - clip_low, 1 + clip_high) * a)
    return narrowed(surrogate, ratio, what="ratio times advantages is too large")


@checked
def probability_ratio(log_ratio: Tensor, advantages: Tensor) -> Tensor:
    """rho = exp(log_ratio), limited to what the type holds.

    Where the clip gives the gradient 0 it would be 0 * inf otherwise. ValueError at a negative
    advantage, where nothing clips a large ratio.

        >>> probability_ratio(torch.tensor([1000.0]).double(), torch.ones(1)).isfinite()
        tensor([True])
    """
    limit = math.floor(math.log(torch.finfo(log_ratio.dtype).max))
    if ((log_ratio > limit) & (advantages < 0)).any():
        raise ValueError(
            f"log_probs must not exceed old_log_probs by more than {limit} nats where the "
            f"advantage is negative, got {log_ratio.max():.6g}"
        )
    return log_ratio.clamp(max=limit).exp()


def check_mask(mask: Bool[Tensor, "batch seq"], **constants: Tensor | None) -> None:
    """ValueError unless mask marks a token and none of the other tensors carries gradient.

    A ratio whose denominator carries gradient has the value 1 and the gradient 0.

        >>> check_mask(torch.zeros(1, 2, dtype=torch.bool))
        Traceback (most recent call last):
        ValueError: mask must mark at least one token, got none
    """
    for name, tensor in constants.items():
        if tensor is not None and tensor.requires_grad:
            raise ValueError(f"{name} must be detached, got one that requires grad")
    if not mask.any():
        raise ValueError("mask must mark at least one token, got none")
