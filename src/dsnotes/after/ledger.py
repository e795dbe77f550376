"""What one token costs to keep and to compute, from V1 to V4.1, out of the configurations.

Bytes of keys and values as they are stored for generation (V3.2 and V4: in FP8 and FP4), and
parameters in all and for one token, each a product of the shapes of one weight.

Sources
    V2 (arXiv 2405.04434) table 1           numbers kept a token by grouped heads and by MLA
    V3.2-Exp, FlashMLA, DeepGEMM            656 bytes a latent, 132 bytes an index key
    V4 (arXiv 2606.19348) figure 1, §2.3.4  7 % and 10 % of V3.2, about 2 % of 8 groups in BF16
    V4, released code                       584 bytes an entry, 68 bytes an index key

Departures
    The window of V4 (`window_bytes`) does not grow with the text and stands apart. An input
    embedding is a look-up of one row and is not counted as activated (as in `model.counts`); so do
    the 13B and 49B of the V4 report, which is our inference. MTP modules are left out.
"""

from dsnotes.after.config import CSA_RATIO, ConfigV4, ConfigV32
from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least
from dsnotes.config import Config
from dsnotes.model.cache import cache_elements_per_token
from dsnotes.model.counts import Count, breakdown, mlp_parameters

BF16 = 2  # bytes a number
_ROPE = 64 * BF16  # the turned channels stay in BF16
# channels in FP8, a scale of four bytes for each 128 of them
V32_LATENT = 512 + 4 * 512 // 128 + _ROPE  # 656
V32_INDEX_KEY = 128 + 4
# a scale of one byte for each 64 channels, and one byte of padding
V4_ENTRY = 448 + 448 // 64 + 1 + _ROPE  # 584
# FP4: two channels a byte, a scale of one byte for each 32
V4_INDEX_KEY = 128 // 2 + 128 // 32  # 68


@checked
def kv_bytes_per_token(config: Config | ConfigV4) -> float:
    """Bytes kept of one token in all layers, the part that grows with the text.

    V2 and V3 in BF16, V3.2 and V4 as their code stores them; so only sizes as in the released
    configurations are allowed there. ValueError names what is not.

        >>> from dsnotes.after.config import DEEPSEEK_V4_FLASH, DEEPSEEK_V32
        >>> kv_bytes_per_token(DEEPSEEK_V32)
        48068.0
        >>> round(kv_bytes_per_token(DEEPSEEK_V4_FLASH))
        3514
    """
    if isinstance(config, ConfigV4):
        _stored_as(config, head_dim=512, qk_rope_head_dim=64, index_head_dim=128)
        entries = dict.fromkeys(config.compress_ratios, V4_ENTRY)
        entries[CSA_RATIO] = V4_ENTRY + V4_INDEX_KEY
        return sum(entries[ratio] / ratio for ratio in config.compress_ratios if ratio)
    if isinstance(config, ConfigV32):
        _stored_as(config, kv_lora_rank=512, qk_rope_head_dim=64, index_head_dim=128)
        return float(config.num_hidden_layers * (V32_LATENT + V32_INDEX_KEY))
    return float(BF16 * cache_elements_per_token(config))


@checked
def grouped_kv_bytes_per_token(*, layers: int, groups: int, head_dim: int) -> int:
    """Bytes of BF16 keys and values kept by head, the baseline of the reports.

    >>> grouped_kv_bytes_per_token(layers=95, groups=8, head_dim=128)  # V1, 67B
    389120
    """
    at_least(1, layers=layers, groups=groups, head_dim=head_dim)
    return BF16 * 2 * layers * groups * head_dim


@checked
def window_bytes(config: ConfigV4) -> int:
    """Bytes of the last `sliding_window` tokens, which every layer of V4 keeps uncompressed.

    >>> from dsnotes.after.config import DEEPSEEK_V4_FLASH
    >>> window_bytes(DEEPSEEK_V4_FLASH)
    3214336
    """
    _stored_as(config, head_dim=512, qk_rope_head_dim=64)
    return config.num_hidden_layers * config.sliding_window * V4_ENTRY


@checked
def parts(config: Config | ConfigV4) -> list[Count]:
    """Parameters of the main model by part, in all and used by one token.

    Of V4 the tables of hash routing are left out: they hold integers. The selection biases are
    counted as in `model.counts.breakdown`.

        >>> from dsnotes.after.config import DEEPSEEK_V4_PRO
        >>> [round(sum(c.total for c in parts(DEEPSEEK_V4_PRO)) / 1e9)]
        [1573]
    """
    if isinstance(config, ConfigV4):
        return _parts_v4(config)
    if isinstance(config, ConfigV32):
        indexer = config.num_hidden_layers * _indexer_v32(config)
        return [*breakdown(config), Count("indexer", indexer, indexer)]
    return breakdown(config)


def _indexer_v32(c: ConfigV32) -> int:
    queries = (c.q_lora_rank or 0) * c.index_n_heads * c.index_head_dim
    norm = 2 * c.index_head_dim  # a LayerNorm: weight and bias
    return queries + c.hidden_size * (c.index_head_dim + c.index_n_heads) + norm


def _compressor(c: ConfigV4, ratio: int, width: int) -> int:
    """kv_proj, gate_proj, position_bias and a norm; two streams where the windows overlap."""
    streams = 2 if ratio == CSA_RATIO else 1
    return streams * width * (2 * c.hidden_size + ratio) + width


def _attention_v4(c: ConfigV4, ratio: int) -> int:
    queries = c.hidden_size * c.q_lora_rank + c.q_lora_rank * (
        1 + c.num_attention_heads * c.head_dim
    )
    window = c.hidden_size * c.head_dim + c.head_dim
    output = c.num_attention_heads * c.head_dim * c.o_lora_rank
    output += c.o_groups * c.o_lora_rank * c.hidden_size
    size = c.num_attention_heads + queries + window + output  # a sink for each head
    if ratio:
        size += _compressor(c, ratio, c.head_dim)
    if ratio == CSA_RATIO:  # an indexer with its own compressor
        size += _compressor(c, ratio, c.index_head_dim)
        size += c.q_lora_rank * c.index_n_heads * c.index_head_dim
        size += c.hidden_size * c.index_n_heads
    return size


def _parts_v4(c: ConfigV4) -> list[Count]:
    n, d, streams = c.num_hidden_layers, c.hidden_size, c.hc_mult
    expert = mlp_parameters(d, c.moe_intermediate_size)
    mixed = (2 + streams) * streams  # pre, post and residual maps
    hyper = 2 * n * (mixed * streams * d + mixed + 3) + streams * streams * d + streams + 1
    router = n * c.n_routed_experts * d + (n - c.num_hash_layers) * c.n_routed_experts
    shared = n * c.n_shared_experts * expert

    def always_on(name: str, size: int) -> Count:
        return Count(name, size, size)

    return [
        Count("embedding", c.vocab_size * d, 0),
        always_on("attention", sum(_attention_v4(c, ratio) for ratio in c.compress_ratios)),
        Count(
            "routed experts",
            n * c.n_routed_experts * expert,
            n * c.num_experts_per_tok * expert,
        ),
        always_on("shared experts", shared),
        always_on("routers", router),
        always_on("hyper-connections", hyper),
        always_on("norms", (2 * n + 1) * d),
        always_on("output head", c.vocab_size * d),
    ]


def _stored_as(config: Config | ConfigV4, **sizes: int) -> None:
    for name, size in sizes.items():
        if getattr(config, name) != size:
            raise ValueError(
                f"{name} must be {size}: how other sizes are stored is not published, "
                f"got {getattr(config, name)}"
            )
