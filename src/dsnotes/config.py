"""Model configuration, with the field names of the released `config.json`.

`Config` says everything about the architecture of a DeepSeek V2 or V3 model and nothing about
training. The presets hold the published sizes (V3: arXiv 2412.19437 §4.2 and the released
configuration; V2 and V2-Lite: arXiv 2405.04434 §3.1.2 and appendix B.1).

Departures from the released file: keys that do not describe the architecture (`torch_dtype`,
`quantization_config`, ...) are not kept, and a value that contradicts another one is refused. How
files of other programs are read is described in `dsnotes.config_file`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from dsnotes.checks.fields import check_fields
from dsnotes.config_file import architecture, check_derived, config_json, read_json

ScoringFunc = Literal["softmax", "sigmoid"]
TopkMethod = Literal["greedy", "group_limited_greedy", "noaux_tc"]


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """YaRN settings, the `rope_scaling` object of the released file.

    `mscale` and `mscale_all_dim` are one number: the softmax is scaled, cos and sin are not. 0
    leaves the softmax alone too. ValueError names a field that is out of range.
    """

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 1.0
    type: Literal["yarn"] = "yarn"

    def __post_init__(self) -> None:
        check_fields(self, within="rope_scaling.", may_be_zero={"mscale", "mscale_all_dim"})
        if self.factor < 1:
            raise ValueError(f"rope_scaling.factor must be at least 1, got {self.factor}")
        if self.beta_fast < self.beta_slow:
            raise ValueError(
                "rope_scaling.beta_fast must be at least beta_slow, "
                f"got beta_fast={self.beta_fast}, beta_slow={self.beta_slow}"
            )
        if self.mscale != self.mscale_all_dim:
            raise ValueError(
                f"rope_scaling.mscale ({self.mscale}) must equal mscale_all_dim "
                f"({self.mscale_all_dim}): scaled cos and sin are not supported"
            )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Architecture of one model; sizes count elements, not bytes.

    The symbols of the V3 report stand beside the fields. `Config(...)` raises ValueError naming
    the field when a value is out of range or contradicts another one.

        >>> replace(TINY, n_routed_experts=32).n_group
        4
    """

    vocab_size: int  # V
    hidden_size: int  # d
    num_hidden_layers: int  # L
    # feed-forward
    intermediate_size: int  # inner size of a dense layer
    first_k_dense_replace: int = 0  # how many leading layers are dense
    moe_intermediate_size: int  # inner size of one expert
    n_shared_experts: int = 0  # N_s
    n_routed_experts: int  # N_r
    num_experts_per_tok: int  # K_r
    scoring_func: ScoringFunc = "sigmoid"
    topk_method: TopkMethod = "noaux_tc"  # noaux_tc: with a selection bias per expert
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    n_group: int = 1  # groups of experts (a node each in V3, a device in V2)
    topk_group: int = 1  # M, how many groups a token may use
    # attention
    num_attention_heads: int  # n_h
    q_lora_rank: int | None = None  # d'_c; None: queries are not compressed
    kv_lora_rank: int  # d_c
    qk_nope_head_dim: int  # d_h
    qk_rope_head_dim: int  # d_h^R
    v_head_dim: int
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    max_position_embeddings: int = 4096
    num_nextn_predict_layers: int = 0  # D, multi-token prediction modules
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.006

    def __post_init__(self) -> None:
        check_fields(self, may_be_zero=_MAY_BE_ZERO)
        if self.first_k_dense_replace > self.num_hidden_layers:
            k, n = self.first_k_dense_replace, self.num_hidden_layers
            raise ValueError(f"first_k_dense_replace ({k}) must not exceed num_hidden_layers ({n})")
        if self.qk_rope_head_dim % 2:
            raise ValueError(f"qk_rope_head_dim must be even, got {self.qk_rope_head_dim}")
        if self.rope_theta <= 1:
            raise ValueError(f"rope_theta must exceed 1, got {self.rope_theta}")
        self._check_groups()

    def _check_groups(self) -> None:
        if self.n_routed_experts % self.n_group:
            n = self.n_routed_experts
            raise ValueError(f"n_group ({self.n_group}) must divide n_routed_experts ({n})")
        if self.topk_group > self.n_group:
            n = self.n_group
            raise ValueError(f"topk_group ({self.topk_group}) must not exceed n_group ({n})")
        if self.topk_method == "greedy" and self.n_group > 1:
            raise ValueError(f"topk_method 'greedy' knows no groups, but n_group is {self.n_group}")
        group_size = self.n_routed_experts // self.n_group
        if self.topk_method == "noaux_tc" and self.n_group > 1 and group_size < 2:
            raise ValueError(
                f"n_group ({self.n_group}) leaves one expert per group, but topk_method 'noaux_tc' "
                "scores a group by its two best"
            )
        reachable = self.topk_group * group_size
        if self.num_experts_per_tok > reachable:
            raise ValueError(
                f"num_experts_per_tok ({self.num_experts_per_tok}) must not exceed the {reachable} "
                f"experts of the {self.topk_group} selected groups"
            )

    @property
    def qk_head_dim(self) -> int:
        """Width of a query or key head, content and position part together."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @classmethod
    def from_json(cls, source: str | Path | Mapping[str, Any]) -> "Config":
        """Read a `config.json` of V2 or V3 (a path, or its parsed content).

        YaRN is read from `rope_scaling` or from `rope_parameters`. ValueError names a field that is
        missing or unknown, or that asks for something the model here does not compute, and the
        `model_type` of another family.

            >>> Config.from_json({**TINY.to_json(), "kv_lora_rank": 24}).kv_lora_rank
            24
        """
        raw = source if isinstance(source, Mapping) else read_json(source)
        values = architecture(raw, {field.name for field in fields(cls)})
        if values["rope_scaling"] is not None:
            values["rope_scaling"] = RopeScaling(**values["rope_scaling"])
        config = cls(**values)
        check_derived(raw, config)
        return config

    def to_json(self) -> dict[str, Any]:
        """What a `config.json` holds: our fields, and what other readers of it need besides.

        >>> TINY.to_json()["model_type"]
        'deepseek_v3'
        """
        return config_json(self)


_MAY_BE_ZERO = {"first_k_dense_replace", "n_shared_experts", "num_nextn_predict_layers"}

_YARN = RopeScaling(factor=40.0, original_max_position_embeddings=4096)

DEEPSEEK_V3 = Config(
    vocab_size=129280,
    hidden_size=7168,
    num_hidden_layers=61,
    intermediate_size=18432,
    first_k_dense_replace=3,
    moe_intermediate_size=2048,
    n_shared_experts=1,
    n_routed_experts=256,
    num_experts_per_tok=8,
    routed_scaling_factor=2.5,
    n_group=8,
    topk_group=4,
    num_attention_heads=128,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    rope_scaling=_YARN,
    max_position_embeddings=163840,
    num_nextn_predict_layers=1,
)

# V2 differs from V3 in this; the shape of an attention head is the same.
DEEPSEEK_V2 = replace(
    DEEPSEEK_V3,
    vocab_size=102400,
    hidden_size=5120,
    num_hidden_layers=60,
    intermediate_size=12288,
    first_k_dense_replace=1,
    moe_intermediate_size=1536,
    n_shared_experts=2,
    n_routed_experts=160,
    num_experts_per_tok=6,
    scoring_func="softmax",
    topk_method="group_limited_greedy",
    norm_topk_prob=False,
    routed_scaling_factor=16.0,
    topk_group=3,
    rope_scaling=replace(_YARN, mscale=0.707, mscale_all_dim=0.707),
    num_nextn_predict_layers=0,
)

# The released file gives it the YaRN of V2; the report (App. B.1) tells of 32K after extension.
DEEPSEEK_V2_LITE = replace(
    DEEPSEEK_V2,
    hidden_size=2048,
    num_hidden_layers=27,
    intermediate_size=10944,
    moe_intermediate_size=1408,
    n_routed_experts=64,
    topk_method="greedy",
    routed_scaling_factor=1.0,
    n_group=1,
    topk_group=1,
    num_attention_heads=16,
    q_lora_rank=None,
)

# Every mechanism of V3 at a size that trains on a laptop: one byte is one token.
TINY = Config(
    vocab_size=256,
    hidden_size=64,
    num_hidden_layers=3,
    intermediate_size=192,
    first_k_dense_replace=1,
    moe_intermediate_size=32,
    n_shared_experts=1,
    n_routed_experts=16,
    num_experts_per_tok=4,
    routed_scaling_factor=2.5,
    n_group=4,
    topk_group=2,
    num_attention_heads=4,
    q_lora_rank=48,
    kv_lora_rank=32,
    qk_nope_head_dim=16,
    qk_rope_head_dim=8,
    v_head_dim=16,
    max_position_embeddings=512,
    num_nextn_predict_layers=1,
)
