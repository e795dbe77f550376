"""DeepSeek-V4 in small: compressed attention, hyper-connections and its experts, assembled.

A token becomes `hc_mult` equal streams. Each of the two parts of a layer, attention and experts,
reads a mixture of the streams and writes back to all of them; at the end one mixture is normed and
turned into logits. Modules and parameters bear transformers' names.

Sources
    V4 (arXiv 2606.19348) §2.1 to §2.3, §4.2.1      the parts, the pattern of the layers

Departures
    Multi-token prediction modules are not built here.
    Norms at 1, sinks and biases at 0, all other matrices N(0, initializer_range).

Shapes: batch, seq (new tokens), hidden, vocab, n = hc_mult streams.
"""

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dsnotes.after.compressed import CompressedAttention
from dsnotes.after.compressed_cache import CompressedCache
from dsnotes.after.config import ConfigV4
from dsnotes.after.hyper import HyperConnection, HyperHead, start_streams
from dsnotes.after.routing import MoEV4
from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, on_device, token_ids
from dsnotes.model.deepseek import next_token_probs


class DecoderLayerV4(nn.Module):
    """Attention, then experts, each around its own hyper-connection."""

    @checked
    def __init__(self, config: ConfigV4, layer_idx: int) -> None:
        super().__init__()
        sizes = {
            name: getattr(config, name)
            for name in ("hc_mult", "hc_sinkhorn_iters", "hc_eps", "rms_norm_eps")
        }
        self.self_attn = CompressedAttention(config, layer_idx)
        self.mlp = MoEV4(config, layer_idx)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.attn_hc = HyperConnection(config.hidden_size, **sizes)
        self.ffn_hc = HyperConnection(config.hidden_size, **sizes)

    @checked
    def forward(
        self,
        streams: Float[Tensor, "batch seq n hidden"],
        tokens: Integer[Tensor, "batch seq"],
        cache: CompressedCache | None = None,
    ) -> Float[Tensor, "batch seq n hidden"]:
        """One layer of a pass over new tokens; the first layers choose experts by the tokens."""
        streams = self.attn_hc(streams, lambda x: self.self_attn(self.input_layernorm(x), cache))
        streams = self.ffn_hc(streams, lambda x: self.mlp(self.post_attention_layernorm(x), tokens))
        return streams


class BackboneV4(nn.Module):
    """Embedding, layers, and the end of the streams: all but the head."""

    @checked
    def __init__(self, config: ConfigV4) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayerV4(config, i) for i in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.hc_head = HyperHead(
            config.hidden_size,
            hc_mult=config.hc_mult,
            hc_eps=config.hc_eps,
            rms_norm_eps=config.rms_norm_eps,
        )

    @checked
    def forward(
        self, tokens: Integer[Tensor, "batch seq"], *, cache: CompressedCache | None = None
    ) -> Float[Tensor, "batch seq hidden"]:
        """Hidden states after the final norm.

        ValueError for tokens outside the vocabulary, an empty sequence, positions beyond
        `max_position_embeddings`, and a cache of another batch or without room.
        """
        if tokens.numel() == 0:
            raise ValueError(f"tokens must not be empty, got shape {tuple(tokens.shape)}")
        tokens = token_ids(tokens, vocab_size=self.config.vocab_size)
        on_device(self.embed_tokens.weight.device, tokens=tokens)
        end = tokens.shape[1] + (0 if cache is None else cache.layers[0].length)
        if end > (limit := self.config.max_position_embeddings):
            raise ValueError(f"position {end - 1} is beyond max_position_embeddings ({limit})")
        x: Tensor = self.embed_tokens(tokens)  # (batch, seq, hidden)
        streams = start_streams(x, hc_mult=self.config.hc_mult)  # (batch, seq, n, hidden)
        for layer in self.layers:
            streams = layer(streams, tokens, cache)
        x = self.norm(self.hc_head(streams))
        return x


class DeepSeekV4(nn.Module):
    """The language model: tokens in, logits of the next token at every position out.

    >>> DeepSeekV4(TINY_V4)(torch.zeros(2, 20, dtype=torch.long)).shape
    torch.Size([2, 20, 256])
    """

    @checked
    def __init__(self, config: ConfigV4) -> None:
        super().__init__()
        self.config = config
        self.model = BackboneV4(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1 and not name.endswith("position_bias"):
                nn.init.normal_(parameter, std=config.initializer_range)

    @checked
    def forward(
        self, tokens: Integer[Tensor, "batch seq"], *, cache: CompressedCache | None = None
    ) -> Float[Tensor, "batch seq vocab"]:
        """Logits; with a cache, the tokens follow those it holds and are held afterwards."""
        logits: Tensor = self.lm_head(self.model(tokens, cache=cache))
        return logits

    @checked
    def new_cache(self, *, batch_size: int, capacity: int) -> CompressedCache:
        """An empty cache of the type and on the device of the weights."""
        weight = self.lm_head.weight
        return CompressedCache(
            self.config,
            batch_size=batch_size,
            capacity=capacity,
            dtype=weight.dtype,
            device=weight.device,
        )

    @torch.no_grad()
    @checked
    def generate(
        self,
        prompts: Integer[Tensor, "batch seq"],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Integer[Tensor, "batch new"]:
        """Continue prompts of one length; temperature 0 is greedy.

        >>> DeepSeekV4(TINY_V4).generate(torch.tensor([[1, 2, 3]]), max_new_tokens=4).shape
        torch.Size([1, 4])
        """
        at_least(1, max_new_tokens=max_new_tokens)
        capacity = prompts.shape[1] + max_new_tokens
        cache = self.new_cache(batch_size=len(prompts), capacity=capacity)
        fed, new = prompts, list[Tensor]()
        while len(new) < max_new_tokens:
            probs = next_token_probs(self(fed, cache=cache)[:, -1], temperature=temperature)
            fed = torch.multinomial(probs, 1, generator=generator)
            new.append(fed)
        return torch.cat(new, dim=1)
