"""DeepSeek sparse attention (DSA): latent attention over the tokens that an indexer chooses.

The latents of MLA are one key and one value for all heads once the query has absorbed W^UK, so a
query needs one set of tokens, not one per head. The indexer chooses it, k latents are read instead
of all, and the indexer is trained to foretell the attention over what it chooses from.

Equations
    V3.2-Exp report §1     (2) attention over the chosen latents
    V3.2-Exp report §2.1   (3), (4) the target of the indexer: attention summed over the heads

Departures
    - The compressed query is computed once more for the indexer, cut off from the graph.
    - One row of the cache holds latent, positional key and indexer key; the released code has two.
    - A query that sees fewer than k tokens is given invisible ones as well and masks them.

Legend of shapes: batch, seq (new tokens), past (all tokens attended to), heads, k tokens chosen,
and the channels of `model.mla`: n, r, v, c; n_r is n + r, c_r is c + r.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dsnotes.after.config import ConfigV32
from dsnotes.after.indexer import Indexer, indexer_loss, select
from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import channels
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import MLA, Pass


class SparseMLA(MLA):
    """Latent attention over the tokens that its indexer chooses; a drop-in for `MLA`.

    The cache must be `cache_width` channels wide: `LatentCache(config, width=...)`.

        >>> from dsnotes.model.rope import rope_frequencies, rope_rotation
        >>> angles = rope_frequencies(TINY_V32)
        >>> rotation = rope_rotation(torch.arange(5), angles, dtype=torch.float32)
        >>> SparseMLA(TINY_V32)(torch.randn(2, 5, 64), Pass(rotation)).shape
        torch.Size([2, 5, 64])
    """

    @checked
    def __init__(self, config: ConfigV32, layer_idx: int = 0) -> None:
        super().__init__(config, layer_idx)
        self.indexer = Indexer(config)
        self.cache_width = self.kv_lora_rank + self.qk_rope_head_dim + config.index_head_dim

    @checked
    def forward(
        self, x: Float[Tensor, "batch seq hidden"], shared: Pass
    ) -> Float[Tensor, "batch seq hidden"]:
        """u_t of eq 2. `Pass.absorb` says how the chosen latents are read, as in `MLA`.

        Absorbed, every query gathers its own k latents and reads no others. Otherwise keys and
        values of all tokens are decompressed and masked, which suits a short first pass.
        """
        query, latents, scores, mask = self._scored(x, shared)
        chosen = select(scores, mask, topk=self.indexer.index_topk)
        seq, past = scores.shape[1:]
        if shared.absorb or (shared.absorb is None and past > seq):
            rows = latents.unsqueeze(1).expand(-1, seq, -1, -1)  # (batch, seq, past, c_r)
            index = chosen.indices.unsqueeze(-1).expand(-1, -1, -1, latents.shape[-1])
            heads = self.attend_absorbed(  # each query is a batch of its own
                query.flatten(0, 1).unsqueeze(1),
                rows.gather(2, index).flatten(0, 1),  # (batch * seq, k, c_r)
                mask=chosen.visible.flatten(0, 1).unsqueeze(1),
            ).view(*query.shape[:3], -1)
        else:
            heads = self.attend(query, latents, mask=chosen.mask(past))
        output: Tensor = self.o_proj(heads.flatten(-2))  # (2)
        return output

    @checked
    def loss(
        self, x: Float[Tensor, "batch seq hidden"], shared: Pass, *, sparse: bool
    ) -> Float[Tensor, ""]:
        """What the indexer learns from: eq 3, or with `sparse` eq 4. Nothing else gets a gradient.

        The layer's own attention is the target, taken over the same tokens as the loss.
        """
        query, latents, scores, mask = self._scored(x, shared)
        if sparse:
            mask = select(scores, mask, topk=self.indexer.index_topk).mask(scores.shape[-1])
        return indexer_loss(scores, self.attention(query, latents, mask), mask)

    @torch.no_grad()
    @checked
    def attention(
        self,
        query: Float[Tensor, "batch seq heads n_r"],
        latents: Float[Tensor, "batch past c_r"],
        mask: Bool[Tensor, "#batch seq past"],
    ) -> Float[Tensor, "batch seq past"]:
        """p_t of eq 3: the attention over `mask`, summed over the heads and made to sum to 1."""
        channels(self.kv_lora_rank + self.qk_rope_head_dim, latents=latents)
        logits = torch.einsum("bthc,bsc->bths", self.absorbed(query), latents) * self.softmax_scale
        weights = logits.masked_fill(~mask.unsqueeze(2), float("-inf")).softmax(dim=-1)
        return F.normalize(weights.sum(dim=2), p=1, dim=-1)

    def _scored(self, x: Tensor, shared: Pass) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, all latents, index scores of all tokens, and which of them may be seen."""
        query, latents = self.query(x, shared.rotation), self.latent(x, shared.rotation)
        apart = x.detach()  # the loss of the indexer ends here, and no other reaches it
        keys = self.indexer.key(apart, shared.rotation)
        if shared.cache is not None:
            row = shared.cache.append(self.layer_idx, torch.cat([latents, keys], dim=-1))
            latents, keys = row.split([latents.shape[-1], keys.shape[-1]], dim=-1)
        with torch.no_grad():
            compressed = self.q_a_layernorm(self.q_a_proj(apart))
        scores = self.indexer(apart, compressed, keys, shared.rotation)
        seq, past = scores.shape[1:]
        mask = shared.mask
        if mask is None:
            everything = torch.ones(1, seq, past, dtype=torch.bool, device=x.device)
            mask = everything.tril(past - seq)
        return query, latents, scores, mask


@contextmanager
@checked
def record_losses(model: nn.Module, *, sparse: bool) -> Iterator[list[Tensor]]:
    """The `SparseMLA.loss` of every layer that runs inside the block, in the order of the calls.

    >>> model = use_sparse_attention(model, TINY_V32)
    >>> with record_losses(model, sparse=False) as losses:
    ...     logits = model(tokens)
    >>> sum(losses).backward()  # reaches the indexers alone
    >>> model.lm_head.weight.grad is None
    True
    """
    losses: list[Tensor] = []

    def note(layer: SparseMLA, args: tuple[Tensor, Pass], _output: object) -> None:
        losses.append(layer.loss(*args, sparse=sparse))

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, SparseMLA):
                hooks.enter_context(module.register_forward_hook(note))
        yield losses


@checked
def use_sparse_attention(model: DeepSeek, config: ConfigV32) -> DeepSeek:
    """Give every latent attention of `model` a fresh indexer; return the model.

    So V3.2 went on from V3.1. All weights are kept. ValueError where `config` says anything else
    than the model's but for the indexer, and for a model whose attention is not latent.
    """
    own, new = asdict(model.config), asdict(config)
    for name, value in own.items():
        if value != new[name]:
            raise ValueError(f"config must have the model's {name} {value!r}, got {new[name]!r}")
    for i, layer in enumerate(model.model.layers):
        if type(layer.self_attn) is not MLA:
            kind = type(layer.self_attn).__name__
            raise ValueError(f"model must have latent attention in layer {i}, got {kind}")
        with torch.device(model.device):
            attention = SparseMLA(config, i)
        for parameter in attention.indexer.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=config.initializer_range)
        attention.load_state_dict(layer.self_attn.state_dict(), strict=False)
        layer.self_attn = attention.to(model.dtype)
    model.model.cache_width = attention.cache_width
    return model
