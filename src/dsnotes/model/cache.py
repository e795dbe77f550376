"""The latent cache: what MLA keeps of a token once it has been read, and how much that is.

A preallocated block of memory holds one vector per token and layer for every sequence of a batch.
Tokens are appended after the valid ones of their own sequence and can be taken back, which serves
prompts of unequal length and rejected drafts of speculative decoding alike.

Sources
    V2 (arXiv 2405.04434) section 2.1.2-2.1.3     only c^KV and k^R are cached
    V2 table 1                                    numbers cached per token by MHA, GQA, MQA, MLA

Departures
    - The paper counts numbers per token; `nbytes` counts what is allocated.
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

    `latents` is (num_layers, batch_size, capacity, c + r); `num_layers` is by default that of the
    main model.

        >>> cache = LatentCache(DEEPSEEK_V2_LITE, batch_size=1, capacity=1024, dtype=torch.bfloat16)
        >>> cache.nbytes // 1024 == 2 * cache_elements_per_token(DEEPSEEK_V2_LITE)
        True
    """

    @checked
    def __init__(
        self,
        config: Config,
        *,
        batch_size: int,
        capacity: int,
        num_layers: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        num_layers = config.num_hidden_layers if num_layers is None else num_layers
        at_least(1, batch_size=batch_size, capacity=capacity, num_layers=num_layers)
        width = config.kv_lora_rank + config.qk_rope_head_dim
        self.latents = torch.zeros(
            num_layers, batch_size, capacity, width, dtype=dtype, device=device
        )
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device="cpu")

    @property
    def capacity(self) -> int:
        """How many tokens fit into each sequence."""
        return self.latents.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of the latents: layers * batch * capacity * (c + r) * element size."""
        return self.latents.nbytes

    @checked
    def positions(self, num_tokens: int) -> Int[Tensor, "batch seq"]:
        """Positions of the next `num_tokens` tokens; ValueError when they do not fit."""
        at_least(0, num_tokens=num_tokens)
        longest = int(self.lengths.max())
        if longest + num_tokens > self.capacity:
            raise ValueError(
                f"LatentCache is full: capacity {self.capacity}, {longest} tokens held, "
                f"{num_tokens} more do not fit; allocate a larger one or truncate it"
            )
        steps = torch.arange(num_tokens, device="cpu")
        return (self.lengths[:, None] + steps).to(self.latents.device)

    @checked
    def append(
        self, layer: int, latents: Float[Tensor, "batch seq c_r"]
    ) -> Float[Tensor, "batch past c_r"]:
        """Write the latents of new tokens of one layer; return all that layer holds, new included.

        The tokens count as held only after `advance`, once every layer has written its own.
        """
        if torch.is_autocast_enabled(latents.device.type):  # which may have left them narrower
            latents = latents.to(self.latents.dtype)
        for what in ("dtype", "device"):
            if getattr(latents, what) != getattr(self.latents, what):
                raise TypeError(
                    f"latents must have the cache's {what} {getattr(self.latents, what)}, "
                    f"got {getattr(latents, what)}"
                )
        batch, _, width = self.latents.shape[1:]
        if (len(latents), latents.shape[2]) != (batch, width):
            raise ValueError(
                f"latents must be (batch, seq, c_r) = ({batch}, seq, {width}) like the cache's, "
                f"got {tuple(latents.shape)}"
            )
        if not 0 <= layer < len(self.latents):
            raise ValueError(f"layer must lie in 0 .. {len(self.latents) - 1}, got {layer}")
        positions = self.positions(latents.shape[1])
        row = torch.arange(len(latents), device=latents.device)[:, None]
        self.latents[layer, row, positions] = latents.detach()
        return self.latents[layer, :, : int(self.lengths.max()) + latents.shape[1]]

    @checked
    def mask(self, num_tokens: int) -> Bool[Tensor, "batch seq past"] | None:
        """True where a new token may look; None when that is everywhere.

        One comparison is causal, hides the padding of shorter sequences and hides what `truncate`
        dropped: a token looks at positions up to its own.
        """
        if num_tokens == 1 and bool((self.lengths == self.lengths[0]).all()):
            return None
        positions = self.positions(num_tokens)
        past = torch.arange(int(self.lengths.max()) + num_tokens, device=positions.device)
        return past <= positions[:, :, None]

    @checked
    def advance(self, num_tokens: int) -> None:
        """Count the tokens just written by every layer as held."""
        self.positions(num_tokens)
        self.lengths = self.lengths + num_tokens

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
