"""DeepSeek: the causal language model assembled from attention, experts and norms.

A token becomes a vector, passes `num_hidden_layers` pre-norm blocks of latent attention and a
feed-forward part (dense in the first layers, a mixture of experts in the others), and the head
turns the last hidden state into logits. Modules and parameters bear the released names.

Sources
    V3 (arXiv 2412.19437) figure 2, section 2.1 and 4.2     the block, sizes, initial std 0.006

Departures
    - Multi-token prediction modules (`model.layers.{L}` and on) are not built here.
    - Prompts of unequal length are padded at the end and the padding is dropped from the cache
      again. It needs no mask of its own: a token only looks at positions up to its own.

Legend of shapes: batch (sequences or prompts), seq (new tokens), hidden, vocab, new (generated).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, channels, on_device, token_ids, widened
from dsnotes.config import Config
from dsnotes.model.cache import LatentCache
from dsnotes.model.mla import MLA, Pass
from dsnotes.model.mlp import MLP
from dsnotes.model.moe import MoE
from dsnotes.model.rope import rope_frequencies, rope_rotation


class DecoderLayer(nn.Module):
    """One block: attention, then the feed-forward part, each on normed input and added back."""

    @checked
    def __init__(self, config: Config, layer_idx: int, *, dense: bool) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn: nn.Module = MLA(config, layer_idx)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size) if dense else MoE(config)

    @checked
    def forward(
        self, x: Float[Tensor, "batch seq hidden"], shared: Pass
    ) -> Float[Tensor, "batch seq hidden"]:
        """One block of a pass over new tokens."""
        channels(len(self.input_layernorm.weight), x=x)
        x = x + self.self_attn(self.input_layernorm(x), shared)
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


class Backbone(nn.Module):
    """Embedding, blocks and the final norm: all but the head."""

    @checked
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, i, dense=i < config.first_k_dense_replace)
            for i in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.frequencies = rope_frequencies(config)  # no buffer: it stays float64 under .bfloat16()
        self.cache_width = config.kv_lora_rank + config.qk_rope_head_dim  # cached in each layer

    @checked
    def forward(
        self,
        tokens: Integer[Tensor, "batch seq"],
        *,
        cache: LatentCache | None = None,
        absorb: bool | None = None,
    ) -> Float[Tensor, "batch seq hidden"]:
        """Hidden states after the final norm; `absorb` as in `Pass`.

        ValueError for tokens outside the vocabulary, an empty sequence, positions beyond
        `max_position_embeddings` and a cache without room.
        """
        if tokens.numel() == 0:
            raise ValueError(f"tokens must not be empty, got shape {tuple(tokens.shape)}")
        tokens = token_ids(tokens, vocab_size=self.config.vocab_size)
        held = None if cache is None else cache.latents
        on_device(self.embed_tokens.weight.device, tokens=tokens, cache=held)
        x: Tensor = self.embed_tokens(tokens)  # (batch, seq, hidden)
        if cache is None:
            positions, mask = torch.arange(tokens.shape[1], device=tokens.device), None
        elif len(cache.lengths) != len(tokens):
            raise ValueError(f"cache must hold {len(tokens)} sequences, got {len(cache.lengths)}")
        else:
            positions, mask = cache.open(tokens.shape[1])
        last = tokens.shape[1] - 1 + (0 if cache is None else int(cache.lengths.max()))
        if last >= self.config.max_position_embeddings:
            raise ValueError(
                f"position {last} is beyond max_position_embeddings "
                f"({self.config.max_position_embeddings})"
            )
        rotation = rope_rotation(positions, self.frequencies, dtype=x.dtype)
        shared = Pass(rotation, mask, cache, absorb)
        for i in range(self.config.num_hidden_layers):  # MTP modules may follow in `layers`
            x = self.layers[i](x, shared)
        if cache is not None:
            cache.advance()
        x = self.norm(x)
        return x


class DeepSeek(nn.Module):
    """The language model: tokens in, logits of the next token at every position out.

    Weights start as N(0, initializer_range), norms at 1.

        >>> DeepSeek(TINY)(torch.zeros(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 256])
    """

    @checked
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        for parameter in self.parameters():
            if parameter.ndim > 1 and not parameter.is_meta:  # all but the norms
                nn.init.normal_(parameter, std=config.initializer_range)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.lm_head.weight.dtype

    @checked
    def forward(
        self,
        tokens: Integer[Tensor, "batch seq"],
        *,
        cache: LatentCache | None = None,
        absorb: bool | None = None,
    ) -> Float[Tensor, "batch seq vocab"]:
        """Logits; with a cache, the tokens follow those it holds and are held afterwards."""
        logits: Tensor = self.lm_head(self.model(tokens, cache=cache, absorb=absorb))
        return logits

    @checked
    def hidden(
        self, tokens: Integer[Tensor, "batch seq"], *, cache: LatentCache | None = None
    ) -> Float[Tensor, "batch seq hidden"]:
        """What `lm_head` makes logits of: the hidden states after the final norm."""
        states: Tensor = self.model(tokens, cache=cache)
        return states

    @checked
    def new_cache(self, *, batch_size: int, capacity: int) -> LatentCache:
        """An empty cache of the type and on the device of the weights.

        ValueError when `capacity` exceeds `max_position_embeddings`.
        """
        limit = self.config.max_position_embeddings
        if capacity > limit:
            raise ValueError(f"capacity {capacity} exceeds max_position_embeddings ({limit})")
        size = {"batch_size": batch_size, "capacity": capacity, "width": self.model.cache_width}
        return LatentCache(self.config, **size, dtype=self.dtype, device=self.device)

    @torch.no_grad()
    @checked
    def generate(
        self,
        prompts: Sequence[Sequence[int]] | Sequence[Tensor] | Integer[Tensor, "batch seq"],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop_token: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Integer[Tensor, "batch new"]:
        """Continue prompts of any length: the new tokens alone, one row per prompt.

        Temperature 0 is greedy. `generator` seeds the draws. After its `stop_token` a row is filled
        with it; generation ends early once all rows have one. Bad arguments raise ValueError.

            >>> model.generate([[1, 2, 3], [4]], max_new_tokens=5).shape
            torch.Size([2, 5])
        """
        at_least(1, max_new_tokens=max_new_tokens)
        on_device(self.device, generator=generator)
        if len(prompts) == 0:
            raise ValueError("prompts must hold at least one prompt, got none")
        rows = [torch.as_tensor(prompt, device=self.device) for prompt in prompts]
        for i, row in enumerate(rows):
            if row.ndim != 1 or len(row) == 0:
                raise ValueError(f"prompts[{i}] must be a row of at least one token, got {row}")
            rows[i] = token_ids(row, vocab_size=self.config.vocab_size, name=f"prompts[{i}]")
        lengths = torch.tensor([len(row) for row in rows])
        capacity = int(lengths.max()) + max_new_tokens - 1  # the last token is never fed
        cache = self.new_cache(batch_size=len(rows), capacity=capacity)
        hidden = self.hidden(pad_sequence(rows, batch_first=True), cache=cache)
        cache.truncate(lengths)
        last = hidden[torch.arange(len(rows)), lengths - 1]  # (batch, hidden)
        stopped = torch.zeros(len(rows), 1, dtype=torch.bool, device=self.device)
        new: list[Tensor] = []
        while True:
            probs = next_token_probs(self.lm_head(last), temperature=temperature, top_p=top_p)
            token = torch.multinomial(probs, 1, generator=generator)  # (batch, 1)
            if stop_token is not None:
                token = token.masked_fill(stopped, stop_token)
                stopped = token == stop_token
            new.append(token)
            if len(new) == max_new_tokens or (stop_token is not None and stopped.all()):
                return torch.cat(new, dim=1)
            last = self.hidden(token, cache=cache)[:, -1]  # one absorbed step over the cache


@checked
def next_token_probs(
    logits: Float[Tensor, "*batch vocab"], *, temperature: float, top_p: float = 1.0
) -> Float[Tensor, "*batch vocab"]:
    """The distribution the next token is drawn from.

    softmax(logits / temperature); at temperature 0 all mass on the largest logit. With `top_p` only
    the most probable tokens that together reach it keep their mass, made to sum to 1. In float64,
    returned in float32 at least. ValueError unless temperature >= 0 and 0 < top_p <= 1.

        >>> next_token_probs(torch.tensor([0.0, 2.0]), temperature=0.0)
        tensor([0., 1.])
    """
    at_least(0, temperature=temperature)
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {top_p}")
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(dim=-1, keepdim=True), 1)
    x = widened(logits)
    # The likeliest is 0 before the division: nothing overflows but what is infinitely unlikely.
    probs = ((x - x.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    if top_p < 1:
        ordered, index = probs.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # a token stays if those before it fall short
        probs = torch.zeros_like(probs).scatter(-1, index, ordered.masked_fill(before >= top_p, 0))
        probs = probs / probs.sum(dim=-1, keepdim=True)
    return probs.to(torch.promote_types(logits.dtype, torch.float32))
