"""DeepSeek: the causal language model assembled from attention, experts and norms.

A token becomes a vector, passes `num_hidden_layers` pre-norm blocks of latent attention and a
feed-forward part (dense in the first layers, a mixture of experts in the others), and the head
turns the last hidden state into logits. The module tree and the parameter names are those of the
released checkpoint, so that released weights load by name.

Sources
    V3 (arXiv 2412.19437) figure 2, section 2.1 and 4.2     the block, sizes, initial std 0.006

Departures
    - Multi-token prediction modules (`model.layers.{L}` and on) are not built here.
"""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from dsnotes.cache import LatentCache
from dsnotes.config import Config
from dsnotes.mla import MLA
from dsnotes.moe import MLP, MoE
from dsnotes.rope import rope_frequencies, rope_rotation


class DecoderLayer(nn.Module):
    """One block: attention, then the feed-forward part, each on normed input and added back."""

    def __init__(self, config: Config, *, dense: bool) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = MLA(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size) if dense else MoE(config)

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        rotation: Complex[Tensor, "*#batch seq pairs"],
        *,
        cache: LatentCache | None = None,
        layer: int = 0,
        absorb: bool = True,
    ) -> Float[Tensor, "batch seq hidden"]:
        """One block; the keyword arguments are those of `MLA.forward`."""
        x = x + self.self_attn(
            self.input_layernorm(x), rotation, cache=cache, layer=layer, absorb=absorb
        )
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


class Backbone(nn.Module):
    """Embedding and blocks; owns the final norm, which `DeepSeek.head` applies."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, dense=i < config.first_k_dense_replace)
            for i in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.frequencies = rope_frequencies(config)  # no buffer: it stays float64 under .bfloat16()

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        *,
        cache: LatentCache | None = None,
        absorb: bool = True,
    ) -> Float[Tensor, "batch seq hidden"]:
        """Hidden states behind the last block, before the final norm."""
        x: Tensor = self.embed_tokens(tokens)
        if cache is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
        else:
            positions = cache.positions(tokens.shape[1])
        rotation = rope_rotation(positions, self.frequencies, dtype=x.dtype)
        for i in range(self.config.num_hidden_layers):  # MTP modules may follow in `layers`
            x = self.layers[i](x, rotation, cache=cache, layer=i, absorb=absorb)
        if cache is not None:
            cache.advance(tokens.shape[1])
        return x


class DeepSeek(nn.Module):
    """The language model: tokens in, logits of the next token at every position out.

    Weights start as N(0, initializer_range), norms at 1.

        >>> DeepSeek(TINY)(torch.zeros(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 256])
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:  # all but the norms
                nn.init.normal_(parameter, std=config.initializer_range)

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        *,
        cache: LatentCache | None = None,
        absorb: bool = True,
    ) -> Float[Tensor, "batch seq vocab"]:
        """Logits; with a cache, the tokens follow those it holds and are held afterwards."""
        return self.head(self.model(tokens, cache=cache, absorb=absorb))

    def head(self, hidden: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch vocab"]:
        """Final norm and projection to the vocabulary of what `model` returns."""
        logits: Tensor = self.lm_head(self.model.norm(hidden))
        return logits
