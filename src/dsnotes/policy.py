"""What PPO and GRPO share: log-probs and mask of an output, the clipped ratio, estimators of KL.

The model's logits in place t are about the token in place t + 1, so log-probs and masks are one
shorter than the tokens; everything after them works on these two.

Equations
    PPO (arXiv 1707.06347): (7) the clipped surrogate
    DeepSeekMath (arXiv 2402.03300): (4), V3 (arXiv 2412.19437): (27), the estimator k3 of KL

Departures
    DeepSeekMath calls k3 positive: it is 0 where the two policies agree. No paper mentions that the
    gradient of an estimator need not be that of what it estimates; see `k1`, `k2`, `k3`.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def token_log_probs(
    logits: Float[Tensor, "batch seq vocab"],
    tokens: Int[Tensor, "batch seq"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, "batch seq-1"]:
    """log pi(o_t | q, o_<t): column j is about `tokens[:, j + 1]`, predicted by `logits[:, j]`.

    `temperature` is the one that the tokens were sampled at: the ratio is about that distribution.
    ValueError when it is not positive or the shapes do not fit.

        >>> token_log_probs(torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2]]))
        tensor([[-1.3863, -1.3863]])
    """
    if logits.ndim != 3 or logits.shape[:2] != tokens.shape:
        raise ValueError(
            f"logits must be (batch, seq, vocab) for tokens {tuple(tokens.shape)}, "
            f"got {tuple(logits.shape)}"
        )
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be a positive finite number, got {temperature!r}")
    log_probs = (logits[:, :-1] / temperature).log_softmax(-1)
    return log_probs.gather(-1, tokens[:, 1:, None])[..., 0]


def completion_mask(
    tokens: Int[Tensor, "batch seq"], prompt_lengths: Int[Tensor, " batch"], *, eos: int
) -> Bool[Tensor, "batch seq-1"]:
    """True on the log-probs of the output: after the prompt, up to its first `eos` and with it.

    `prompt_lengths` counts what stands before the output, padding on the left included. The eos is
    trained: else the policy would not learn to stop. ValueError when a prompt is empty or longer
    than the row.

        >>> completion_mask(torch.tensor([[5, 6, 7, 0, 0]]), torch.tensor([2]), eos=0)
        tensor([[False,  True,  True, False]])
    """
    if ((prompt_lengths < 1) | (prompt_lengths > tokens.shape[1])).any():
        raise ValueError(
            f"prompt_lengths must lie in 1 .. {tokens.shape[1]}, got {prompt_lengths.tolist()}"
        )
    output = torch.arange(tokens.shape[1], device=tokens.device) >= prompt_lengths[:, None]
    ended = ((tokens == eos) & output).long()
    before_end = ended.cumsum(1) - ended == 0  # no eos strictly before
    return (output & before_end)[:, 1:]


def k1(
    log_probs: Float[Tensor, "*shape"], ref_log_probs: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """-log r, r = pi_ref / pi: unbiased for KL(pi || ref), can be negative; as a loss, no gradient.

    In expectation, that is, over samples from pi, as in all three.

        >>> k1(torch.tensor([-1.0]), torch.tensor([-2.0]))
        tensor([1.])
    """
    return log_probs - ref_log_probs


def k2(
    log_probs: Float[Tensor, "*shape"], ref_log_probs: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """(log r)^2 / 2: biased, at least 0; as a loss its gradient is that of KL(pi || ref).

    >>> k2(torch.tensor([-1.0]), torch.tensor([-2.0]))
    tensor([0.5000])
    """
    return (ref_log_probs - log_probs).square() / 2


def k3(
    log_probs: Float[Tensor, "*shape"], ref_log_probs: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """r - 1 - log r (DeepSeekMath eq 4, V3 eq 27): unbiased for KL(pi || ref), at least 0.

    As a loss its gradient is that of the other direction, KL(ref || pi).

        >>> k3(torch.tensor([-1.0]), torch.tensor([-2.0]))
        tensor([0.3679])
    """
    log_r = ref_log_probs - log_probs
    return log_r.expm1() - log_r


def clipped_surrogate(
    ratio: Float[Tensor, "..."],
    advantages: Float[Tensor, "..."],
    *,
    clip_low: float = 0.2,
    clip_high: float | None = None,
) -> Float[Tensor, "..."]:
    """min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), PPO eq 7; the shapes broadcast.

    `clip_high` is `clip_low` unless given. ValueError when one is negative.

        >>> clipped_surrogate(torch.tensor([1.5, 1.5]), torch.tensor([1.0, -1.0]))
        tensor([ 1.2000, -1.5000])
    """
    clip_high = clip_low if clip_high is None else clip_high
    check_factor("clip_low", clip_low)
    check_factor("clip_high", clip_high)
    return torch.min(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)


def check_tokens(
    log_probs: Float[Tensor, "..."], mask: Bool[Tensor, "..."], **others: Tensor | None
) -> None:
    """ValueError unless all are (batch, seq) alike, mask marks a token, and no other has gradient.

    TypeError for a mask of numbers: `~mask` of a 1 is -2. A ratio whose denominator carries
    gradient has the value 1 and the gradient 0.

        >>> check_tokens(torch.zeros(1, 2), torch.ones(1, 2).bool(), values=torch.zeros(1, 3))
        ValueError: values must have the shape of log_probs (1, 2), got (1, 3)
    """
    shape = tuple(log_probs.shape)
    if len(shape) != 2:
        raise ValueError(f"log_probs must be (batch, seq), got {shape}")
    for name, tensor in {"mask": mask, **others}.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} must have the shape of log_probs {shape}, got {tuple(tensor.shape)}"
            )
        if tensor.requires_grad:
            raise ValueError(f"{name} must be detached, got one that requires grad")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be of dtype bool, got {mask.dtype}")
    if not mask.any():
        raise ValueError("mask must mark at least one token, got none")


def check_factor(name: str, value: float) -> None:
    """ValueError unless `value` is finite and at least 0; `name` is the argument it came by."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")
