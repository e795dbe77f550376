"""Multi-token prediction (MTP): small modules after the model predict the tokens after the next.

Module k takes what module k - 1 knows of a position and the embedding of the token k places on, and
predicts the one behind it, so that every position is trained on D more tokens. After training the
modules are dropped, or they draft tokens for `dsnotes.model.speculative`.

Equations
    V3 (arXiv 2412.19437) section 2.2: (21) combine hidden state and embedding, (22) one Transformer
        block, (23) shared head, (24) loss of one depth, (25) mean over the depths

Departures and open points
    - (21) prints [hidden; embedding]. The released `eh_proj` is fed the embedding first, hence its
      name, and so is ours. Trained from scratch, the order makes no difference.
    - The paper does not say whether h^0 is taken before or after the final norm of the main model:
      here after, as in transformers. The checkpoint has a norm per module, `shared_head.norm`,
      that is in no equation: both the head and the next module read what it returns.
    - (24) divides the sum of T - k terms by T, and so does `mtp_loss`: at T = 4096 and D = 1 that
      is 0.02 % less than a mean.
    - With `documents`, a term whose target lies in another document than its position is left out
      of the sum; T stays. Attention does cross documents, as in V3's pre-training (section 4.1).
    - Positions count from 0 in every module. RoPE sees differences alone, so it does not matter
      that a module's position i belongs to token i + k as much as to token i.

Legend of indices: token t_i is `tokens[:, i - 1]`; S = T + 1 tokens hold T inputs and all targets.
Legend of shapes: batch, seq (S, the tokens given), hidden, vocab.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, channels, on_device, token_ids
from dsnotes.config import Config
from dsnotes.model.deepseek import DecoderLayer, DeepSeek
from dsnotes.model.mla import Pass
from dsnotes.model.rope import rope_frequencies, rope_rotation


class SharedHead(nn.Module):
    """OutHead of eq 23: a norm of the module's own, then the head of the main model."""

    @checked
    def __init__(self, config: Config, lm_head: nn.Linear) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.head = lm_head


class MTPModule(DecoderLayer):
    """One depth. Equation 21 is `combine`, 22 the block it inherits, 23 `shared_head`.

    `embed_tokens` and `shared_head.head` are the main model's own modules: one set of weights, one
    gradient, and in `state_dict` the second copy that the released files hold. The block has
    experts, whatever `first_k_dense_replace` says. `layer_idx` counts the modules alone: a cache
    of theirs holds nothing of the main model.

        >>> module = MTPModule(TINY, 0, model.model.embed_tokens, model.lm_head)
        >>> module.combine(torch.randn(2, 5, 64), torch.zeros(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 64])
    """

    @checked
    def __init__(
        self, config: Config, layer_idx: int, embed_tokens: nn.Embedding, lm_head: nn.Linear
    ) -> None:
        super().__init__(config, layer_idx, dense=False)
        self.enorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.hnorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)  # M_k
        for parameter in self.parameters():
            if parameter.ndim > 1 and not parameter.is_meta:
                nn.init.normal_(parameter, std=config.initializer_range)
        self.embed_tokens = embed_tokens
        self.shared_head = SharedHead(config, lm_head)

    @checked
    def combine(
        self, hidden: Float[Tensor, "batch seq hidden"], tokens: Integer[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq hidden"]:
        """h'_i = M_k [RMSNorm(Emb(t_{i+k})); RMSNorm(h_i)], eq 21: row i of `tokens` is t_{i+k}."""
        channels(self.eh_proj.out_features, hidden=hidden)
        tokens = token_ids(tokens, vocab_size=self.embed_tokens.num_embeddings)
        pair = [self.enorm(self.embed_tokens(tokens)), self.hnorm(hidden)]
        combined: Tensor = self.eh_proj(torch.cat(pair, dim=-1))  # of (batch, seq, 2 hidden)
        return combined


@checked
def add_modules(model: DeepSeek) -> DeepSeek:
    """Append the D = `num_nextn_predict_layers` modules to the layers of a model; return it.

    They become `model.layers.{L}`, {L+1}, ... as in the checkpoint, of the type and on the device
    of the model; the main model runs as before. ValueError when D is 0 or they are there already.

        >>> len(add_modules(DeepSeek(TINY)).model.layers)  # 3 + 1
        4
    """
    config = model.config
    if config.num_nextn_predict_layers < 1:
        raise ValueError("num_nextn_predict_layers must be at least 1 to add modules, got 0")
    backbone = model.model
    if len(backbone.layers) > config.num_hidden_layers:
        raise ValueError(f"model has {len(modules(model))} multi-token prediction modules already")
    for i in range(config.num_nextn_predict_layers):
        with torch.device(model.device):
            module = MTPModule(config, i, backbone.embed_tokens, model.lm_head)
        backbone.layers.append(module.to(model.dtype))
    return model


@checked
def modules(model: DeepSeek) -> list[MTPModule]:
    """The modules of a model, depth 1 first; ValueError when it has none."""
    found = [module for module in model.modules() if isinstance(module, MTPModule)]
    if not found:
        raise ValueError("model has no multi-token prediction modules: call add_modules on it")
    return found


@checked
def predict(
    model: DeepSeek, hidden: Float[Tensor, "batch seq hidden"], tokens: Integer[Tensor, "batch seq"]
) -> list[Float[Tensor, "batch _ vocab"]]:
    """Logits of every depth, eq 21-23; the k-th of the list is (batch, seq - k, vocab).

    `hidden` is what the main model made of `tokens`, `model.hidden(tokens)`. Row i of depth k has
    read tokens up to `tokens[:, i + k]` and is about `tokens[:, i + k + 1]`, so the last row is
    about a token that is not among them. ValueError for fewer than D + 1 tokens.

        >>> model = add_modules(model)
        >>> [logits.shape for logits in predict(model, model.hidden(tokens), tokens)]
        [torch.Size([2, 15, 256])]
    """
    depths, seq = modules(model), tokens.shape[1]
    if seq <= len(depths):
        raise ValueError(
            f"tokens must hold at least {len(depths) + 1} for {len(depths)} modules, got {seq}"
        )
    channels(model.config.hidden_size, hidden=hidden)
    on_device(model.device, hidden=hidden, tokens=tokens)
    positions = torch.arange(seq, device=tokens.device)
    rotation = rope_rotation(positions, rope_frequencies(model.config), dtype=hidden.dtype)
    h, logits = hidden, []
    for k, module in enumerate(depths, start=1):
        h = module.combine(h[:, :-1], tokens[:, k:])  # (21), (batch, seq - k, hidden)
        h = module.shared_head.norm(module(h, Pass(rotation[: seq - k])))  # (22)
        logits.append(module.shared_head.head(h))  # (23)
    return logits


@checked
def mtp_loss(
    logits: list[Float[Tensor, "batch _ vocab"]],
    tokens: Integer[Tensor, "batch seq"],
    *,
    weight: float,
    documents: Integer[Tensor, "batch seq"] | None = None,
) -> Float[Tensor, ""]:
    """lambda times the mean over the depths of their cross-entropies in nats: eq 24 and 25.

    `logits` are those of `predict` for these tokens, `weight` is lambda (V3: 0.3, then 0.1).
    `documents` numbers the document of each token of a packed sequence. Averaged over the batch;
    added to the main model's own loss. ValueError when the lengths do not fit one another.

        >>> ahead = predict(add_modules(model), model.hidden(tokens), tokens)
        >>> mtp_loss(ahead, tokens, weight=0.3).shape
        torch.Size([])
    """
    at_least(0, weight=weight)
    if not logits:
        raise ValueError("logits must hold at least one depth, got none")
    tokens, seq = token_ids(tokens, vocab_size=logits[0].shape[-1]), tokens.shape[1]
    if seq < len(logits) + 2:
        raise ValueError(
            f"tokens must hold at least {len(logits) + 2} to have a target at depth {len(logits)}, "
            f"got {seq}"
        )
    losses = []
    for k, p in enumerate(logits, start=1):
        if p.shape[1] != seq - k:
            raise ValueError(
                f"logits of depth {k} must have {seq - k} positions for {seq} tokens, "
                f"got {p.shape[1]}"
            )
        terms = F.cross_entropy(p[:, :-1].mT, tokens[:, k + 1 :], reduction="none")
        if documents is not None:
            crosses = documents[:, : -(k + 1)] != documents[:, k + 1 :]
            terms = terms.masked_fill(crosses, 0)
        losses.append(terms.sum(dim=1).mean() / (seq - 1))  # (24), T = S - 1
    return weight * torch.stack(losses).mean()  # (25)
