"""Multi-head latent attention (MLA): keys and values rebuilt from one small vector per token.

Attention caches what it must read again. MLA compresses the keys and values of all heads into one
latent vector per token, caches that and one positional key shared by the heads, and moves the
matrices that would decompress it into the query and the output ("absorption") when it decodes.

Equations
    V3 (arXiv 2412.19437) eq 1-5, 6-9, 10-11 = V2 (arXiv 2405.04434) eq 37-47
    V2 section 2.1.2 and appendix C     absorption: W^UK into the query, W^UV into the output

Departures
    - RMSNorm on both latents before they are projected up (V2 section 3.1.2, V3 section 4.2, in no
      equation); its eps is 1e-6 in the released code, whatever `rms_norm_eps` says. The cache
      holds the normalised latent, the positional key after RoPE and without a norm.
    - W^DKV and W^KR, W^UQ and W^QR, W^UK and W^UV are stored as one matrix each, as released.
    - Absorption multiplies W^UK into each query instead of fusing it with W^UQ beforehand: the
      fused map would hold three times as many parameters as the two.

Legend of shapes: batch, seq (new tokens), past (all tokens attended to), heads, and the channels
n = qk_nope_head_dim, r = qk_rope_head_dim, v = v_head_dim, c = kv_lora_rank; n_r is n + r.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.checks.devices import triton_capability
from dsnotes.checks.numeric import at_least, channels
from dsnotes.config import Config
from dsnotes.model.cache import LatentCache
from dsnotes.model.rope import apply_rope, softmax_scale

LATENT_NORM_EPS = 1e-6


class Pass(NamedTuple):
    """What all layers share while new tokens pass through the model; made once per pass.

    `rotation` belongs to the positions of the tokens. `mask` is True where a token may look, None
    for the causal one. With a `cache`, a pass of it is open, and each layer appends its latents.
    `absorb` says how these are read: True as they are, False decompressed, None as they are once
    the cache holds earlier tokens. The output is the same.
    """

    rotation: Complex[Tensor, "*#batch seq pairs"]
    mask: Bool[Tensor, "batch seq past"] | None = None
    cache: LatentCache | None = None
    absorb: bool | None = None


class MLA(nn.Module):
    """Multi-head latent attention with the parameter names of the released checkpoint.

    Causal attention over the sequence itself, for training, or over what a cache holds and the new
    tokens, of which it keeps the latents as its layer `layer_idx`.

        >>> from dsnotes.model.rope import rope_frequencies, rope_rotation
        >>> rotation = rope_rotation(torch.arange(5), rope_frequencies(TINY), dtype=torch.float32)
        >>> MLA(TINY)(torch.randn(2, 5, 64), Pass(rotation)).shape
        torch.Size([2, 5, 64])
    """

    @checked
    def __init__(self, config: Config, layer_idx: int = 0) -> None:
        super().__init__()
        at_least(0, layer_idx=layer_idx)
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.qk_nope_head_dim = config.qk_nope_head_dim
        self.qk_rope_head_dim = config.qk_rope_head_dim
        self.qk_head_dim, self.v_head_dim = config.qk_head_dim, config.v_head_dim
        self.q_lora_rank, self.kv_lora_rank = config.q_lora_rank, config.kv_lora_rank
        self.softmax_scale = softmax_scale(config)
        hidden, query = config.hidden_size, self.num_heads * self.qk_head_dim
        if config.q_lora_rank is None:
            self.q_proj = nn.Linear(hidden, query, bias=False)
        else:
            self.q_a_proj = nn.Linear(hidden, config.q_lora_rank, bias=False)
            self.q_a_layernorm = nn.RMSNorm(config.q_lora_rank, eps=LATENT_NORM_EPS)
            self.q_b_proj = nn.Linear(config.q_lora_rank, query, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(
            hidden, self.kv_lora_rank + self.qk_rope_head_dim, bias=False
        )
        self.kv_a_layernorm = nn.RMSNorm(self.kv_lora_rank, eps=LATENT_NORM_EPS)
        up = self.num_heads * (self.qk_nope_head_dim + self.v_head_dim)
        self.kv_b_proj = nn.Linear(self.kv_lora_rank, up, bias=False)
        self.o_proj = nn.Linear(self.num_heads * self.v_head_dim, hidden, bias=False)

    @checked
    def forward(
        self, x: Float[Tensor, "batch seq hidden"], shared: Pass
    ) -> Float[Tensor, "batch seq hidden"]:
        """u_t of eq 11.

        Absorption multiplies 3.4 times as much per position in V3 but decompresses nothing: it pays
        while few tokens are new, as in decoding.
        """
        query, latents = self.query(x, shared.rotation), self.latent(x, shared.rotation)
        if shared.cache is not None:
            latents = shared.cache.append(self.layer_idx, latents)  # (batch, past, c_r)
        absorb = latents.shape[1] > x.shape[1] if shared.absorb is None else shared.absorb
        attend = self.attend_absorbed if absorb else self.attend
        heads = attend(query, latents, mask=shared.mask)  # (batch, seq, heads, v)
        output: Tensor = self.o_proj(heads.flatten(-2))  # (11)
        return output

    @checked
    def latent(
        self, x: Float[Tensor, "batch seq hidden"], rotation: Complex[Tensor, "*#batch seq pairs"]
    ) -> Float[Tensor, "batch seq c_r"]:
        """[norm(c^KV_t); k^R_t], all that is cached of a token: eq 1 and 3."""
        channels(self.kv_a_proj_with_mqa.in_features, x=x)
        both = self.kv_a_proj_with_mqa(x)  # (batch, seq, c_r)
        latent, key = both.split([self.kv_lora_rank, self.qk_rope_head_dim], dim=-1)
        return torch.cat([self.kv_a_layernorm(latent), apply_rope(key, rotation)], dim=-1)

    @checked
    def query(
        self, x: Float[Tensor, "batch seq hidden"], rotation: Complex[Tensor, "*#batch seq pairs"]
    ) -> Float[Tensor, "batch seq heads n_r"]:
        """[q^C_t,i; q^R_t,i] of every head: eq 6-9, or straight from x without compression."""
        channels(self.kv_a_proj_with_mqa.in_features, x=x)
        if self.q_lora_rank is None:
            q = self.q_proj(x)
        else:
            q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        q = q.unflatten(-1, (self.num_heads, -1))  # (batch, seq, heads, n_r)
        content, position = q.split([self.qk_nope_head_dim, self.qk_rope_head_dim], dim=-1)
        return torch.cat([content, apply_rope(position, rotation.unsqueeze(-2))], dim=-1)

    @checked
    def attend(
        self,
        query: Float[Tensor, "batch seq heads n_r"],
        latents: Float[Tensor, "batch past c_r"],
        *,
        mask: Bool[Tensor, "batch seq past"] | None = None,
    ) -> Float[Tensor, "batch seq heads v"]:
        """o_t,i with keys and values decompressed for every head: eq 2, 4, 5 and 10.

        Without a mask a token looks at those before it, and a single one at all of `latents`.
        """
        self._check_attended(query, latents, mask)
        latent, key_rope = latents.split([self.kv_lora_rank, self.qk_rope_head_dim], dim=-1)
        up = self.kv_b_proj(latent).unflatten(-1, (self.num_heads, -1))
        up = up.transpose(1, 2)  # (batch, heads, past, n + v)
        key_content, value = up.split([self.qk_nope_head_dim, self.v_head_dim], dim=-1)  # (2), (5)
        key_rope = key_rope[:, None].expand(-1, self.num_heads, -1, -1)  # one key for all heads
        key = torch.cat([key_content, key_rope], dim=-1)  # (4), (batch, heads, past, n_r)
        # The fast kernels of PyTorch want values as wide as keys: pad with zeros, cut the result.
        value = F.pad(value, (0, max(0, self.qk_head_dim - self.v_head_dim)))
        out = F.scaled_dot_product_attention(  # (10)
            query.transpose(1, 2),
            key,
            value,
            attn_mask=None if mask is None else mask[:, None],
            is_causal=mask is None and query.shape[1] > 1,
            scale=self.softmax_scale,
        )  # (batch, heads, seq, v or more)
        return out[..., : self.v_head_dim].transpose(1, 2)

    @checked
    def attend_absorbed(
        self,
        query: Float[Tensor, "batch seq heads n_r"],
        latents: Float[Tensor, "batch past c_r"],
        *,
        mask: Bool[Tensor, "batch seq past"] | None = None,
    ) -> Float[Tensor, "batch seq heads v"]:
        """o_t,i with the latents read as they are: V2 section 2.1.2.

        q^C . (W^UK c) = (W^UK^T q^C) . c, so each head carries its query into the latent space; the
        weighted sum is taken there as well and W^UV applied to it once. What remains is
        multi-query attention, with c + r channels a key and the same tensor as key and value.
        """
        self._check_attended(query, latents, mask)
        seq, past = query.shape[1], latents.shape[1]
        if mask is None and seq > 1:  # `is_causal` would count heads, which are the rows here
            mask = torch.ones(1, seq, past, dtype=torch.bool, device=query.device).tril()
        query = self.absorbed(query)
        if _in_one_kernel(query, latents):
            from dsnotes.model.mla_triton import attend

            out = attend(query, latents, mask, scale=self.softmax_scale, c=self.kv_lora_rank)
        else:
            shared = latents[:, None].expand(-1, seq, -1, -1)  # heads as rows, not a copy
            out = F.scaled_dot_product_attention(
                query,  # (batch, seq, heads, c_r)
                shared,  # (batch, seq, past, c_r)
                shared,
                attn_mask=None if mask is None else mask[:, :, None],
                scale=self.softmax_scale,
            )
        up = self.kv_b_proj.weight.unflatten(0, (self.num_heads, -1))  # (heads, n + v, c)
        w_uv = up[:, self.qk_nope_head_dim :]
        return torch.einsum("bthc,hvc->bthv", out[..., : self.kv_lora_rank], w_uv)

    @checked
    def absorbed(
        self, query: Float[Tensor, "batch seq heads n_r"]
    ) -> Float[Tensor, "batch seq heads c_r"]:
        """[W^UK^T q^C; q^R], whose products with the cached latents are those of eq 10."""
        self._check_query(query)
        up = self.kv_b_proj.weight.unflatten(0, (self.num_heads, -1))  # (heads, n + v, c)
        w_uk = up[:, : self.qk_nope_head_dim]
        content, position = query.split([self.qk_nope_head_dim, self.qk_rope_head_dim], dim=-1)
        return torch.cat([torch.einsum("bthn,hnc->bthc", content, w_uk), position], dim=-1)

    def _check_query(self, query: Tensor) -> None:
        if query.shape[2:] != (self.num_heads, self.qk_head_dim):
            raise ValueError(
                f"query must be (batch, seq, {self.num_heads}, {self.qk_head_dim}), got shape "
                f"{tuple(query.shape)}"
            )

    def _check_attended(self, query: Tensor, latents: Tensor, mask: Tensor | None) -> None:
        channels(self.kv_lora_rank + self.qk_rope_head_dim, latents=latents)
        self._check_query(query)
        seq, past = query.shape[1], latents.shape[1]
        if mask is None and seq not in (1, past):
            raise ValueError(f"mask must say where {seq} tokens look among {past}, got None")


def _in_one_kernel(query: Tensor, latents: Tensor) -> bool:
    """Whether `mla_triton` can attend: on a Hopper GPU, in 16 bits, with no gradient to come."""
    return (
        not torch.compiler.is_compiling()
        and query.dtype == latents.dtype
        and query.itemsize == 2
        and latents.stride(-1) == 1
        and not (torch.is_grad_enabled() and (query.requires_grad or latents.requires_grad))
        and triton_capability(query.device)[0] == 9
    )
