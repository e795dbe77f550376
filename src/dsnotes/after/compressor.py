"""Compressed entries: m tokens become one vector that is key and value, and an indexer for them.

Every m tokens give one entry, a sum of their projections with weights from a softmax over the
tokens, channel by channel. In CSA (m = 4) an entry also looks back at the m tokens before its own,
and a lightning indexer with entries of its own chooses which ones a query reads; HCA (m' = 128)
has no overlap and no choice.

Equations (the transcription that was read drops the numbers; they are counted in order)
    V4 (arXiv 2606.19348) section 2.3.1     (9)-(12) entries of CSA, (13)-(17) its indexer
    V4 section 2.3.2                        (20)-(23) entries of HCA
    V4 section 2.3.3                        norm and partial RoPE of the entries

Departures
    - The first half of the channels of kv_proj, gate_proj and position_bias is the stream that the
      next entry reads (b in the paper), the second half the current one (a), as released.
    - An entry is turned to the position of the first token of its own window, i m, and is visible
      from its last token on, as in the released code; (16) as printed would be one token stricter.
    - The released indexer turns queries and keys by a Hadamard matrix, which leaves products as
      they are, and rounds them to FP4; both are left out, as in transformers.

Legend of shapes: batch, seq (new tokens), entries (all that exist by then), heads = index_n_heads,
c = head_dim (index_head_dim in the indexer), q = q_lora_rank; windows of m tokens.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsnotes.after.compressed_cache import CompressorState, streams
from dsnotes.after.config import CSA_RATIO, ConfigV4
from dsnotes.after.indexer import Selection, select
from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, channels
from dsnotes.model.rope import apply_rope, pair_frequencies, rope_rotation


@checked
def layer_frequencies(config: ConfigV4, ratio: int) -> Float[Tensor, "pairs"]:
    """Angles of everything in a layer: a base of its own, and YaRN, where it compresses.

    YaRN changes angles only; V3's factor on the logits is gone. `ratio` is the layer's compression,
    0 for window only.

        >>> [layer_frequencies(TINY_V4, ratio)[1].item() for ratio in (0, 4)]
        [0.1, 0.05]
    """
    at_least(0, ratio=ratio)
    return pair_frequencies(
        dim=config.qk_rope_head_dim,
        base=config.compress_rope_theta if ratio else config.rope_theta,
        scaling=config.rope_scaling if ratio else None,
    )


@checked
def turn(
    x: Float[Tensor, "*batch seq c"],
    positions: Int[Tensor, "seq"],
    frequencies: Float[Tensor, "pairs"],
    *,
    back: bool = False,
) -> Float[Tensor, "*batch seq c"]:
    """Partial RoPE: the last channels of x turned to their position, the others untouched.

    `back` turns by the opposite angle, position -i. Section 2.3.3.

        >>> turn(torch.ones(1, 3), torch.tensor([1]), torch.ones(1))
        tensor([[ 1.0000, -0.3012,  1.3818]])
    """
    turned = 2 * len(frequencies)
    if x.shape[-1] < turned:
        raise ValueError(f"x must have at least {turned} channels, got shape {tuple(x.shape)}")
    rotation = rope_rotation(positions, frequencies, dtype=x.dtype)  # (seq, pairs)
    content, position = x.split([x.shape[-1] - turned, turned], dim=-1)
    return torch.cat([content, apply_rope(position, rotation.conj() if back else rotation)], dim=-1)


class Compressor(nn.Module):
    """Entries of one layer, with the parameter names of transformers.

    >>> compressor = Compressor(TINY_V4, ratio=4)
    >>> compressor(torch.randn(2, 10, 64)).shape  # two windows of 4, and two tokens too few
    torch.Size([2, 2, 32])
    """

    @checked
    def __init__(self, config: ConfigV4, ratio: int, *, head_dim: int | None = None) -> None:
        super().__init__()
        at_least(2, ratio=ratio, head_dim=head_dim)
        self.ratio, self.streams = ratio, streams(ratio)
        self.head_dim = config.head_dim if head_dim is None else head_dim
        self.frequencies = layer_frequencies(config, ratio)
        width = self.streams * self.head_dim
        self.kv_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.gate_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.position_bias = nn.Parameter(torch.zeros(ratio, width))
        self.kv_norm = nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps)

    @checked
    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        *,
        start: int = 0,
        state: CompressorState | None = None,
    ) -> Float[Tensor, "batch entries c"]:
        """C^Comp of every window that is complete, after its norm and turned to its position.

        V4 eq 9-12, 20-23. `start` is the position of the first token of x; above 0 it needs the
        `state` that has seen those before, which is brought up to date.
        """
        channels(self.kv_proj.in_features, x=x)
        at_least(0, start=start)
        if start and state is None:
            raise ValueError(f"state must be given where start is above 0, got start {start}")
        kv, gate = self.kv_proj(x), self.gate_proj(x)
        held = state or CompressorState(
            len(x), ratio=self.ratio, head_dim=self.head_dim, dtype=kv.dtype, device=kv.device
        )
        kv = torch.cat([held.kv, kv], dim=1)  # (9), (20)
        gate = torch.cat([held.gate, gate], dim=1)  # (10), (21)
        first, last = start // self.ratio, (start + x.shape[1]) // self.ratio
        keep, windows = held.kv.shape[1], last - first + self.streams - 1
        begin = keep - start + (first - self.streams + 1) * self.ratio  # of the earliest window
        inside = slice(begin, begin + windows * self.ratio)
        new = self.pool(
            kv[:, inside].unflatten(1, (windows, self.ratio)),
            gate[:, inside].unflatten(1, (windows, self.ratio)),
        )
        positions = torch.arange(first, last, device=x.device) * self.ratio
        new = turn(self.kv_norm(new), positions, self.frequencies)
        if state is None:
            return new
        state.kv, state.gate = kv[:, -keep:].detach(), gate[:, -keep:].detach()
        state.entries[:, first:last] = new.detach()
        return state.entries[:, :last]

    @checked
    def pool(
        self, kv: Float[Tensor, "batch windows m w"], gate: Float[Tensor, "batch windows m w"]
    ) -> Float[Tensor, "batch entries c"]:
        """Weighted sums over the tokens, a softmax for each channel: V4 eq 11, 12, 22, 23.

        With two streams an entry needs two windows, so there is one entry fewer than windows.
        """
        logits = gate + self.position_bias
        if self.streams == 2:
            (kv_b, kv_a), (b, a) = kv.chunk(2, dim=-1), logits.chunk(2, dim=-1)
            kv = torch.cat([kv_b[:, :-1], kv_a[:, 1:]], dim=2)  # (batch, entries, 2m, c)
            logits = torch.cat([b[:, :-1], a[:, 1:]], dim=2)
        wide = torch.promote_types(kv.dtype, torch.float32)
        weights = logits.to(wide).softmax(dim=2)  # (11), (22)
        return (weights * kv).sum(dim=2).to(kv.dtype)  # (12), (23)


class Scorer(nn.Module):
    """Index scores of entries, with transformers' name for the one matrix it owns.

    >>> scorer = Scorer(hidden_size=64, n_heads=32, head_dim=16)
    >>> scorer(torch.randn(2, 5, 64), torch.randn(2, 5, 32, 16), torch.randn(2, 3, 16)).shape
    torch.Size([2, 5, 3])
    """

    def __init__(self, *, hidden_size: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.scale = n_heads**-0.5 * head_dim**-0.5
        self.weights_proj = nn.Linear(hidden_size, n_heads, bias=False)

    @checked
    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        query: Float[Tensor, "batch seq heads c"],
        keys: Float[Tensor, "batch entries c"],
    ) -> Float[Tensor, "batch seq entries"]:
        """I_t,s = sum over heads of w ReLU(q . k): V4 eq 15, 16."""
        channels(self.weights_proj.in_features, x=x)
        if query.shape[2] != (heads := self.weights_proj.out_features):
            raise ValueError(f"query must have {heads} heads, got {query.shape[2]}")
        weights = self.weights_proj(x) * self.scale  # (15)
        products = torch.einsum("bthc,bsc->bths", query, keys).relu()
        return torch.einsum("bth,bths->bts", weights, products)  # (16)


class Indexer(Compressor):
    """Which `index_topk` entries a query of CSA reads; its keys are narrow entries of its own.

    >>> indexer, x = Indexer(TINY_V4), torch.randn(2, 10, 64)
    >>> indexer.choose(x, torch.randn(2, 10, 48), torch.arange(10)).indices.shape
    torch.Size([2, 10, 2])
    """

    @checked
    def __init__(self, config: ConfigV4) -> None:
        super().__init__(config, CSA_RATIO, head_dim=config.index_head_dim)
        heads, width = config.index_n_heads, config.index_head_dim
        self.n_heads, self.index_topk = heads, config.index_topk
        self.q_b_proj = nn.Linear(config.q_lora_rank, heads * width, bias=False)
        self.scorer = Scorer(hidden_size=config.hidden_size, n_heads=heads, head_dim=width)

    @checked
    def choose(
        self,
        x: Float[Tensor, "batch seq hidden"],
        latent: Float[Tensor, "batch seq q"],
        positions: Int[Tensor, "seq"],
        *,
        state: CompressorState | None = None,
    ) -> Selection:
        """The chosen entries of each query: V4 eq 14, 17. `latent` is c^Q after its norm (13)."""
        channels(self.q_b_proj.in_features, latent=latent)
        keys = self(x, start=int(positions[0]), state=state)
        query = self.q_b_proj(latent).unflatten(-1, (self.n_heads, -1))  # (14)
        query = turn(query.transpose(1, 2), positions, self.frequencies).transpose(1, 2)
        seen = visible(positions, keys.shape[1], ratio=self.ratio)
        return select(self.scorer(x, query, keys), seen[None], topk=self.index_topk)  # (17)


class SparseCompressor(Compressor):
    """The compressor of CSA: with an indexer, under transformers' name."""

    @checked
    def __init__(self, config: ConfigV4) -> None:
        super().__init__(config, CSA_RATIO)
        self.indexer = Indexer(config)


@checked
def visible(positions: Int[Tensor, "seq"], entries: int, *, ratio: int) -> Tensor:
    """(seq, entries): True where the entry's last token is not later than the query.

    >>> visible(torch.arange(2, 5), 2, ratio=4)
    tensor([[False, False],
            [ True, False],
            [ True, False]])
    """
    at_least(1, ratio=ratio)
    at_least(0, entries=entries)
    closed = torch.arange(entries, device=positions.device)
    return closed < ((positions + 1) // ratio).unsqueeze(-1)
