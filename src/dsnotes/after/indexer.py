"""The lightning indexer of DeepSeek sparse attention: which earlier tokens a query should read.

Few narrow heads that share one key score every earlier token, and the `index_topk` best are read.
The choice has no gradient: the indexer learns to foretell the attention by a loss of its own.

Equations
    V3.2-Exp report §1     (1) index score, (2) the set of chosen tokens
    V3.2-Exp report §2.1   (3) loss over all tokens (dense warm-up), (4) over the chosen (sparse)

Departures
    - The released code turns indexer queries and keys by a Hadamard matrix and rounds them to FP8.
      The turn leaves every product as it is; rounding is left out, as in transformers.
    - (3) and (4) sum over the queries; here they are averaged, which scales the learning rate.

Legend of shapes: batch, seq (new tokens), past (all tokens), heads = index_n_heads (H^I),
d = index_head_dim (d^I), q = q_lora_rank, k = min(index_topk, past).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn

from dsnotes.after.config import ConfigV32
from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, channels
from dsnotes.model.rope import apply_rope

KEY_NORM_EPS = 1e-6


class Selection(NamedTuple):
    """The tokens that each query chose; `visible` is False where it had too few to choose from."""

    indices: Int[Tensor, "batch seq k"]
    visible: Bool[Tensor, "batch seq k"]

    def mask(self, past: int) -> Bool[Tensor, "batch seq past"]:
        """True where a query attends: S_t of eq 4."""
        none = torch.zeros(*self.indices.shape[:2], past, dtype=torch.bool)
        return none.to(self.indices.device).scatter(-1, self.indices, self.visible)


class Indexer(nn.Module):
    """The lightning indexer, with the parameter names of the released checkpoint.

    >>> indexer = Indexer(TINY_V32)
    >>> indexer.weights_proj.weight.shape, indexer.k_norm.bias.shape
    (torch.Size([32, 64]), torch.Size([16]))
    """

    @checked
    def __init__(self, config: ConfigV32) -> None:
        super().__init__()
        assert config.q_lora_rank is not None  # ConfigV32 refuses it
        self.n_heads, self.head_dim = config.index_n_heads, config.index_head_dim
        self.qk_rope_head_dim, self.index_topk = config.qk_rope_head_dim, config.index_topk
        self.wq_b = nn.Linear(config.q_lora_rank, self.n_heads * self.head_dim, bias=False)
        self.wk = nn.Linear(config.hidden_size, self.head_dim, bias=False)
        self.k_norm = nn.LayerNorm(self.head_dim, eps=KEY_NORM_EPS)
        self.weights_proj = nn.Linear(config.hidden_size, self.n_heads, bias=False)

    @checked
    def key(
        self, x: Float[Tensor, "batch seq hidden"], rotation: Complex[Tensor, "*#batch seq pairs"]
    ) -> Float[Tensor, "batch seq d"]:
        """k^I_s, one for all heads of the indexer: all that it has to keep of a token."""
        channels(self.wk.in_features, x=x)
        return self._turned(self.k_norm(self.wk(x)), rotation)

    @checked
    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        compressed: Float[Tensor, "batch seq q"],
        keys: Float[Tensor, "batch past d"],
        rotation: Complex[Tensor, "*#batch seq pairs"],
    ) -> Float[Tensor, "batch seq past"]:
        """I_t,s of every new token t and every token s, later ones included: eq 1.

        `compressed` is c^Q after its norm, which the queries of latent attention start from too.
        """
        channels(self.wk.in_features, x=x)
        channels(self.wq_b.in_features, compressed=compressed)
        channels(self.head_dim, keys=keys)
        query = self.wq_b(compressed).unflatten(-1, (self.n_heads, -1))  # (batch, seq, heads, d)
        query = self._turned(query, rotation.unsqueeze(-2))
        weights = self.weights_proj(x) * self.n_heads**-0.5 * self.head_dim**-0.5
        products = torch.einsum("bthd,bsd->bths", query, keys).relu()
        return torch.einsum("bth,bths->bts", weights, products)  # (1)

    def _turned(self, x: Tensor, rotation: Tensor) -> Tensor:
        """RoPE on the first channels, pairs in two halves: neither is as in latent attention."""
        position, rest = x.split([self.qk_rope_head_dim, x.shape[-1] - self.qk_rope_head_dim], -1)
        adjacent = position.unflatten(-1, (2, -1)).mT.flatten(-2)
        halves = apply_rope(adjacent, rotation).unflatten(-1, (-1, 2)).mT.flatten(-2)
        return torch.cat([halves, rest], dim=-1)


@checked
def select(
    scores: Float[Tensor, "batch seq past"], mask: Bool[Tensor, "#batch seq past"], *, topk: int
) -> Selection:
    """The `topk` best tokens of each query among those that `mask` lets it see: S_t of eq 2.

    Among equal scores the choice is PyTorch's. ReLU makes scores of exactly 0, so few indexer heads
    mean many equal ones. ValueError unless topk >= 1.

        >>> select(torch.tensor([[[3.0, 9.0, 5.0]]]), torch.ones(1, 1, 3).bool(), topk=2).indices
        tensor([[[1, 2]]])
    """
    at_least(1, topk=topk)
    best = scores.masked_fill(~mask, float("-inf")).topk(min(topk, scores.shape[-1]), dim=-1)
    return Selection(best.indices, best.values > float("-inf"))


@checked
def indexer_loss(
    scores: Float[Tensor, "batch seq past"],
    target: Float[Tensor, "batch seq past"],
    mask: Bool[Tensor, "#batch seq past"],
) -> Float[Tensor, ""]:
    """D_KL(p_t || softmax(I_t)) over the tokens of `mask`, the mean over the queries.

    Eq 3 when the mask is the causal one, eq 4 when it is `Selection.mask`. `target` is a
    distribution over those tokens; it gets no gradient.

        >>> scores, causal = torch.zeros(1, 2, 2), torch.ones(1, 2, 2).bool().tril()
        >>> indexer_loss(scores, torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]), causal)
        tensor(0.)
    """
    guess = scores.masked_fill(~mask, float("-inf")).log_softmax(dim=-1)
    guess = guess.masked_fill(~mask, 0)  # where p is 0 as well, and 0 times -inf is not a number
    return F.kl_div(guess, target.detach(), reduction="sum") / scores[..., 0].numel()
