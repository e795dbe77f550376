"""The latent cache: what MLA keeps of a token once it has been read, and how much that is.

A preallocated block of memory holds one vector per token and layer for every sequence of a batch.
Tokens are appended after the valid ones of their own sequence and can be taken back, which serves
prompts of unequal length and rejected drafts of speculative decoding alike. A pass over new tokens
is `open`, then one `append` by every layer, then `advance`.

Sources
    V2 (arXiv 2405.04434) section 2.1.2-2.1.3     only c^KV and k^R are cached
    V2 table 1                                    numbers cached per token by MHA, GQA, MQA, MLA

Departures
    - The paper counts numbers per token; `nbytes` counts what is allocated.

Legend of shapes: batch, seq (new tokens), past (all places a new token can look at, its own
included), and c_r = kv_lora_rank + qk_rope_head_dim channels, or the `width` given.
"""

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least
from dsnotes.config import Config


class LatentCache:
    """Per token and layer one normalised latent c^KV and one rotated shared key k^R; nothing else.

    Preallocated for `capacity` tokens in each of `batch_size` sequences and never enlarged.
    Sequences may differ in length: `lengths` says how many tokens of each are valid; the next ones
    are written after those, and whatever memory holds beyond them is never attended to. Meant for
    inference: no gradient flows through it.

    `latents` is (num_layers, batch_size, capacity, width); `num_layers` is by default that of the
    main model. `width` is by default that of MLA, c + r; keys and values by head take 2 n_g d_h.

        >>> cache = LatentCache(TINY, batch_size=2, capacity=8)
        >>> positions, mask = cache.open(3)
        >>> cache.append(0, torch.randn(2, 3, 40)).shape  # and so on for the other layers
        torch.Size([2, 3, 40])
        >>> cache.advance()
        >>> cache.lengths
        tensor([3, 3])
    """

    @checked
    def __init__(
        self,
        config: Config,
        *,
        batch_size: int,
        capacity: int,
        num_layers: int | None = None,
        width: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        num_layers = config.num_hidden_layers if num_layers is None else num_layers
        width = config.kv_lora_rank + config.qk_rope_head_dim if width is None else width
        at_least(1, batch_size=batch_size, capacity=capacity, num_layers=num_layers, width=width)
        self.latents = torch.zeros(
            num_layers, batch_size, capacity, width, dtype=dtype, device=device
        )
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device="cpu")
        self._open: tuple[Tensor, Tensor, int] | None = None  # row and position of new tokens, past

    @property
    def capacity(self) -> int:
        """How many tokens fit into each sequence."""
        return self.latents.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of the latents: layers * batch * capacity * width * element size."""
        return self.latents.nbytes

    @checked
    def open(
        self, num_tokens: int
    ) -> tuple[Int[Tensor, "batch seq"], Bool[Tensor, "batch seq past"] | None]:
        """Begin a pass over the next `num_tokens` tokens of each sequence: their positions, a mask.

        The mask is True where a new token may look. One comparison is causal, hides the padding of
        shorter sequences and hides what `truncate` dropped: a token looks at positions up to its
        own. None stands for the causal mask alone: when nothing is held yet, and when one token
        follows sequences of one length. ValueError when the tokens do not fit.
        """
        at_least(0, num_tokens=num_tokens)
        longest = int(self.lengths.max())
        if longest + num_tokens > self.capacity:
            raise ValueError(
                f"LatentCache is full: capacity {self.capacity}, {longest} tokens held, "
                f"{num_tokens} more do not fit; allocate a larger one or truncate it"
            )
        device = self.latents.device
        steps = torch.arange(num_tokens, device="cpu")
        positions = (self.lengths[:, None] + steps).to(device)  # (batch, seq)
        row, past = torch.arange(len(positions), device=device)[:, None], longest + num_tokens
        self._open = row, positions, past
        if longest == 0 or (num_tokens == 1 and bool((self.lengths == longest).all())):
            return positions, None
        mask = torch.arange(past, device=device) <= positions[:, :, None]  # (batch, seq, past)
        return positions, mask

    @checked
    def append(
        self, layer_idx: int, latents: Float[Tensor, "batch seq c_r"]
    ) -> Float[Tensor, "batch past c_r"]:
        """Write one layer's latents of the tokens; return all that it holds, new ones included.

        The tokens count as held only after `advance`, once every layer has written its own.
        """
        row, positions, past = self._opened()
        if torch.is_autocast_enabled(latents.device.type):  # which may have left them narrower
            latents = latents.to(self.latents.dtype)
        for what in ("dtype", "device"):
            if getattr(latents, what) != getattr(self.latents, what):
                raise TypeError(
                    f"latents must have the cache's {what} {getattr(self.latents, what)}, "
                    f"got {getattr(latents, what)}"
                )
        expected = (*positions.shape, self.latents.shape[-1])
        if latents.shape != expected:
            raise ValueError(
                f"latents must be (batch, seq, c_r) = {expected} as opened, "
                f"got {tuple(latents.shape)}"
            )
        if not 0 <= layer_idx < len(self.latents):
            raise ValueError(f"layer_idx must lie in 0 .. {len(self.latents) - 1}, got {layer_idx}")
        self.latents[layer_idx, row, positions] = latents.detach()
        if past == latents.shape[1]:  # nothing else is held, and they keep their gradient
            return latents
        return self.latents[layer_idx, :, :past]  # (batch, past, c_r)

    def advance(self) -> None:
        """Count the tokens of the open pass as held, once every layer has written its own."""
        _, positions, _ = self._opened()
        self.lengths = self.lengths + positions.shape[1]
        self._open = None

    @checked
    def truncate(self, lengths: Integer[Tensor, "batch"]) -> None:
        """Keep the first `lengths` tokens of each sequence, to roll back or to drop padding.

        Raises ValueError unless 0 <= lengths <= the tokens held.
        """
        lengths = lengths.to("cpu", torch.long)
        if lengths.shape != self.lengths.shape:
            raise ValueError(
                f"lengths must be (batch) = ({len(self.lengths)}), got {tuple(lengths.shape)}"
            )
        if bool((lengths < 0).any()) or bool((lengths > self.lengths).any()):
            raise ValueError(
                f"lengths must lie between 0 and the tokens held {self.lengths.tolist()}, "
                f"got {lengths.tolist()}"
            )
        self.lengths = lengths.clone()
        self._open = None

    def _opened(self) -> tuple[Tensor, Tensor, int]:
        if self._open is None:
            raise ValueError("LatentCache has no pass open: call open(num_tokens) first")
        return self._open


@checked
def cache_elements_per_token(config: Config) -> int:
    """Numbers MLA caches per token in all layers, (d_c + d_h^R) l: V2 table 1.

    Times the bytes of one number: 2 in BF16, so 70,272 bytes for V3.

        >>> cache_elements_per_token(DEEPSEEK_V3)
        35136
    """
    return (config.kv_lora_rank + config.qk_rope_head_dim) * config.num_hidden_layers


@checked
def head_cache_elements_per_token(
    *, num_key_value_heads: int, head_dim: int, num_hidden_layers: int
) -> int:
    """Numbers cached per token when keys and values are cached by head, 2 n_g d_h l: V2 table 1.

    n_g is all heads for MHA, one for MQA, and the number of groups for GQA.

        >>> head_cache_elements_per_token(
        ...     num_key_value_heads=8, head_dim=128, num_hidden_layers=95)  # DeepSeek 67B
        194560
    """
    at_least(
        1,
        num_key_value_heads=num_key_value_heads,
        head_dim=head_dim,
        num_hidden_layers=num_hidden_layers,
    )
    return 2 * num_key_value_heads * head_dim * num_hidden_layers
