"""Configurations of V3.2 and V4, with the field names of the released `config.json`.

`ConfigV32` is V3's configuration and the three sizes of its lightning indexer; `ConfigV4` is a
family of its own. The presets hold the published sizes (V3.2: report of V3.2-Exp §1 and the
released code; V4: arXiv 2606.19348 §4.2.1 and the released files).

Departures
    - `compress_ratios` has one entry a layer of the main model; the released file of V4-Flash
      appends entries for what follows it, which are dropped when a file is read.
    - That V4-Pro multiplies its routed experts by 2.5 was read at second hand; no count needs it.
"""

from dataclasses import asdict, dataclass, replace

from dsnotes.checks.fields import check_fields
from dsnotes.config import DEEPSEEK_V3, TINY, Config, RopeScaling

CSA_RATIO = 4  # the released code: windows overlap and an indexer chooses where the ratio is 4


@dataclass(frozen=True, kw_only=True)
class ConfigV32(Config):
    """V3 with sparse attention: a lightning indexer chooses `index_topk` tokens for each query.

    >>> DEEPSEEK_V32.index_topk
    2048
    """

    index_n_heads: int  # H^I
    index_head_dim: int  # d^I
    index_topk: int  # k

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.q_lora_rank is None:
            raise ValueError("q_lora_rank must be given: the indexer reads the compressed query")
        _check_indexer(self.index_head_dim, self.qk_rope_head_dim)


@dataclass(frozen=True, kw_only=True)
class ConfigV4:
    """Architecture of a V4 model; symbols of the report (§2, §4.2.1) stand beside the fields.

    ValueError names the field whose value is out of range or contradicts another one.

        >>> DEEPSEEK_V4_FLASH.compress_ratios[:6]
        (0, 0, 4, 128, 4, 128)
        >>> TINY_V4.num_hidden_layers
        4
    """

    vocab_size: int  # V
    hidden_size: int  # d
    num_hidden_layers: int  # L
    # attention
    num_attention_heads: int  # n_h
    head_dim: int  # c, the width of a query head and of the one entry that is key and value
    qk_rope_head_dim: int  # how many of its last channels are turned
    q_lora_rank: int  # d_c
    o_groups: int  # g
    o_lora_rank: int  # d_g
    sliding_window: int  # n_win
    compress_ratios: tuple[int, ...]  # a layer each: 0 window only, m = 4 CSA, any other m' HCA
    compress_rope_theta: float = 160000.0  # base of all angles in a layer that compresses
    rope_theta: float = 10000.0  # base in the others
    rope_scaling: RopeScaling | None = None  # YaRN, in the layers that compress; no mscale
    index_n_heads: int  # n_h^I
    index_head_dim: int  # c^I
    index_topk: int  # k
    # feed-forward
    moe_intermediate_size: int
    n_routed_experts: int
    n_shared_experts: int = 1
    num_experts_per_tok: int
    norm_topk_prob: bool = True
    num_hash_layers: int = 3  # leading layers that route by a table of token ids
    routed_scaling_factor: float = 1.5
    swiglu_limit: float = 10.0
    # residual streams
    hc_mult: int = 4  # n
    hc_sinkhorn_iters: int = 20  # t_max
    hc_eps: float = 1e-6
    max_position_embeddings: int = 1048576
    num_nextn_predict_layers: int = 0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        check_fields(self, may_be_zero={"num_hash_layers", "num_nextn_predict_layers"})
        n = self.num_hidden_layers
        if len(self.compress_ratios) != n:
            raise ValueError(
                f"compress_ratios must have num_hidden_layers ({n}) entries, "
                f"got {len(self.compress_ratios)}"
            )
        if self.qk_rope_head_dim % 2 or self.qk_rope_head_dim > self.head_dim:
            raise ValueError(
                f"qk_rope_head_dim must be even and at most head_dim ({self.head_dim}), "
                f"got {self.qk_rope_head_dim}"
            )
        _check_indexer(self.index_head_dim, self.qk_rope_head_dim)
        if self.num_attention_heads % self.o_groups:
            heads = self.num_attention_heads
            raise ValueError(
                f"o_groups ({self.o_groups}) must divide num_attention_heads ({heads})"
            )
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(
                f"num_experts_per_tok ({self.num_experts_per_tok}) must not exceed "
                f"n_routed_experts ({self.n_routed_experts})"
            )
        if self.num_hash_layers > n:
            raise ValueError(
                f"num_hash_layers ({self.num_hash_layers}) must not exceed num_hidden_layers ({n})"
            )


def _check_indexer(index_head_dim: int, qk_rope_head_dim: int) -> None:
    if index_head_dim < qk_rope_head_dim:
        raise ValueError(
            f"index_head_dim ({index_head_dim}) must be at least qk_rope_head_dim "
            f"({qk_rope_head_dim}), whose channels the indexer turns too"
        )


def _alternating(first: int, layers: int) -> tuple[int, ...]:
    """Two layers of one kind, then CSA (ratio 4) and HCA (ratio 128) in turn."""
    return (first, first, *(128 if layer % 2 else CSA_RATIO for layer in range(layers - 2)))


DEEPSEEK_V32 = ConfigV32(
    **(asdict(DEEPSEEK_V3) | {"rope_scaling": DEEPSEEK_V3.rope_scaling}),
    index_n_heads=64,
    index_head_dim=128,
    index_topk=2048,
)

# Many heads in the indexer: with few, many scores are exactly 0 and the best k are not determined.
TINY_V32 = ConfigV32(**asdict(TINY), index_n_heads=32, index_head_dim=16, index_topk=4)

DEEPSEEK_V4_FLASH = ConfigV4(
    vocab_size=129280,
    hidden_size=4096,
    num_hidden_layers=43,
    num_attention_heads=64,
    head_dim=512,
    qk_rope_head_dim=64,
    q_lora_rank=1024,
    o_groups=8,
    o_lora_rank=1024,
    sliding_window=128,
    compress_ratios=_alternating(0, 43),
    rope_scaling=RopeScaling(factor=16.0, original_max_position_embeddings=65536),
    index_n_heads=64,
    index_head_dim=128,
    index_topk=512,
    moe_intermediate_size=2048,
    n_routed_experts=256,
    num_experts_per_tok=6,
    num_nextn_predict_layers=1,
)

DEEPSEEK_V4_PRO = replace(
    DEEPSEEK_V4_FLASH,
    hidden_size=7168,
    num_hidden_layers=61,
    num_attention_heads=128,
    q_lora_rank=1536,
    o_groups=16,
    compress_ratios=_alternating(128, 61),
    index_topk=1024,
    moe_intermediate_size=3072,
    n_routed_experts=384,
    routed_scaling_factor=2.5,
)

# All three kinds of attention and both kinds of routing, at a size for a laptop.
TINY_V4 = ConfigV4(
    vocab_size=256,
    hidden_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    head_dim=32,
    qk_rope_head_dim=8,
    q_lora_rank=48,
    o_groups=2,
    o_lora_rank=24,
    sliding_window=8,
    compress_ratios=(0, 4, 16, 4),
    index_n_heads=32,
    index_head_dim=16,
    index_topk=4,
    moe_intermediate_size=32,
    n_routed_experts=16,
    num_experts_per_tok=4,
    num_hash_layers=1,
    max_position_embeddings=512,
)
