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
n = qk_nope_head_dim, r = qk_rope_head_dim, v = v_head_dim, c = kv_lora_rank.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import channels
from dsnotes.config import Config
from dsnotes.model.cache import LatentCache
from dsnotes.model.rope import apply_rope, softmax_scale

LATENT_NORM_EPS = 1e-6


class MLA(nn.Module):
    """Multi-head latent attention with the parameter names of the released checkpoint.

    Without a cache, causal attention over the sequence itself, for training. With one, the new
    tokens attend to it and to each other, either by decompressing all latents (`absorb=False`) or
    by reading them as they are (`absorb=True`); all ways give the same output.

        >>> rotation = rope_rotation(torch.arange(5), rope_frequencies(TINY), dtype=torch.float32)
        >>> MLA(TINY)(torch.randn(2, 5, 64), rotation).shape
        torch.Size([2, 5, 64])
    """

    @checked
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = heads = config.num_attention_heads
        self.n, self.r = config.qk_nope_head_dim, config.qk_rope_head_dim
        self.v, self.c = config.v_head_dim, config.kv_lora_rank
        self.q_lora_rank = config.q_lora_rank
        self.scale = softmax_scale(config)
        hidden, query = config.hidden_size, heads * config.qk_head_dim
        if config.q_lora_rank is None:
            self.q_proj = nn.Linear(hidden, query, bias=False)
        else:
            self.q_a_proj = nn.Linear(hidden, config.q_lora_rank, bias=False)
            self.q_a_layernorm = nn.RMSNorm(config.q_lora_rank, eps=LATENT_NORM_EPS)
            self.q_b_proj = nn.Linear(config.q_lora_rank, query, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, self.c + self.r, bias=False)
        self.kv_a_layernorm = nn.RMSNorm(self.c, eps=LATENT_NORM_EPS)
        self.kv_b_proj = nn.Linear(self.c, heads * (self.n + self.v), bias=False)
        self.o_proj = nn.Linear(heads * self.v, hidden, bias=False)

    @checked
    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        rotation: Complex[Tensor, "*#batch seq pairs"],
        *,
        cache: LatentCache | None = None,
        layer: int = 0,
        absorb: bool = True,
    ) -> Float[Tensor, "batch seq hidden"]:
        """u_t of eq 11. `rotation` belongs to the positions of `x`; `layer` indexes the cache.

        A first call on an empty cache fills it and runs the training form. Absorption multiplies
        3.4 times as much per position in V3 but decompresses nothing: it pays while few tokens are
        new, as in decoding.
        """
        query, latents = self.query(x, rotation), self.latent(x, rotation)
        if cache is None:
            heads = self.attend(query, latents, is_causal=True)
        elif not cache.lengths.any():
            cache.append(layer, latents)
            heads = self.attend(query, latents, is_causal=True)
        else:
            attend = self.attend_absorbed if absorb else self.attend
            heads = attend(query, cache.append(layer, latents), mask=cache.mask(x.shape[1]))
        output: Tensor = self.o_proj(heads.flatten(-2))  # (11)
        return output

    @checked
    def latent(
        self, x: Float[Tensor, "batch seq hidden"], rotation: Complex[Tensor, "*#batch seq pairs"]
    ) -> Float[Tensor, "batch seq c_r"]:
        """[norm(c^KV_t); k^R_t], all that is cached of a token: eq 1 and 3."""
        channels(self.kv_a_proj_with_mqa.in_features, x=x)
        latent, key = self.kv_a_proj_with_mqa(x).split([self.c, self.r], dim=-1)
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
        content, position = q.unflatten(-1, (self.heads, -1)).split([self.n, self.r], dim=-1)
        return torch.cat([content, apply_rope(position, rotation.unsqueeze(-2))], dim=-1)

    @checked
    def attend(
        self,
        query: Float[Tensor, "batch seq heads n_r"],
        latents: Float[Tensor, "batch past c_r"],
        *,
        mask: Bool[Tensor, "batch seq past"] | None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "batch seq heads v"]:
        """o_t,i with keys and values decompressed for every head: eq 2, 4, 5 and 10."""
        self._check_attended(query, latents)
        latent, key_rope = latents.split([self.c, self.r], dim=-1)
        up = self.kv_b_proj(latent).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key_content, value = up.split([self.n, self.v], dim=-1)  # (2), (5)
        key_rope = key_rope[:, None].expand(-1, self.heads, -1, -1)  # one key for all heads
        key = torch.cat([key_content, key_rope], dim=-1)  # (4)
        # The fast kernels of PyTorch want values as wide as keys: pad with zeros, cut the result.
        value = F.pad(value, (0, max(0, self.n + self.r - self.v)))
        out = F.scaled_dot_product_attention(  # (10)
            query.transpose(1, 2),
            key,
            value,
            attn_mask=None if mask is None else mask[:, None],
            is_causal=is_causal,
            scale=self.scale,
        )
        return out[..., : self.v].transpose(1, 2)

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
        self._check_attended(query, latents)
        up = self.kv_b_proj.weight.unflatten(0, (self.heads, -1))
        w_uk, w_uv = up.split([self.n, self.v], dim=1)  # (heads, n, c) and (heads, v, c)
        content, position = query.split([self.n, self.r], dim=-1)
        query = torch.cat([torch.einsum("bthn,hnc->bthc", content, w_uk), position], dim=-1)
        shared = latents[:, None].expand(-1, query.shape[1], -1, -1)  # heads as rows, not a copy
        out = F.scaled_dot_product_attention(
            query,
            shared,
            shared,
            attn_mask=None if mask is None else mask[:, :, None],
            scale=self.scale,
        )
        return torch.einsum("bthc,hvc->bthv", out[..., : self.c], w_uv)

    def _check_attended(self, query: Tensor, latents: Tensor) -> None:
        channels(self.c + self.r, latents=latents)
        if query.shape[2:] != (self.heads, self.n + self.r):
            raise ValueError(
                f"query must be (batch, seq, {self.heads}, {self.n + self.r}), got shape "
                f"{tuple(query.shape)}"
            )
