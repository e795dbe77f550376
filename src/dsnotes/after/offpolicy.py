"""Reinforcement learning after R1: what makes an update right when the samples are not its own.

The tokens were drawn by another policy: an older one, run by another engine, with other experts and
a cut vocabulary. V3.2 weighs its KL by the ratio, drops bad answers that have drifted too far, and
replays the experts and the vocabulary of sampling.

Equations
    V3.2 (arXiv 2512.02556) section 3.1: (7) unbiased KL, (8) objective, (9) off-policy sequence
        mask; "Keep Routing", "Keep Sampling Mask" in words
    V3.2's advantage is R - mean(R): `rl.grpo.group_advantages` with scale=False

Departures and open points
    - No report gives the clip width, beta or delta. 0.2 is PPO's; beta and delta have no default
      but "none".
    - (9) compares with the probabilities that the inference engine returned, `sampled_log_probs`;
      where they are not given, `old_log_probs` stands for them and shows drift alone.
    - Which of top-k and top-p comes first is not said; here top-k, as in transformers.

Legend: a batch is B outputs of at most T tokens; log-probs and masks as in `rl.objective`.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, narrowed, token_ids, widened
from dsnotes.model.moe import Gate, Routing
from dsnotes.rl.grpo import grpo_loss
from dsnotes.rl.objective import Objective, check_mask, k3, token_log_probs


@checked
def unbiased_kl(
    log_probs: Float[Tensor, "*shape"],
    old_log_probs: Float[Tensor, "*shape"],
    ref_log_probs: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """rho k3 with rho = pi / pi_old (V3.2 eq 7): KL(pi || ref) over samples from pi_old.

    As a loss its derivative by a log-prob is rho log(pi / ref), in expectation that of the KL;
    rho carries gradient, also where its value is 1. ValueError when the result or its gradient
    does not fit the type of `log_probs`, or when `old_log_probs` requires grad.

        >>> unbiased_kl(torch.tensor([-1.0]), torch.tensor([-1.5]), torch.tensor([-2.0]))
        tensor([0.6065])
    """
    if old_log_probs.requires_grad:
        raise ValueError("old_log_probs must be detached, got one that requires grad")
    pi, old, ref = widened(log_probs), widened(old_log_probs), widened(ref_log_probs)
    rho = (pi - old).exp()
    kl = rho * k3(pi, ref)  # (7)
    far = "log_probs lie too far from old_log_probs or ref_log_probs"
    return narrowed(kl, log_probs, ref_log_probs, what=far, bound=kl + rho * (ref - pi).abs())


@checked
def off_policy_mask(
    log_probs: Float[Tensor, "batch seq"],
    sampled_log_probs: Float[Tensor, "batch seq"],
    advantages: Float[Tensor, "batch"],
    mask: Bool[Tensor, "batch seq"],
    *,
    delta: float,
) -> Bool[Tensor, "batch"]:
    """M of V3.2 eq 9: False on outputs with A < 0 and mean log(pi_sampled / pi) > delta, else True.

    The mean is over the tokens of the output, so M is one number for all of them. `log_probs` is
    read without its gradient. ValueError for a negative delta, an empty mask, or a log-prob of an
    output token that is not finite.

        >>> sampled, mask = torch.full((3, 2), -1.0), torch.ones(3, 2, dtype=torch.bool)
        >>> now = sampled - torch.tensor([[1.0], [1.0], [0.1]])  # the policy has moved away
        >>> off_policy_mask(now, sampled, torch.tensor([1.0, -1.0, -1.0]), mask, delta=0.5)
        tensor([ True, False,  True])
    """
    at_least(0, delta=delta)
    check_mask(mask, sampled_log_probs=sampled_log_probs)
    gap = widened(sampled_log_probs) - widened(log_probs.detach())  # (B, T)
    gap = gap.masked_fill(~mask, 0)
    if not gap.isfinite().all():
        raise ValueError("log_probs and sampled_log_probs must be finite on every output token")
    drift = gap.sum(dim=1) / mask.sum(dim=1).clamp(min=1)  # (B,)
    return ~((advantages < 0) & (drift > delta))  # (9)


@checked
def v32_loss(
    log_probs: Float[Tensor, "batch seq"],
    old_log_probs: Float[Tensor, "batch seq"],
    advantages: Float[Tensor, "batch"],
    mask: Bool[Tensor, "batch seq"],
    *,
    clip: float = 0.2,
    beta: float = 0.0,
    ref_log_probs: Float[Tensor, "batch seq"] | None = None,
    delta: float | None = None,
    sampled_log_probs: Float[Tensor, "batch seq"] | None = None,
) -> Float[Tensor, ""]:
    """Minus the objective of V3.2 eq 8: clipped GRPO times M, minus beta times the unbiased KL.

    `mask` is True on the tokens of the output; what stands elsewhere is ignored. `delta` None drops
    no output. M multiplies the first term alone: a dropped output still pays its KL. ValueError as
    in `off_policy_mask` and `rl.grpo.grpo_loss`, or for a beta without `ref_log_probs`.

        >>> old, mask = torch.full((2, 3), -1.0), torch.ones(2, 3, dtype=torch.bool)
        >>> v32_loss(old, old, torch.tensor([0.5, -0.25]), mask)
        tensor(-0.1250)
        >>> v32_loss(old - 0.1, old, torch.tensor([0.5, -0.25]), mask, delta=0.05)
        tensor(-0.2262)
    """
    at_least(0, beta=beta)
    if beta > 0 and ref_log_probs is None:
        raise ValueError(f"ref_log_probs must be given with a beta, got beta {beta}")
    check_mask(mask, ref_log_probs=ref_log_probs)
    if delta is not None:
        sampled = old_log_probs if sampled_log_probs is None else sampled_log_probs
        keep = off_policy_mask(log_probs, sampled, advantages, mask, delta=delta)
        # min(rho A, clip(rho) A) M = min(rho A M, clip(rho) A M), as M is 0 or 1
        advantages = advantages * keep
    objective = Objective(clip_low=clip)
    loss = grpo_loss(log_probs, old_log_probs, advantages, mask, objective=objective)
    if beta == 0 or ref_log_probs is None:
        return loss
    # filled before any arithmetic: of 0 * inf after it, the gradient would be NaN
    pi, old, ref = (x.masked_fill(~mask, 0) for x in (log_probs, old_log_probs, ref_log_probs))
    kl = unbiased_kl(pi, old, ref).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return loss + beta * kl.mean()  # (8)


@checked
def sampling_support(
    logits: Float[Tensor, "*shape vocab"], *, top_p: float = 1.0, top_k: int | None = None
) -> Bool[Tensor, "*shape vocab"]:
    """True on the tokens that top-k and then top-p sampling may draw.

    top-p keeps the fewest tokens whose probabilities, largest first, reach `top_p`. Equal logits
    keep their order. ValueError for a `top_p` outside (0, 1] or a `top_k` below 1.

        >>> sampling_support(torch.tensor([0.5, 0.3, 0.15, 0.05]).log(), top_p=0.7)
        tensor([ True,  True, False, False])
    """
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie above 0 and at most at 1, got {top_p!r}")
    at_least(1, top_k=top_k)
    ordered, order = widened(logits).sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[..., top_k:] = -torch.inf
    kept = ordered > -torch.inf
    if top_p < 1:
        p = ordered.softmax(dim=-1)
        kept &= p.cumsum(dim=-1) - p < top_p  # what stands before it does not reach top_p
    return torch.zeros_like(kept).scatter(-1, order, kept)


@checked
def kept_log_probs(
    logits: Float[Tensor, "batch seq vocab"],
    tokens: Integer[Tensor, "batch seq"],
    support: Bool[Tensor, "batch seq vocab"],
    mask: Bool[Tensor, "batch seq-1"],
) -> Float[Tensor, "batch seq-1"]:
    """log pi(o_t) over the support that sampling had ("Keep Sampling Mask", V3.2 section 3.1).

    `support[:, j]` was made from the logits of sampling in place j. Rows outside `mask` keep the
    whole vocabulary. ValueError when the support lacks a token of the output.

        >>> logits, tokens = torch.zeros(1, 2, 4), torch.tensor([[0, 1]])
        >>> support = torch.tensor([True, True, False, False]).expand(1, 2, 4)
        >>> kept_log_probs(logits, tokens, support, torch.ones(1, 1, dtype=torch.bool))
        tensor([[-0.6931]])
    """
    tokens = token_ids(tokens, vocab_size=logits.shape[-1])
    rows = support[:, :-1] | ~mask[..., None]
    if not rows.gather(-1, tokens[:, 1:, None]).all():
        raise ValueError("support must contain every token of the output, got one that it lacks")
    rows = torch.cat([rows, support[:, -1:]], dim=1)  # the last one predicts nothing
    return token_log_probs(logits.masked_fill(~rows, -torch.inf), tokens)


@contextmanager
@checked
def keep_routing(model: nn.Module, indices: Sequence[Int[Tensor, "tokens k"]]) -> Iterator[None]:
    """Inside the block every gate of `model` uses these experts, not those it would choose.

    `indices` holds one tensor for each call of a gate, in the order in which
    `model.moe.record_routing` notes them. Only the choice is replayed: the weights are those of the
    gate now, so its gradient flows. The same with indices of an older router is V4's anticipatory
    routing (section 4.2.3). ValueError when the calls or the shapes differ.

        >>> from dsnotes.model.moe import record_routing
        >>> with record_routing(model) as sampled:
        ...     logits = model(tokens)
        >>> with keep_routing(model, [routing.indices for routing in sampled]):
        ...     assert torch.equal(model(tokens), logits)
    """
    waiting = list(indices)

    def replay(gate: nn.Module, _args: object, routing: Routing) -> Routing:
        if not waiting:
            raise ValueError(f"indices must have one entry a call of a gate, got {len(indices)}")
        chosen = waiting.pop(0)
        if chosen.shape != routing.indices.shape:
            raise ValueError(
                f"indices must have shape {tuple(routing.indices.shape)}, got {tuple(chosen.shape)}"
            )
        chosen = token_ids(chosen, vocab_size=routing.scores.shape[1], name="indices")
        weights = routing.scores.gather(1, chosen)
        assert isinstance(gate, Gate)
        if gate.config.norm_topk_prob:
            weights = weights / (weights.sum(dim=1, keepdim=True) + 1e-20)
        return Routing(chosen, weights * gate.config.routed_scaling_factor, routing.scores)

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, Gate):
                hooks.enter_context(module.register_forward_hook(replay))
        yield
    if waiting:
        raise ValueError(f"indices must have one entry a call of a gate, got {len(waiting)} more")
