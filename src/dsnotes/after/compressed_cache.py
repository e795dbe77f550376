"""The cache of V4: a state of fixed size in every layer, and entries that grow by one per m tokens.

Attention needs the last n_win - 1 tokens as they are and every compressed entry; a compressor needs
the tokens of its unfinished window, and in CSA the window before. Only the entries grow.

Sources
    V4 (arXiv 2606.19348) section 3.4.3     a classical cache of entries beside a state cache

Departures
    - The released code pages the entries in blocks of 128 tokens; here they are one tensor.
    - No rollback, as in transformers, and all sequences of a batch have the same length.

Legend of shapes: batch, seq (new tokens), near = n_win - 1 + seq, c = head_dim.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dsnotes.after.config import CSA_RATIO, ConfigV4
from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least


@checked
def streams(ratio: int) -> int:
    """2 where an entry also reads the window before its own, which is so in CSA, else 1.

    ValueError for a ratio below 0, which no layer has.
    """
    at_least(0, ratio=ratio)
    return 2 if ratio == CSA_RATIO else 1


class CompressorState:
    """What a compressor carries from one pass to the next: projections of the last few tokens.

    Fixed in size: m - 1 tokens that close no window yet, and the m tokens before them where windows
    overlap. Before the first token the gates are -inf, which weigh 0: the case i = 0 of (11). With
    a `capacity` it holds the entries as well, preallocated for that many tokens.

        >>> state = CompressorState(2, ratio=4, head_dim=32, capacity=64)
        >>> state.kv.shape, state.entries.shape
        (torch.Size([2, 7, 64]), torch.Size([2, 16, 32]))
    """

    def __init__(
        self,
        batch_size: int,
        *,
        ratio: int,
        head_dim: int,
        capacity: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        keep, width = streams(ratio) * ratio - 1, streams(ratio) * head_dim
        self.kv = torch.zeros(batch_size, keep, width, dtype=dtype, device=device)
        self.gate = torch.full_like(self.kv, float("-inf"))
        self.entries = self.kv.new_zeros(batch_size, capacity // ratio, head_dim)


class LayerState:
    """What one layer keeps: `length` tokens seen, the last ones uncompressed, its compressors'.

    `window` is (batch, n_win - 1, c): the tokens that the next one reaches besides itself.
    """

    def __init__(
        self,
        config: ConfigV4,
        ratio: int,
        batch_size: int,
        *,
        capacity: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        near = (batch_size, config.sliding_window - 1, config.head_dim)
        self.length, self.capacity = 0, capacity
        self.window = torch.zeros(near, dtype=dtype, device=device)
        self.compressor, self.indexer = (
            CompressorState(
                batch_size,
                ratio=ratio,
                head_dim=head_dim,
                capacity=capacity,
                dtype=dtype,
                device=device,
            )
            if used
            else None
            for head_dim, used in (
                (config.head_dim, ratio > 0),
                (config.index_head_dim, ratio == CSA_RATIO),
            )
        )

    def extend(self, keys: Float[Tensor, "batch seq c"]) -> Float[Tensor, "batch near c"]:
        """The kept tokens and the new ones; the last n_win - 1 of them stay."""
        both = torch.cat([self.window, keys], dim=1)
        self.window = both[:, both.shape[1] - self.window.shape[1] :].detach()
        self.length += keys.shape[1]
        return both


class CompressedCache:
    """The states of all layers: fixed in size but for the entries, one for m tokens.

    Each layer brings its own state up to date as it runs. Meant for inference: no gradient flows
    through it.

        >>> cache = CompressedCache(TINY_V4, batch_size=2, capacity=64)
        >>> from dsnotes.after.compressed import CompressedAttention
        >>> out = CompressedAttention(TINY_V4, layer_idx=1)(torch.randn(2, 10, 64), cache)
        >>> cache.layers[1].length
        10
        >>> cache.fixed_nbytes, cache.entries_nbytes
        (36352, 13312)
    """

    @checked
    def __init__(
        self,
        config: ConfigV4,
        *,
        batch_size: int,
        capacity: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        at_least(1, batch_size=batch_size, capacity=capacity)
        self.layers = [
            LayerState(config, ratio, batch_size, capacity=capacity, dtype=dtype, device=device)
            for ratio in config.compress_ratios
        ]

    @checked
    def layer(self, layer_idx: int, x: Float[Tensor, "batch seq hidden"]) -> LayerState:
        """The state of one layer; ValueError when the batch is another or x does not fit."""
        at_least(0, layer_idx=layer_idx)
        if layer_idx >= len(self.layers):
            raise ValueError(f"layer_idx must be below {len(self.layers)}, got {layer_idx}")
        state = self.layers[layer_idx]
        if len(x) != len(state.window):
            raise ValueError(f"x must have batch {len(state.window)} as the cache, got {len(x)}")
        if state.length + x.shape[1] > state.capacity:
            raise ValueError(
                f"CompressedCache is full: capacity {state.capacity}, {state.length} tokens held, "
                f"{x.shape[1]} more do not fit; allocate a larger one"
            )
        return state

    @property
    def fixed_nbytes(self) -> int:
        """Bytes that no length of text changes: windows and unfinished windows."""
        held = [part for s in self.layers for part in (s.compressor, s.indexer) if part]
        windows = sum(state.window.nbytes for state in self.layers)
        return windows + sum(part.kv.nbytes + part.gate.nbytes for part in held)

    @property
    def entries_nbytes(self) -> int:
        """Bytes of the compressed entries and the indexer's, as preallocated for `capacity`."""
        held = [part for s in self.layers for part in (s.compressor, s.indexer) if part]
        return sum(part.entries.nbytes for part in held)
