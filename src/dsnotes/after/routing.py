"""Experts in V4: affinities by sqrt(softplus), a table for the first layers, a clamp in SwiGLU.

V3's gate with another squashing function and without groups. In the leading layers the choice is
no choice: a fixed table sends each word of the vocabulary to its experts, and the gate only weighs.

Sources
    V4 (arXiv 2606.19348) §2.1, §4.2.1      affinity, hash routing, no limit on nodes
    V4 §4.2.3, and the released code        the clamp: up to [-limit, limit], gate to at most limit
    V3 (arXiv 2412.19437) (12), (13), (16)  the sum, the normalised weights, the biased choice

Departures
    The released checkpoint brings its table; here one is drawn, `num_experts_per_tok` different
    experts for each word.
    The shared experts are clamped as the routed ones, as in transformers and in the released code
    since June 2026; before, they were not.

Shapes: T tokens, E routed experts, K chosen by each token.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dsnotes.after.config import ConfigV4
from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, channels, token_ids
from dsnotes.model.mlp import MLP
from dsnotes.model.moe import Gate, MoE, Routing


class ClampedMLP(MLP):
    """SwiGLU whose two factors are bounded before they are multiplied.

    >>> ClampedMLP(8, 4, limit=10.0)(torch.randn(3, 8)).shape
    torch.Size([3, 8])
    """

    @checked
    def __init__(self, hidden_size: int, intermediate_size: int, *, limit: float) -> None:
        super().__init__(hidden_size, intermediate_size)
        if not limit > 0:
            raise ValueError(f"limit must be above 0, got {limit!r}")
        self.limit = limit

    @checked
    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        """down(silu(min(gate, limit)) * clip(up)); ValueError for another last size."""
        channels(self.gate_proj.in_features, x=x)
        gate = self.gate_proj(x).clamp(max=self.limit)
        up = self.up_proj(x).clamp(-self.limit, self.limit)
        y: Tensor = self.down_proj(F.silu(gate) * up)
        return y


class GateV4(Gate):
    """Scores the experts by sqrt(softplus) and takes the K best, or those of the table.

    With `hashed` the buffer `tid2eid` (a row for each word) decides who is chosen, and there is no
    `e_score_correction_bias`. The weights are affinities in both cases. `record_routing` and
    `keep_routing` see it as they see V3's.

        >>> gate = GateV4(TINY_V4, hashed=True)
        >>> gate(torch.randn(5, 64), torch.tensor([7, 7, 1, 2, 3])).indices.shape
        torch.Size([5, 4])
    """

    config: ConfigV4  # type: ignore[assignment]

    @checked
    def __init__(self, config: ConfigV4, *, hashed: bool) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        nn.init.normal_(self.weight, std=config.initializer_range)
        self.hashed = hashed
        bias = None if hashed else torch.zeros(config.n_routed_experts)
        self.register_buffer("e_score_correction_bias", bias)
        if hashed:
            order = torch.rand(config.vocab_size, config.n_routed_experts).argsort(dim=1)
            self.register_buffer("tid2eid", order[:, : config.num_experts_per_tok].contiguous())

    @checked
    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "tokens hidden"], tokens: Integer[Tensor, "tokens"]
    ) -> Routing:
        """Route T tokens; `tokens` are their numbers in the vocabulary, read by the table alone.

        ValueError for another width, and for a word that is not in the vocabulary.
        """
        channels(self.weight.shape[1], x=x)
        wide = torch.promote_types(x.dtype, torch.float32)
        scores = F.softplus(F.linear(x.to(wide), self.weight.to(wide))).sqrt()  # (T, E)
        words = token_ids(tokens, vocab_size=self.config.vocab_size)
        if self.hashed:
            indices = self.get_buffer("tid2eid")[words]
        else:
            biased = scores.detach() + self.get_buffer("e_score_correction_bias")
            indices = biased.topk(self.config.num_experts_per_tok, dim=1).indices  # (16)
        weights = scores.gather(1, indices)
        if self.config.norm_topk_prob:
            weights = weights / (weights.sum(dim=1, keepdim=True) + 1e-20)  # (13)
        return Routing(indices, weights * self.config.routed_scaling_factor, scores)


class MoEV4(MoE):
    """Routed and shared experts of layer `layer_idx`; the first `num_hash_layers` use the table.

    >>> MoEV4(TINY_V4, 0)(torch.randn(2, 7, 64), torch.zeros(2, 7, dtype=torch.long)).shape
    torch.Size([2, 7, 64])
    """

    gate: GateV4

    @checked
    def __init__(self, config: ConfigV4, layer_idx: int) -> None:
        nn.Module.__init__(self)
        at_least(0, layer_idx=layer_idx)
        hidden, inner, limit = (
            config.hidden_size,
            config.moe_intermediate_size,
            config.swiglu_limit,
        )
        self.gate = GateV4(config, hashed=layer_idx < config.num_hash_layers)
        self.experts = nn.ModuleList(
            ClampedMLP(hidden, inner, limit=limit) for _ in range(config.n_routed_experts)
        )
        self.shared_experts = ClampedMLP(hidden, config.n_shared_experts * inner, limit=limit)

    @checked
    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "*batch hidden"], tokens: Integer[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch hidden"]:
        """Map (..., hidden_size) to the same shape; `tokens` as in `GateV4.forward`."""
        channels(self.gate.weight.shape[1], x=x)
        flat = x.reshape(-1, x.shape[-1])  # (T, hidden)
        routed = self._routed(flat, self.gate(flat, tokens.reshape(-1)))
        assert self.shared_experts is not None
        y: Tensor = routed + self.shared_experts(flat)
        return y.view_as(x)
