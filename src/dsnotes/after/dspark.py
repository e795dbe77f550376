"""DSpark: drafts of several places at once, tied together by a light head, verified as far as pays.

One pass of a parallel drafter gives logits for all places, blind to each other's tokens. A Markov
head adds what the token before says; a confidence head foretells acceptance; a scheduler spends
verification where it brings most, without ever looking at the token it decides about.

Equations (DSpark, the paper of deepseek-ai/DeepSpec)
    section 3        p_k(v) ~ exp(U_k(v) + B_k(v)),  B_k = W_1[x_{k-1}] W_2 of rank r
    section 3        c_k = sigma(w . [h_k; W_1[x_{k-1}]])
    (8)              c*_k = sum_v min(p_d, p_t) = 1 - |p_d - p_t|_1 / 2, the target of c_k
    (9)-(12)         0.1 CE + 0.9 TV + 1.0 BCE, place k weighed by exp(-(k - 1) / gamma)
    algorithm 1      admit drafts by falling survival a = prod c while Theta = tau * SPS(B) grows

Departures
    Each of the three losses is a mean over the weights of the places, as in the released code;
    the paper prints sums. TV there is |p_d - p_t|_1 without the half that (8) has.
    The gated head (6) and the calibration of c (sequential temperature scaling) are left out.

Shapes: batch, depth (places drafted), vocab, hidden, rank.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, channels, token_ids


class MarkovHead(nn.Module):
    """What the token before says about the next, added to the logits of the parallel drafter.

    >>> head = MarkovHead(vocab_size=11, rank=4)
    >>> head(torch.tensor([[3, 5]])).shape
    torch.Size([1, 2, 11])
    """

    @checked
    def __init__(self, *, vocab_size: int, rank: int) -> None:
        super().__init__()
        at_least(1, vocab_size=vocab_size, rank=rank)
        self.markov_w1 = nn.Embedding(vocab_size, rank)
        self.markov_w2 = nn.Linear(rank, vocab_size, bias=False)

    @checked
    def forward(self, before: Integer[Tensor, "batch depth"]) -> Float[Tensor, "batch depth vocab"]:
        """B_k of the tokens x_{k-1}; ValueError names a token that is not in the vocabulary."""
        size = self.markov_w1.num_embeddings
        bias: Tensor = self.markov_w2(self.markov_w1(token_ids(before, vocab_size=size)))
        return bias


class ConfidenceHead(nn.Module):
    """The logit of c_k from the drafter's state and the Markov head's embedding of x_{k-1}."""

    @checked
    def __init__(self, *, hidden_size: int, rank: int) -> None:
        super().__init__()
        at_least(1, hidden_size=hidden_size, rank=rank)
        self.hidden_size, self.rank = hidden_size, rank
        self.proj = nn.Linear(hidden_size + rank, 1)

    @checked
    def forward(
        self, h: Float[Tensor, "batch depth hidden"], before: Float[Tensor, "batch depth rank"]
    ) -> Float[Tensor, "batch depth"]:
        """Before the sigmoid: the loss wants it so. ValueError for other widths than its own."""
        channels(self.hidden_size, h=h)
        channels(self.rank, before=before)
        logits: Tensor = self.proj(torch.cat([h, before], dim=-1))[..., 0]
        return logits


@torch.no_grad()
@checked
def draft(
    logits: Float[Tensor, "batch depth vocab"],
    head: MarkovHead,
    last: Integer[Tensor, "batch"],
    *,
    generator: torch.Generator | None = None,
) -> tuple[Integer[Tensor, "batch depth"], Float[Tensor, "batch depth vocab"]]:
    """Draw the drafts one after the other: U is there for all places, B waits for the token before.

    Returns the tokens and the distributions they were drawn from, for `model.speculative.verify`.

        >>> tokens, q = draft(torch.zeros(2, 3, 11), MarkovHead(vocab_size=11, rank=4),
        ...                   torch.tensor([1, 2]))
        >>> tokens.shape, q.shape
        (torch.Size([2, 3]), torch.Size([2, 3, 11]))
    """
    tokens, q, before = [], [], last
    for place in logits.unbind(1):
        q.append((place + head(before[:, None])[:, 0]).softmax(dim=-1))
        before = torch.multinomial(q[-1], 1, generator=generator)[:, 0]
        tokens.append(before)
    return torch.stack(tokens, 1), torch.stack(q, 1)


@checked
def acceptance(
    p_draft: Float[Tensor, "*batch vocab"], p_target: Float[Tensor, "*batch vocab"]
) -> Float[Tensor, "*batch"]:
    """(8): the probability that a draft is accepted, the overlap of the two distributions.

    >>> acceptance(torch.tensor([0.5, 0.5]), torch.tensor([0.7, 0.3]))
    tensor(0.8000)
    """
    return 1 - (p_draft - p_target).abs().sum(dim=-1) / 2


@checked
def dspark_loss(
    draft_logits: Float[Tensor, "batch depth vocab"],
    target_logits: Float[Tensor, "batch depth vocab"],
    tokens: Integer[Tensor, "batch depth"],
    confidence: Float[Tensor, "batch depth"],
    *,
    gamma: float,
    ce: float = 0.1,
    tv: float = 0.9,
    bce: float = 1.0,
) -> Float[Tensor, ""]:
    """(9)-(12): cross-entropy, distance to the target, and the confidence against `acceptance`.

    `confidence` is the logit of `ConfidenceHead`; its target carries no gradient. ValueError when
    `gamma` is not above 0.
    """
    if not gamma > 0:
        raise ValueError(f"gamma must be above 0, got {gamma!r}")
    tokens = token_ids(tokens, vocab_size=draft_logits.shape[-1])
    weight = torch.exp(-torch.arange(tokens.shape[1], device=tokens.device) / gamma)
    weight = weight / (weight.sum() * len(tokens))
    p_draft, p_target = draft_logits.softmax(-1), target_logits.softmax(-1)
    entropy = F.cross_entropy(draft_logits.transpose(1, 2), tokens, reduction="none")
    distance = (p_draft - p_target).abs().sum(-1)
    goal = acceptance(p_draft, p_target).detach().clamp(0, 1)
    error = F.binary_cross_entropy_with_logits(confidence, goal, reduction="none")
    loss: Tensor = (weight * (ce * entropy + tv * distance + bce * error)).sum()
    return loss


@checked
def schedule(
    confidence: Sequence[Sequence[float]], steps_per_second: Callable[[int], float]
) -> list[int]:
    """Algorithm 1: how many drafts of each request are verified in the next pass.

    `confidence[r]` holds c_1, c_2, ... of request r, `steps_per_second(B)` the passes a second over
    B tokens. The first draft that does not raise Theta ends it: looking further would make the
    decision depend on the very tokens it is about, and the text would not be the model's any more.

        >>> schedule([[0.9, 0.8], [0.2]], lambda tokens: 1 / (4 + tokens))
        [2, 0]
    """
    survival = []
    for request, cs in enumerate(confidence):
        alive = 1.0
        for place, c in enumerate(cs):
            if not 0 <= c <= 1:
                raise ValueError(f"confidence[{request}][{place}] must lie in 0 to 1, got {c!r}")
            alive *= c
            survival.append((-alive, request, place))
    length = [0] * len(confidence)
    tokens, tau = len(length), float(len(length))
    best = tau * steps_per_second(tokens)
    for alive, request, _ in sorted(survival):  # of one request in order: survival only falls
        theta = (tau - alive) * steps_per_second(tokens + 1)
        if theta <= best:
            break
        best, tau, tokens = theta, tau - alive, tokens + 1
        length[request] += 1
    return length
