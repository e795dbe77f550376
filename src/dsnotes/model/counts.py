"""How many parameters a model has and how many of them one token uses, from its configuration.

Every count is a product of the shapes of one weight, so the table can be read beside the released
checkpoint (V3 report §4.2, README_WEIGHTS of the release). The selection bias of the router is
counted as stored: it is a buffer of the checkpoint, not a trained weight.

Convention: `Count.activated` counts the output head and not the embedding, a look-up of one row.
That the published figures do so is our inference: it gives the 37B of V3, the 21B of V2 and the
2.4B of V2-Lite, but README_WEIGHTS writes 36.7B "including" both. `released_parameters` says what
the files hold, duplicates of the MTP module included.
"""

from dataclasses import dataclass

from dsnotes.config import Config


@dataclass(frozen=True)
class Count:
    """Parameters of one part of the model, over all its layers.

    `total` is what is stored, `activated` what enters the computation of one token.
    """

    name: str
    total: int
    activated: int


def attention_parameters(
    config: Config, *, num_key_value_heads: int | None = None, head_dim: int | None = None
) -> int:
    """Parameters of one MLA block: W^DQ, W^UQ+W^QR, W^DKV+W^KR, W^UK+W^UV, W^O, two norms.

    With `num_key_value_heads` those of a baseline of `model.attention`: W^Q, W^K, W^V, W^O.

        >>> attention_parameters(DEEPSEEK_V3)
        187107328
        >>> attention_parameters(DEEPSEEK_V3, num_key_value_heads=128, head_dim=128)
        469762048
    """
    c = config
    if num_key_value_heads is not None:
        dim = c.hidden_size // c.num_attention_heads if head_dim is None else head_dim
        return 2 * c.hidden_size * dim * (c.num_attention_heads + num_key_value_heads)
    query_width = c.num_attention_heads * c.qk_head_dim
    if c.q_lora_rank is None:
        query = c.hidden_size * query_width
    else:
        query = c.q_lora_rank * (c.hidden_size + query_width) + c.q_lora_rank  # + q_a_layernorm
    key_value = c.hidden_size * (c.kv_lora_rank + c.qk_rope_head_dim) + c.kv_lora_rank
    key_value += c.kv_lora_rank * c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim)
    output = c.num_attention_heads * c.v_head_dim * c.hidden_size
    return query + key_value + output


def mlp_parameters(hidden_size: int, intermediate_size: int) -> int:
    """Parameters of one SwiGLU network: gate, up and down projection.

    >>> mlp_parameters(7168, 2048)  # one expert of V3
    44040192
    """
    return 3 * hidden_size * intermediate_size


def router_parameters(config: Config) -> int:
    """Parameters of one router: a row per expert and, with `noaux_tc`, a selection bias each."""
    bias = config.n_routed_experts if config.topk_method == "noaux_tc" else 0
    return config.n_routed_experts * config.hidden_size + bias


def moe_parameters(config: Config) -> Count:
    """One MoE feed-forward: router, routed and shared experts.

    >>> moe_parameters(DEEPSEEK_V3).activated
    398196992
    """
    expert = mlp_parameters(config.hidden_size, config.moe_intermediate_size)
    shared = config.n_shared_experts * expert
    return Count(
        "MoE",
        config.n_routed_experts * expert + shared + router_parameters(config),
        config.num_experts_per_tok * expert + shared + router_parameters(config),
    )


def breakdown(
    config: Config, *, num_key_value_heads: int | None = None, head_dim: int | None = None
) -> list[Count]:
    """Parameters of the main model by part; their sums are the published sizes.

    The two last arguments are those of `attention_parameters`.

        >>> sum(c.total for c in breakdown(DEEPSEEK_V3))
        671026419200
        >>> sum(c.activated for c in breakdown(DEEPSEEK_V3))
        36625618432
    """
    c = config
    n_moe = c.num_hidden_layers - c.first_k_dense_replace
    expert = mlp_parameters(c.hidden_size, c.moe_intermediate_size)
    embedding = c.vocab_size * c.hidden_size
    attention = attention_parameters(c, num_key_value_heads=num_key_value_heads, head_dim=head_dim)

    def always_on(name: str, size: int) -> Count:
        return Count(name, size, size)

    return [
        Count("embedding", embedding, 0),
        always_on("attention", c.num_hidden_layers * attention),
        always_on(
            "dense feed-forward",
            c.first_k_dense_replace * mlp_parameters(c.hidden_size, c.intermediate_size),
        ),
        Count(
            "routed experts",
            n_moe * c.n_routed_experts * expert,
            n_moe * c.num_experts_per_tok * expert,
        ),
        always_on("shared experts", n_moe * c.n_shared_experts * expert),
        always_on("routers", n_moe * router_parameters(c)),
        always_on("norms", (2 * c.num_hidden_layers + 1) * c.hidden_size),
        always_on("output head", embedding),
    ]


def multiply_adds(
    config: Config,
    *,
    past: int,
    num_key_value_heads: int | None = None,
    head_dim: int | None = None,
    modules: int = 0,
) -> int:
    """Multiply-adds of one forward pass per token that looks at `past` tokens, its own included.

    One for each weight of a matrix that the token uses, and one for each channel of each key and
    value that a head reads. Norms, softmax and look-ups are left out. Keys and values of MLA count
    as decompressed once, when their token is new: training and prompts. `modules` is how many MTP
    modules run along, with latent attention and the head once more. The other arguments are those
    of `attention_parameters`.

        >>> multiply_adds(DEEPSEEK_V3, past=4096)
        46858698752
    """
    c, groups = config, num_key_value_heads
    dim = c.hidden_size // c.num_attention_heads if head_dim is None else head_dim
    head = c.vocab_size * c.hidden_size
    latent = attention_parameters(c) - c.kv_lora_rank - (c.q_lora_rank or 0)  # without its norms
    latent += c.num_attention_heads * past * (c.qk_head_dim + c.v_head_dim)
    by_head = 0
    if groups is not None:
        by_head = attention_parameters(c, num_key_value_heads=groups, head_dim=dim)
        by_head += c.num_attention_heads * past * 2 * dim
    dense = mlp_parameters(c.hidden_size, c.intermediate_size)
    moe = moe_parameters(c).activated - router_parameters(c) + c.n_routed_experts * c.hidden_size
    main = c.num_hidden_layers * (latent if groups is None else by_head) + head
    main += c.first_k_dense_replace * dense
    main += (c.num_hidden_layers - c.first_k_dense_replace) * moe
    return main + modules * (2 * c.hidden_size**2 + latent + moe + head)


def mtp_module_parameters(config: Config) -> int:
    """Parameters of one MTP module that the main model does not have: eh_proj, three norms and one
    MoE layer (V3 eq. 21-22; `shared_head.norm` is in the checkpoint only).

    >>> mtp_module_parameters(DEEPSEEK_V3)
    11610068224
    """
    d = config.hidden_size
    layer = attention_parameters(config) + moe_parameters(config).total + 2 * d
    return 2 * d * d + 3 * d + layer


def mtp_module_activated(config: Config) -> int:
    """Parameters of an MTP module that one token uses, its own ones as in `mtp_module_parameters`.

    >>> mtp_module_activated(DEEPSEEK_V3)
    688100608
    """
    moe = moe_parameters(config)
    return mtp_module_parameters(config) - moe.total + moe.activated


def released_parameters(config: Config) -> int:
    """Elements in the released files without quantisation scales: the main model, and for every
    MTP module its own copy of embedding and head.

    >>> released_parameters(DEEPSEEK_V3)
    684489845504
    """
    duplicates = 2 * config.vocab_size * config.hidden_size
    main = sum(part.total for part in breakdown(config))
    return main + config.num_nextn_predict_layers * (mtp_module_parameters(config) + duplicates)
