"""Attention of V4: a window of recent tokens and compressed entries in one softmax.

One layer, three kinds: window only, CSA (entries of 4 tokens, the best of them chosen) and HCA
(entries of 128 tokens, all of them read). Keys and values are the same vectors, one for all heads;
since they carry their position, the output is turned back by the position of the query.

Equations (the transcription that was read drops the numbers; they are counted in order)
    V4 (arXiv 2606.19348) section 2.3.1     (13), (18) queries, (19) core attention
    V4 section 2.3.2                        (24)-(26) the same in HCA
    V4 section 2.3.3                        norms, partial RoPE and its inverse, window, (27) sink

Departures
    - Every entry and token is scored and masked; kernels gather the chosen ones. The result is
      the same, the cost is not.
    - A token of the window is seen again in its entry once that is complete, as released.
    - All sequences of a batch are equally long, and the cache cannot be rolled back: the state of
      a compressor overwrites what it has used.

Legend of shapes: batch, seq (new tokens), near (tokens a window reaches), entries, heads,
c = head_dim, q = q_lora_rank, g = o_groups.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dsnotes.after.compressed_cache import CompressedCache, LayerState
from dsnotes.after.compressor import (
    Compressor,
    SparseCompressor,
    layer_frequencies,
    turn,
    visible,
)
from dsnotes.after.config import CSA_RATIO, ConfigV4
from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, channels


class CompressedAttention(nn.Module):
    """Attention of layer `layer_idx`, whose `compress_ratios` entry says which of the three kinds.

    Parameter names are transformers'. Causal over the sequence itself, which starts at position 0,
    or over what a cache holds and the new tokens.

        >>> layer = CompressedAttention(TINY_V4, layer_idx=1)
        >>> layer(torch.randn(2, 10, 64)).shape
        torch.Size([2, 10, 64])
    """

    compressor: Compressor | None

    @checked
    def __init__(self, config: ConfigV4, layer_idx: int) -> None:
        super().__init__()
        if not 0 <= layer_idx < config.num_hidden_layers:
            last = config.num_hidden_layers - 1
            raise ValueError(f"layer_idx must lie in 0 .. {last}, got {layer_idx}")
        self.layer_idx, self.ratio = layer_idx, config.compress_ratios[layer_idx]
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.sliding_window, self.eps = config.sliding_window, config.rms_norm_eps
        self.softmax_scale = config.head_dim**-0.5
        self.frequencies = layer_frequencies(config, self.ratio)
        hidden, heads = config.hidden_size, self.num_heads * self.head_dim
        self.q_a_proj = nn.Linear(hidden, config.q_lora_rank, bias=False)
        self.q_a_norm = nn.RMSNorm(config.q_lora_rank, eps=self.eps)
        self.q_b_proj = nn.Linear(config.q_lora_rank, heads, bias=False)
        self.kv_proj = nn.Linear(hidden, self.head_dim, bias=False)
        self.kv_norm = nn.RMSNorm(self.head_dim, eps=self.eps)
        self.o_a_proj = GroupedLinear(heads, config.o_lora_rank, groups=config.o_groups)
        self.o_b_proj = nn.Linear(config.o_groups * config.o_lora_rank, hidden, bias=False)
        self.sinks = nn.Parameter(torch.zeros(self.num_heads))
        if self.ratio == 0:
            self.compressor = None
        elif self.ratio == CSA_RATIO:
            self.compressor = SparseCompressor(config)
        else:
            self.compressor = Compressor(config, self.ratio)

    @checked
    def forward(
        self, x: Float[Tensor, "batch seq hidden"], cache: CompressedCache | None = None
    ) -> Float[Tensor, "batch seq hidden"]:
        """u_t of every new token; the state of this layer in `cache` is brought up to date."""
        channels(self.kv_proj.in_features, x=x)
        state = None if cache is None else cache.layer(self.layer_idx, x)
        start = 0 if state is None else state.length
        positions = torch.arange(start, start + x.shape[1], device=x.device)
        latent = self.q_a_norm(self.q_a_proj(x))  # (13)
        query = self.query(latent, positions)
        keys = turn(self.kv_norm(self.kv_proj(x)), positions, self.frequencies)
        if state is not None:
            keys = state.extend(keys)  # (batch, near, c)
        end = start + x.shape[1]
        near = torch.arange(end - keys.shape[1], end, device=x.device)  # below 0: still empty
        back = positions[:, None] - near
        mask = (back >= 0) & (back < self.sliding_window) & (near >= 0)
        mask = mask.expand(len(x), -1, -1)  # (batch, seq, near)
        if self.compressor is not None:
            entries = self.compressor(x, start=start, state=state and state.compressor)
            keys = torch.cat([keys, entries], dim=1)
            mask = torch.cat([mask, self.chosen(x, latent, positions, entries, state)], dim=-1)
        heads = self.attend(query, keys, mask)
        heads = turn(heads.transpose(1, 2), positions, self.frequencies, back=True).transpose(1, 2)
        output: Tensor = self.o_b_proj(self.o_a_proj(heads.flatten(-2)))
        return output

    @checked
    def query(
        self, latent: Float[Tensor, "batch seq q"], positions: Int[Tensor, "seq"]
    ) -> Float[Tensor, "batch seq heads c"]:
        """q_t of every head, normed without a weight, then turned: V4 eq 18 and section 2.3.3."""
        q = self.q_b_proj(latent).unflatten(-1, (self.num_heads, -1))  # (18)
        q = F.rms_norm(q, (self.head_dim,), eps=self.eps)
        return turn(q.transpose(1, 2), positions, self.frequencies).transpose(1, 2)

    def chosen(
        self,
        x: Tensor,
        latent: Tensor,
        positions: Tensor,
        entries: Tensor,
        state: LayerState | None = None,
    ) -> Bool[Tensor, "batch seq entries"]:
        """Which entries a query reads: those its indexer chooses, or in HCA all that it may see."""
        if isinstance(self.compressor, SparseCompressor):
            held = None if state is None else state.indexer
            choice = self.compressor.indexer.choose(x, latent, positions, state=held)
            return choice.mask(entries.shape[1])
        seen = visible(positions, entries.shape[1], ratio=self.ratio)
        return seen.expand(len(x), -1, -1)

    @checked
    def attend(
        self,
        query: Float[Tensor, "batch seq heads c"],
        keys: Float[Tensor, "batch past c"],
        mask: Bool[Tensor, "batch seq past"],
    ) -> Float[Tensor, "batch seq heads c"]:
        """o_t,i: the weighted sum of keys, which are the values too. V4 eq 19."""
        return torch.einsum("bths,bsc->bthc", self.weights(query, keys, mask), keys)  # (19)

    @checked
    def weights(
        self,
        query: Float[Tensor, "batch seq heads c"],
        keys: Float[Tensor, "batch past c"],
        mask: Bool[Tensor, "batch seq past"],
    ) -> Float[Tensor, "batch seq heads past"]:
        """The softmax with the sink of its head: V4 eq 27.

        The sink adds exp(z') to the denominator alone, so the weights sum to less than 1.
        """
        channels(self.head_dim, query=query, keys=keys)
        if query.shape[2] != self.num_heads:
            raise ValueError(f"query must have {self.num_heads} heads, got {query.shape[2]}")
        logits = torch.einsum("bthc,bsc->bths", query, keys) * self.softmax_scale
        logits = logits.masked_fill(~mask.unsqueeze(2), float("-inf"))
        sink = self.sinks.to(logits.dtype)[:, None].expand(*logits.shape[:3], 1)
        return torch.cat([logits, sink], dim=-1).softmax(dim=-1)[..., :-1]  # (27)


class GroupedLinear(nn.Linear):
    """The first half of the output projection: each group of heads by a matrix of its own.

    The weight is (g d_g, c n_h / g), as released: the blocks of a block-diagonal matrix, stacked.

        >>> GroupedLinear(128, 24, groups=2)(torch.randn(2, 5, 128)).shape
        torch.Size([2, 5, 48])
    """

    @checked
    def __init__(self, in_features: int, rank: int, *, groups: int) -> None:
        at_least(1, in_features=in_features, rank=rank, groups=groups)
        if in_features % groups:
            raise ValueError(f"groups ({groups}) must divide in_features ({in_features})")
        super().__init__(in_features // groups, groups * rank, bias=False)
        self.groups = groups

    @checked
    def forward(self, input: Float[Tensor, "*batch wide"]) -> Float[Tensor, "*batch narrow"]:
        """V4 section 2.3.1, grouped output projection."""
        channels(self.groups * self.in_features, input=input)
        blocks = self.weight.unflatten(0, (self.groups, -1))  # (g, d_g, c n_h / g)
        parts = input.unflatten(-1, (self.groups, -1))
        return torch.einsum("...gi,goi->...go", parts, blocks).flatten(-2)
