"""Speculative decoding: the multi-token prediction modules draft, the model checks in one pass.

A step drafts D tokens with the modules and runs the main model once over the last token and the
drafts; it keeps the drafts up to the first one refused and adds one token of its own. The text is
distributed exactly as without drafts: what is kept or drawn again is chosen so that it cancels out.

Sources
    Leviathan et al. (arXiv 2211.17192) and Chen et al. (arXiv 2302.01318): the rule of acceptance
    V3 (arXiv 2412.19437) section 5.4.3: D = 1, acceptance rate 0.85 to 0.90, speed-up 1.8

Equations (q: what a draft is drawn from, p: the model's own distribution at the same place)
    accept a draft v with probability min(1, p(v) / q(v)), so all in all sum_v min(p(v), q(v))
    otherwise draw from norm(max(0, p - q)); all accepted: the bonus token, from the next p
    why: q(v) min(1, p(v) / q(v)) + max(0, p(v) - q(v)) = p(v), and the weight of the residual,
        sum_v max(0, p - q), is the probability of refusal
    tokens per step 1 + a_1 + a_1 a_2 + ... where depth k accepts with probability a_k, given those
        before it; for D = 1 a definition, 1 + a

Departures
    - V3 names the framework, but neither the rule nor how the rate was measured. With temperature 0
      both distributions are one-hot, and the rule becomes: accept if equal.
    - Equal in exact arithmetic. A step over D + 1 tokens sums in another order than D + 1 steps, so
      that in low precision two nearly equal logits may change places.
    - The final hidden states of all positions are kept, for the sake of plain code; those of the
      last 2D would do.

Legend of shapes: batch, new (tokens), depth = D (drafts), places = D + 1, hidden, vocab.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, on_device, token_ids
from dsnotes.model.cache import LatentCache
from dsnotes.model.deepseek import DeepSeek, next_token_probs
from dsnotes.model.mla import Pass
from dsnotes.model.mtp import modules, predict
from dsnotes.model.rope import rope_frequencies, rope_rotation


class Speculation(NamedTuple):
    """New tokens, and how many drafts each step accepted: 0 to D, or -1 once a row was complete."""

    tokens: Int[Tensor, "batch new"]
    accepted: Int[Tensor, "batch steps"]

    @property
    def acceptance_rate(self) -> float:
        """Share of the steps that accepted their first draft."""
        steps = self.accepted[self.accepted >= 0]
        return (steps > 0).double().mean().item()

    @property
    def tokens_per_step(self) -> float:
        """Mean tokens gained by one pass of the main model; 1 without speculation."""
        steps = self.accepted[self.accepted >= 0]
        return (steps + 1).double().mean().item()


@torch.no_grad()
@checked
def speculate(
    model: DeepSeek,
    prompts: Integer[Tensor, "batch seq"],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Speculation:
    """Continue prompts of one length; the distribution is that of `model.generate`.

    Every row accepts its own number of drafts. ValueError as in `generate`, when the model has no
    modules, and when prompt, new tokens and D drafts exceed `max_position_embeddings`.

        >>> from dsnotes.model.mtp import add_modules
        >>> model = add_modules(model)
        >>> speculate(model, torch.tensor([[1, 2, 3]]), max_new_tokens=5).tokens.shape
        torch.Size([1, 5])
    """
    at_least(1, max_new_tokens=max_new_tokens)
    on_device(model.device, prompts=prompts, generator=generator)
    prompts = token_ids(prompts, vocab_size=model.config.vocab_size, name="prompts")
    (batch, length), depth = prompts.shape, len(modules(model))
    end = length + max_new_tokens
    sampling = _Sampling(temperature, top_p, generator)
    cache = model.new_cache(batch_size=batch, capacity=end + depth)
    states = model.hidden(prompts, cache=cache)  # (batch, seq, hidden)
    drafter = _Drafter(model, sampling, states, capacity=end + 2 * depth)

    tokens = prompts.new_zeros(batch, end + 3 * depth)  # the text, then drafts
    tokens[:, :length] = prompts
    tokens[:, length] = sampling.draw(sampling.probs(model.lm_head(states[:, -1])))
    known = torch.full_like(tokens[:, 0], length + 1)  # of the text; its last is not yet fed
    row, ahead = torch.arange(batch).to(tokens), torch.arange(depth + 1).to(tokens)
    window, history = length, []
    while bool((known < end).any()):
        q = drafter.draft(tokens, known, window=window)
        window = 2 * depth  # see `draft`
        positions = known[:, None] - 1 + ahead  # of the last known token and of the drafts
        fed = tokens[row[:, None], positions]  # (batch, places)
        states = model.hidden(fed, cache=cache)  # (batch, places, hidden)
        p = sampling.probs(model.lm_head(states))
        accepted, extra = verify(fed[:, 1:], q, p, generator=generator)
        tokens[row, known + accepted] = extra  # behind the accepted drafts, which are in place
        drafter.hidden[row[:, None], positions] = states
        history.append(accepted.masked_fill(known >= end, -1))
        known = (known + accepted + 1).clamp(max=end)
        cache.truncate(known - 1)  # takes the refused drafts back
    steps = torch.stack(history, dim=1) if history else tokens[:, :0]
    return Speculation(tokens[:, length:end], steps)


@checked
def verify(
    drafts: Integer[Tensor, "batch depth"],
    q: Float[Tensor, "batch depth vocab"],
    p: Float[Tensor, "batch places vocab"],
    *,
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "batch"], Int[Tensor, "batch"]]:
    """How many drafts are accepted, and the token that follows them.

    `drafts` were drawn from `q`; `p` is the model's distribution at their places and at the one
    behind them, D + 1 in all. ValueError when the sizes do not fit.

        >>> q, p = torch.full((1, 1, 2), 0.5), torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
        >>> verify(torch.tensor([[1]]), q, p)  # accepted, and the bonus token is 0
        (tensor([1]), tensor([0]))
    """
    if q.shape[1] != drafts.shape[1] or p.shape[1] != drafts.shape[1] + 1:
        raise ValueError(
            f"q and p must have {drafts.shape[1]} and {drafts.shape[1] + 1} places for "
            f"{drafts.shape[1]} drafts, got {q.shape[1]} and {p.shape[1]}"
        )
    drafts = token_ids(drafts, vocab_size=q.shape[-1], name="drafts")
    at = drafts[..., None]  # (batch, depth, 1)
    ratio = (p[:, :-1].gather(-1, at) / q.gather(-1, at))[..., 0]  # (batch, depth)
    u = torch.rand(ratio.shape, dtype=ratio.dtype, device=ratio.device, generator=generator)
    accepted = (u < ratio).long().cumprod(dim=1).sum(dim=1)  # up to the first refusal
    row = torch.arange(len(drafts), device=drafts.device)
    # Behind the last draft q is 0 and the residual is p itself: the bonus token.
    target, draft = p[row, accepted], F.pad(q, (0, 0, 0, 1))[row, accepted]  # (batch, vocab)
    residual = (target - draft).clamp(min=0)
    # Where p and q are equal up to rounding nothing may be left to draw from: then p is the limit.
    residual = torch.where(residual.sum(dim=-1, keepdim=True) > 0, residual, target)
    return accepted, torch.multinomial(residual, 1, generator=generator)[:, 0]


@checked
def expected_tokens_per_step(acceptance: float, *, depth: int = 1) -> float:
    """1 + a + ... + a^D when every draft is accepted with probability a, given those before it.

    >>> expected_tokens_per_step(0.85), expected_tokens_per_step(0.9)
    (1.85, 1.9)
    """
    at_least(0, depth=depth)
    if not 0 <= acceptance <= 1:
        raise ValueError(f"acceptance must lie between 0 and 1, got {acceptance}")
    return sum(acceptance**j for j in range(depth + 1))


@torch.no_grad()
@checked
def teacher_forced_acceptance(
    model: DeepSeek,
    tokens: Integer[Tensor, "batch seq"],
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Float[Tensor, "depth"]:
    """Probability that a draft is accepted along a given text, for each depth: sum_v min(p, q).

    The mean over all positions with the true tokens before them, nothing drawn. Meant for real or
    sampled text: greedy continuations run into loops, in which every draft is right.

        >>> from dsnotes.model.mtp import add_modules
        >>> teacher_forced_acceptance(add_modules(model), tokens).shape  # D = 1
        torch.Size([1])
    """
    hidden = model.hidden(tokens)
    p = next_token_probs(model.lm_head(hidden), temperature=temperature, top_p=top_p)
    drafts = predict(model, hidden, tokens)
    q = [next_token_probs(logits, temperature=temperature, top_p=top_p) for logits in drafts]
    # row i of depth k and row i + k of the model are about the same token
    overlap = [torch.minimum(p[:, k:], q_k).sum(dim=-1) for k, q_k in enumerate(q, start=1)]
    return torch.stack([o.mean() for o in overlap])


class _Sampling(NamedTuple):
    temperature: float
    top_p: float
    generator: torch.Generator | None

    def probs(self, logits: Tensor) -> Tensor:
        return next_token_probs(logits, temperature=self.temperature, top_p=self.top_p)

    def draw(self, probs: Tensor) -> Tensor:
        return torch.multinomial(probs, 1, generator=self.generator)[:, 0]


class _Drafter:
    """The modules at work: their latents, and the final hidden states of the main model."""

    def __init__(
        self, model: DeepSeek, sampling: _Sampling, states: Tensor, *, capacity: int
    ) -> None:
        self.sampling, self.modules = sampling, modules(model)
        batch, length, width = states.shape
        self.hidden = states.new_zeros(batch, capacity, width)
        self.hidden[:, :length] = states
        self.frequencies = rope_frequencies(model.config)
        self.cache = LatentCache(
            model.config,
            batch_size=batch,
            capacity=capacity,
            num_layers=len(self.modules),
            dtype=states.dtype,
            device=states.device,
        )

    def draft(self, tokens: Tensor, known: Tensor, *, window: int) -> Tensor:
        """Write D drafts behind the `known` tokens of each row; return q, (batch, D, vocab).

        Runs the modules over the `window` positions that end before the last known token. Module
        k reads t_{i+k}: at its last k - 1 positions these were drafts, true ones only now. With up
        to D tokens accepted since and one added, 2D positions have to be read anew.
        """
        start = (known - 1 - window).clamp(min=0)
        self.cache.truncate(start)
        positions, mask = self.cache.open(window)  # (batch, window)
        rotation = rope_rotation(positions, self.frequencies, dtype=self.hidden.dtype)
        shared = Pass(rotation, mask, self.cache)
        row = torch.arange(len(tokens), device=tokens.device)
        h, q = self.hidden[row[:, None], positions], []  # (batch, window, hidden)
        for k, module in enumerate(self.modules, start=1):
            x = module.combine(h, tokens[row[:, None], positions + k])
            h = module.shared_head.norm(module(x, shared))
            # In a row of few tokens the window ends behind the last position that counts.
            q.append(self.sampling.probs(module.shared_head.head(h[row, known - 2 - start])))
            tokens[row, known - 1 + k] = self.sampling.draw(q[-1])
        self.cache.advance()
        return torch.stack(q, dim=1)
