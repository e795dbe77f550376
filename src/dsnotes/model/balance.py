"""Keeping the experts of a mixture evenly loaded: by a bias on the choice, or by a loss.

The bias of an overloaded expert goes down a fixed step and that of an underloaded one goes up,
once per optimizer step, outside the gradient. The losses instead push the affinities themselves:
they pair the share of tokens an expert got (a count) with its mean affinity (differentiable).

Equations
    Loss-free balancing (arXiv 2408.15664): Algorithm 1 (bias update), (4) MaxVio
    V3 (arXiv 2412.19437) §2.1.2: (17)-(20) sequence-wise auxiliary loss; the paragraph
        "Auxiliary-Loss-Free Load Balancing"; §4.2: gamma 0.001, and 0 for the last 0.5T tokens;
        alpha 0.0001
    V1 (arXiv 2401.06066) §3.3: (12)-(14) expert-level auxiliary loss; V2 (arXiv 2405.04434)
        §2.2.3: the same, (23)-(25). Their T is the length of a sequence

Departures
    `expert_balance_loss` also takes the tokens of a whole batch as one: the batch-wise loss that
    V3 §4.5.3 compares with. V1, V2 and loss-free balancing (§2.2) balance each sequence for itself.
    Eq. (17) is the loss of one sequence; here it is averaged over the sequences of the batch.
    Eq. (18) counts the top-K of the affinities without bias, although routing adds the bias. We
    count as printed, so this f is not the load of the experts once the biases have moved.
    V1 averages softmax affinities, which sum to 1 over the experts. `expert_balance_loss` takes
    the affinities as they are given: normalise sigmoid ones first, as (19) does.

Shapes: B sequences of T tokens, E routed experts (N_r), K of them chosen by each token (K_r).
"""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, narrowed, token_ids, widened


@checked
def expert_load(
    indices: Integer[Tensor, "*tokens k"], *, n_routed_experts: int
) -> Int[Tensor, "experts"]:
    """How many (token, choice) slots each expert got; the counts sum to T*K.

    Raises TypeError when `indices` are not whole numbers, ValueError when one is no expert.

        >>> expert_load(torch.tensor([[0, 1], [0, 2]]), n_routed_experts=4)
        tensor([2, 1, 1, 0])
    """
    at_least(1, n_routed_experts=n_routed_experts)
    experts = token_ids(indices, vocab_size=n_routed_experts, name="indices")
    return experts.flatten().bincount(minlength=n_routed_experts)


@checked
def max_vio(load: Int[Tensor, "*layers experts"]) -> Float[Tensor, "*layers"]:
    """MaxVio (loss-free balancing eq. 4): how far the fullest expert is above the mean load.

    0 is perfect balance, E/K - 1 the worst there is. With the load of one batch this is
    MaxVio_batch, with that of a whole validation set MaxVio_global; papers report the mean over
    the layers. Raises ValueError when a layer counted no token.

        >>> max_vio(torch.tensor([6, 2, 2, 2]))
        tensor(1.)
    """
    if not load.numel() or (load < 0).any() or (load.sum(-1) == 0).any():
        raise ValueError(f"load must count at least one token per layer, got {load.tolist()}")
    mean = load.sum(-1) / load.shape[-1]
    return (load.amax(-1) - mean) / mean


@torch.no_grad()
@checked
def update_bias(
    bias: Float[Tensor, "experts"], load: Int[Tensor, "experts"], *, gamma: float
) -> None:
    """Move `bias` in place: b_i += gamma * sign(mean load - load_i) (Algorithm 1).

    `load` is that of the whole batch of an optimizer step. Raises TypeError when `bias` is trained
    by gradient, ValueError when gamma is negative or the shapes differ.

        >>> bias = torch.zeros(3); update_bias(bias, torch.tensor([5, 1, 3]), gamma=0.001); bias
        tensor([-0.0010,  0.0010,  0.0000])
    """
    if bias.requires_grad:
        raise TypeError("bias must be a buffer that gets no gradient, got one that requires_grad")
    at_least(0, gamma=gamma)
    # mean - c_i has the sign of sum - E*c_i, which whole numbers give exactly: a load equal to
    # the mean leaves its bias alone
    bias += gamma * torch.sign(load.sum() - load.numel() * load)


class BiasBalancer:
    """Counts the load of several gates and moves their biases once per optimizer step.

    Call `observe` after each forward pass (micro-batch) and `step` after `optimizer.step()`.
    When torch.distributed runs, counts are summed over all ranks, so each rank must hold the same
    gates in the same order. Set `gamma` to 0 for the end of training (V3 §4.2).

    Raises ValueError when there is no gate or their numbers of experts differ, TypeError when one
    has no `e_score_correction_bias`.

        >>> from dsnotes.model.moe import record_routing
        >>> gates = [layer.mlp.gate for layer in model.model.layers[1:]]  # the first is dense
        >>> balancer = BiasBalancer(gates, gamma=0.001)
        >>> with record_routing(model) as routings:
        ...     logits = model(tokens)
        >>> balancer.observe([routing.indices for routing in routings])
        >>> load = balancer.step()  # (layers, E)
    """

    @checked
    def __init__(self, gates: Iterable[nn.Module], *, gamma: float) -> None:
        at_least(0, gamma=gamma)
        self.gates = list(gates)
        self.gamma = gamma
        if not self.gates:
            raise ValueError("gates must hold at least one gate, got none")
        for gate in self.gates:
            if not isinstance(getattr(gate, "e_score_correction_bias", None), Tensor):
                raise TypeError(
                    "gates must have a buffer e_score_correction_bias (topk_method 'noaux_tc'), "
                    f"got {type(gate).__name__} without one"
                )
        if len({bias.shape for bias in self.biases}) > 1:
            raise ValueError(
                "gates must have the same number of experts, got "
                f"{[bias.numel() for bias in self.biases]}"
            )
        self._load = self._zero_load()

    @property
    def biases(self) -> list[Tensor]:
        """The bias of each gate; looked up anew, since moving a module replaces its buffers."""
        return [gate.get_buffer("e_score_correction_bias") for gate in self.gates]

    @checked
    def observe(self, indices: Sequence[Integer[Tensor, "... _"]]) -> None:
        """Add the choices of one micro-batch; raises ValueError unless there is one per gate."""
        if len(indices) != len(self.gates):
            raise ValueError(
                f"indices must hold one tensor per gate ({len(self.gates)}), got {len(indices)}"
            )
        for load, chosen in zip(self._load, indices, strict=True):
            load += expert_load(chosen, n_routed_experts=load.numel()).to(load.device)

    def step(self) -> Int[Tensor, "layers experts"]:
        """Move every bias by the load since the last step; returns that load, of all ranks.

        Raises RuntimeError when nothing was observed.
        """
        load = torch.stack(self._load)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(load)
        if not load.any():
            raise RuntimeError("step() needs the load of a batch: call observe() before it")
        for bias, layer_load in zip(self.biases, load, strict=True):
            update_bias(bias, layer_load.to(bias.device), gamma=self.gamma)
        self._load = self._zero_load()
        return load

    def _zero_load(self) -> list[Tensor]:
        return [torch.zeros_like(bias, dtype=torch.int64) for bias in self.biases]


@checked
def sequence_balance_loss(
    scores: Float[Tensor, "batch seq experts"], *, num_experts_per_tok: int, alpha: float
) -> Float[Tensor, ""]:
    """Sequence-wise auxiliary loss (V3 eq. 17-20), the mean over the sequences of the batch.

    `scores` (B, T, E) are the affinities s without bias, attached to the graph: f carries no
    gradient, P does. Uniform scores give alpha. Raises ValueError when an argument is out of range,
    scores are negative or not finite, or so small that the gradient does not fit their type.

        >>> sequence_balance_loss(torch.full((1, 4, 8), 0.5), num_experts_per_tok=2, alpha=1.0)
        tensor(1.)
    """
    at_least(0, alpha=alpha)
    if not scores.numel():
        raise ValueError(
            f"scores must be (batch, seq, experts), not empty, got shape {tuple(scores.shape)}"
        )
    n_tokens, n_experts = scores.shape[1:]
    if not 1 <= num_experts_per_tok <= n_experts:
        raise ValueError(
            f"num_experts_per_tok must lie in 1 .. {n_experts} experts, got {num_experts_per_tok}"
        )
    chosen = scores.topk(num_experts_per_tok, dim=-1).indices.flatten(1)  # (B, T*K)
    s = widened(scores)
    count = torch.zeros_like(s[:, 0]).scatter_add(1, chosen, s.new_ones(chosen.shape))  # (B, E)
    f = n_experts / (num_experts_per_tok * n_tokens) * count  # (18)
    s_prime, steepness = normalised(s)  # (19)
    P = s_prime.mean(dim=1)  # (20), (B, E)
    loss = alpha * (f * P).sum(dim=-1).mean()  # (17)
    bound = loss.detach() + alpha * f.max() * steepness / (len(scores) * n_tokens)
    return narrowed(loss, scores, what="scores are too small", bound=bound)


@checked
def normalised(scores: Float[Tensor, "*tokens experts"]) -> tuple[Tensor, Tensor]:
    """Affinities (..., E) divided by their sum (V3 eq. 19), and the largest derivative of it.

    Where all of a token have underflowed to 0 they stay 0, as in the gate, and carry no gradient.

        >>> normalised(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))[0]
        tensor([[0.2500, 0.7500], [0.0000, 0.0000]])
    """
    top = scores.detach().amax(dim=-1, keepdim=True)
    if not ((scores >= 0) & (top < torch.inf)).all():  # also for NaN
        raise ValueError("scores must be finite and at least 0, got others")
    share = scores / top.masked_fill(top == 0, 1)  # the sum neither overflows nor underflows
    total = share.sum(dim=-1, keepdim=True).masked_fill(top == 0, 1)
    return (share / total).masked_fill(top == 0, 0), 1 / top.masked_fill(top == 0, 1).min()


@checked
def expert_balance_loss(
    scores: Float[Tensor, "*batch tokens experts"],
    indices: Integer[Tensor, "*batch tokens k"],
    *,
    alpha: float,
) -> Float[Tensor, ""]:
    """Expert-level auxiliary loss (V1 eq. 12-14); the shape says which tokens balance together.

    (B, T, E): those of one sequence, then the mean over the sequences, as V1 and V2 define it and
    V2's gate computes it (`seq_aux: true`). (T, E): all of them, a batch-wise loss.

    `scores` are affinities that sum to 1 over the experts, attached to the graph; `indices`
    (..., T, K) the experts in fact chosen. Uniform load gives alpha, whatever the scores. Raises
    ValueError when shapes do not fit or alpha is negative; `indices` as in `expert_load`.

        >>> scores = torch.tensor([[[0.75, 0.25]], [[0.25, 0.75]]])  # two sequences of one token
        >>> expert_balance_loss(scores, torch.tensor([[[0]], [[1]]]), alpha=1.0)
        tensor(1.5000)
        >>> expert_balance_loss(scores.flatten(0, 1), torch.tensor([[0], [1]]), alpha=1.0)
        tensor(1.)
    """
    at_least(0, alpha=alpha)
    if not indices.numel():
        raise ValueError(
            f"indices must hold at least one expert, got none, of shape {tuple(indices.shape)}"
        )
    n_experts = scores.shape[-1]
    sequences = indices.reshape(-1, indices.shape[-2:].numel())  # (B, T*K)
    load = torch.stack([expert_load(row, n_routed_experts=n_experts) for row in sequences])
    P = widened(scores).mean(dim=-2).view_as(load)  # (14)
    f = n_experts / sequences.shape[1] * load.to(P.dtype)  # (13): N' / (K' T) times the count
    loss = alpha * (f * P).sum(dim=-1).mean()  # (12)
    return narrowed(loss, scores, what="alpha times scores is too large")
