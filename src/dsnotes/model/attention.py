"""Multi-head, grouped-query and multi-query attention: the baselines that MLA is compared with.

Every head has a query of its own. A key and a value serve one head (MHA), a group of heads (GQA) or
all of them (MQA): `num_key_value_heads` says which. A cache holds the keys and values of a token,
so fewer of them make it smaller; nothing is compressed.

Equations (h_t the input; head i belongs to group g = i // (n_h / n_g))
    q_t,i = R_t W^Q_i h_t,  k_t,g = R_t W^K_g h_t,  v_t,g = W^V_g h_t       R_t: RoPE at position t
    o_t,i = sum_j softmax_j(q_t,i . k_j,g / sqrt(d_h)) v_j,g,  u_t = W^O [o_t,1; ...; o_t,n_h]
    Vaswani et al. (arXiv 1706.03762) section 3.2: n_g = n_h, MHA
    Shazeer (arXiv 1911.02150): n_g = 1, MQA; Ainslie et al. (arXiv 2305.13245): GQA

Departures
    - RoPE turns all channels of a query or key, as in LLaMA, in adjacent pairs as elsewhere here.
    - A head has hidden_size / num_attention_heads channels unless `head_dim` says otherwise. The
      fields of `Config` that speak of MLA alone are not read.

Legend of shapes: batch, seq (new tokens), past (all tokens attended to), hidden, heads (n_h),
groups (n_g, heads of keys and values), d (d_h, channels of a head), kv = 2 n_g d_h, cached a token.
"""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, channels
from dsnotes.config import Config
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import Pass
from dsnotes.model.rope import apply_rope, rope_frequencies, softmax_scale


class GroupedQueryAttention(nn.Module):
    """Attention with keys and values by head, called like `MLA` and with LLaMA's parameter names.

    `Pass.rotation` has d / 2 pairs here: `use_attention` sees to it. ValueError unless
    `num_key_value_heads` divides the heads and a head has an even number of channels.

        >>> from dsnotes.model.rope import rope_rotation
        >>> attention = GroupedQueryAttention(TINY, num_key_value_heads=2)  # four heads of 16
        >>> rotation = rope_rotation(torch.arange(5), torch.ones(8), dtype=torch.float32)
        >>> attention(torch.randn(2, 5, 64), Pass(rotation)).shape
        torch.Size([2, 5, 64])
    """

    @checked
    def __init__(
        self,
        config: Config,
        layer_idx: int = 0,
        *,
        num_key_value_heads: int,
        head_dim: int | None = None,
    ) -> None:
        super().__init__()
        at_least(0, layer_idx=layer_idx)
        self.layer_idx, self.num_heads = layer_idx, config.num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = key_value_head_dim(config, num_key_value_heads, head_dim)
        # that of MLA is for heads of qk_head_dim channels
        self.softmax_scale = softmax_scale(config) * math.sqrt(config.qk_head_dim / self.head_dim)
        hidden, width = config.hidden_size, num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(hidden, self.num_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(hidden, width, bias=False)
        self.v_proj = nn.Linear(hidden, width, bias=False)
        self.o_proj = nn.Linear(self.num_heads * self.head_dim, hidden, bias=False)

    @checked
    def forward(
        self, x: Float[Tensor, "batch seq hidden"], shared: Pass
    ) -> Float[Tensor, "batch seq hidden"]:
        """u_t of every token. ValueError for `absorb`: there are no latents to absorb into."""
        if shared.absorb is not None:
            raise ValueError(f"absorb must be None without latents, got {shared.absorb}")
        channels(self.q_proj.in_features, x=x)
        rotation = shared.rotation.unsqueeze(-2)
        query = apply_rope(self.q_proj(x).unflatten(-1, (-1, self.head_dim)), rotation)
        both = self.key_value(x, shared.rotation)  # (batch, seq, kv)
        if shared.cache is not None:
            both = shared.cache.append(self.layer_idx, both)  # (batch, past, kv)
        key, value = both.unflatten(-1, (2, -1, self.head_dim)).unbind(2)
        out = F.scaled_dot_product_attention(  # head i reads group i // (n_h / n_g)
            query.transpose(1, 2),  # (batch, heads, seq, d)
            key.transpose(1, 2),  # (batch, groups, past, d)
            value.transpose(1, 2),
            attn_mask=None if shared.mask is None else shared.mask[:, None],
            is_causal=shared.mask is None and x.shape[1] > 1,
            scale=self.softmax_scale,
            enable_gqa=True,
        )
        output: Tensor = self.o_proj(out.transpose(1, 2).flatten(-2))
        return output

    @checked
    def key_value(
        self, x: Float[Tensor, "batch seq hidden"], rotation: Complex[Tensor, "*#batch seq pairs"]
    ) -> Float[Tensor, "batch seq kv"]:
        """[k_t; v_t] of all groups, all that is cached of a token; the keys are rotated."""
        key = apply_rope(self.k_proj(x).unflatten(-1, (-1, self.head_dim)), rotation.unsqueeze(-2))
        return torch.cat([key.flatten(-2), self.v_proj(x)], dim=-1)


@checked
def use_attention(
    model: DeepSeek, *, num_key_value_heads: int, head_dim: int | None = None
) -> DeepSeek:
    """Put fresh attention with keys and values by head in the place of MLA; return the model.

    Everything else keeps its weights. MHA has as many `num_key_value_heads` as heads, MQA one.
    ValueError as for `GroupedQueryAttention`, and for a model with multi-token prediction modules,
    whose attention is latent.

        >>> cache = use_attention(model, num_key_value_heads=4).new_cache(batch_size=1, capacity=9)
        >>> cache.latents.shape  # 2 * 4 heads * 16 channels
        torch.Size([3, 1, 9, 128])
    """
    config, layers = model.config, model.model.layers
    if len(layers) > config.num_hidden_layers:
        raise ValueError("model must have no multi-token prediction modules: add them to MLA")
    head_dim = key_value_head_dim(config, num_key_value_heads, head_dim)
    for i, layer in enumerate(layers):
        with torch.device(model.device):
            attention = GroupedQueryAttention(
                config, i, num_key_value_heads=num_key_value_heads, head_dim=head_dim
            )
        for parameter in attention.parameters():
            nn.init.normal_(parameter, std=config.initializer_range)
        layer.self_attn = attention.to(model.dtype)
    model.model.cache_width = 2 * num_key_value_heads * head_dim
    model.model.frequencies = rope_frequencies(replace(config, qk_rope_head_dim=head_dim))
    return model


@checked
def key_value_head_dim(
    config: Config, num_key_value_heads: int, head_dim: int | None = None
) -> int:
    """The channels of a head, by default hidden_size / num_attention_heads, as in LLaMA.

    ValueError when they are odd, or when the heads cannot share so many keys and values.

        >>> key_value_head_dim(TINY, 4)
        16
    """
    heads = config.num_attention_heads
    if num_key_value_heads < 1 or heads % num_key_value_heads:
        raise ValueError(
            f"num_key_value_heads must divide num_attention_heads ({heads}), "
            f"got {num_key_value_heads}"
        )
    if head_dim is None and config.hidden_size % heads:
        raise ValueError(
            f"head_dim must be given where num_attention_heads ({heads}) does not divide "
            f"hidden_size ({config.hidden_size}), got None"
        )
    dim = config.hidden_size // heads if head_dim is None else head_dim
    if dim < 2 or dim % 2:
        raise ValueError(f"head_dim must be even and at least 2, got {dim}")
    return dim
