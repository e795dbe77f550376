"""Rotary position embedding (RoPE) in the layout of the released weights, and YaRN.

RoPE turns each adjacent pair of channels by an angle proportional to the token's position, so that
the product of a query and a key depends on the distance between them alone. YaRN stretches a
trained model to longer contexts: slow pairs are slowed by `factor`, fast ones are left alone, and
the attention logits are multiplied by a constant.

Equations
    RoFormer (arXiv 2104.09864) eq 34     theta_m = rope_theta^(-2m/d), rotation by t * theta_m
    YaRN (arXiv 2309.00071) section 3.2   blend of theta_m and theta_m / factor ("NTK by parts")
    V3 (arXiv 2412.19437) section 4.3     factor 40, alpha 1 (beta_slow), beta 32 (beta_fast)

Departures
    - The ramp between the two is linear in the index m, between two rounded indices, as in the
      released code; the YaRN paper makes it linear in the number of turns.
    - The constant multiplies the softmax scale (mscale^2, content part included) and leaves cos and
      sin alone, as in the released code; YaRN puts it into cos and sin.
    - YaRN is on whenever `rope_scaling` is given; the released inference code turns it on when its
      maximum length exceeds the trained one, which its default does.
    - Angles are float32 (float64 in a float64 model), also where the model is bfloat16.

Legend of shapes: `shape` is that of the positions, pairs = qk_rope_head_dim / 2, channels two each.
"""

import math

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least
from dsnotes.config import Config, RopeScaling


@checked
def rope_frequencies(config: Config) -> Float[Tensor, "pairs"]:
    """Angle by which each pair of channels turns from one position to the next, in radians.

    Returns `qk_rope_head_dim / 2` numbers in float64 on the CPU, fastest pair first; with
    `rope_scaling` those of YaRN.

        >>> rope_frequencies(DEEPSEEK_V3)[0].item()
        1.0
    """
    return pair_frequencies(
        dim=config.qk_rope_head_dim, base=config.rope_theta, scaling=config.rope_scaling
    )


@checked
def pair_frequencies(
    *, dim: int, base: float, scaling: RopeScaling | None
) -> Float[Tensor, "pairs"]:
    """`rope_frequencies` for `dim` channels, from the numbers that a configuration holds.

    >>> pair_frequencies(dim=4, base=100.0, scaling=None).tolist()
    [1.0, 0.1]
    """
    at_least(2, dim=dim)
    pair = torch.arange(dim // 2, dtype=torch.float64, device="cpu")
    theta = base ** (-2 * pair / dim)
    if scaling is None:
        return theta
    low, high = yarn_range(scaling, dim=dim, base=base)
    # 0: as trained, 1: divided by the factor; a step where the two bounds coincide. Bounds outside
    # the pairs can come in the wrong order: their ramp is that of transformers.
    slowed = ((pair - low) / ((high - low) or 0.001)).clamp(0, 1)
    return theta * (1 - slowed) + theta / scaling.factor * slowed


@checked
def yarn_range(scaling: RopeScaling, *, dim: int, base: float) -> tuple[int, int]:
    """Indices of the pairs between which YaRN blends: (last untouched, first fully slowed).

    Pair m turns r(m) = L / (2 pi base^(2m/dim)) times within the trained length L; the bounds are
    the m at which r is `beta_fast` and `beta_slow`, rounded outwards. V3: 10 and 23 of 32.

        >>> yarn_range(DEEPSEEK_V3.rope_scaling, dim=64, base=10000.0)
        (10, 23)
    """

    at_least(1, dim=dim)

    def index(turns: float) -> float:
        length = scaling.original_max_position_embeddings
        return dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(index(scaling.beta_fast)), 0)
    high = min(math.ceil(index(scaling.beta_slow)), dim - 1)
    return low, high


@checked
def softmax_scale(config: Config) -> float:
    """What the attention logits are multiplied by: (d_h + d_h^R)^-1/2, and mscale^2 under YaRN.

    V3 eq 10 and section 4.3, mscale = 0.1 ln(factor) + 1. Raises ValueError when `mscale` and
    `mscale_all_dim` differ, which would scale cos and sin too; V2, V2-Lite and V3 have both alike.

        >>> round(softmax_scale(DEEPSEEK_V3), 5)
        0.13523
    """
    scale = 1 / math.sqrt(config.qk_head_dim)
    scaling = config.rope_scaling
    if scaling is None:
        return scale
    mscale = 0.1 * scaling.mscale_all_dim * math.log(scaling.factor) + 1
    return scale * mscale * mscale


@checked
def rope_rotation(
    positions: Int[Tensor, "*shape"], frequencies: Float[Tensor, "pairs"], *, dtype: torch.dtype
) -> Complex[Tensor, "*shape pairs"]:
    """e^(i t theta) for each position t and each frequency theta, for a model of type `dtype`.

    >>> rope_rotation(torch.arange(5), rope_frequencies(TINY), dtype=torch.float32).shape
    torch.Size([5, 4])
    """
    wide = torch.promote_types(dtype, torch.float32)
    angles = positions.unsqueeze(-1).to(wide) * frequencies.to(positions.device, wide)  # eq 34
    return torch.polar(torch.ones_like(angles), angles)


@checked
def apply_rope(
    x: Float[Tensor, "*shape channels"], rotation: Complex[Tensor, "*#shape pairs"]
) -> Float[Tensor, "*shape channels"]:
    """Turn the adjacent pairs (x_0, x_1), (x_2, x_3), ... of the last axis by `rotation`.

    Each pair is one complex number, so that the rotation is one product. The result stays
    interleaved like the input and keeps its type.

        >>> apply_rope(torch.tensor([1.0, 0.0]), torch.polar(torch.ones(1), torch.ones(1)))
        tensor([0.5403, 0.8415])
    """
    if x.shape[-1] != 2 * rotation.shape[-1]:
        raise ValueError(
            f"x must have two channels per pair of rotation, got {x.shape[-1]} channels and "
            f"{rotation.shape[-1]} pairs"
        )
    wide = torch.promote_types(x.dtype, torch.float32)
    two = x.to(wide).unflatten(-1, (-1, 2)).contiguous()  # (*shape, pairs, 2)
    if two.storage_offset() % 2:  # a view that begins within what would be one complex number
        two = two.clone()
    turned = torch.view_as_complex(two) * rotation  # (*shape, pairs)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)
