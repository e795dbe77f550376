"""A reward model: a language model with a scalar head, trained on pairs of which one is preferred.

It is what scores answers that no rule can check. Only differences of its scores have a meaning: the
probability that one answer is preferred to another is the sigmoid of the difference.

Equations
    Bradley-Terry model: P(chosen > rejected) = sigmoid(r_chosen - r_rejected), and its negative
        log-likelihood as loss. V3 (arXiv 2412.19437) section 5.2.1 and R1 (arXiv 2501.12948) v2
        section 3.1 use reward models; R1 says "pairwise loss" and prints no formula, V3 no loss.

Departures and open points
    - R1 v2 eq 5 prints RM_helpful(A, B), two responses as input. A score per response is what the
      scalar head that it describes can give, and what a policy is trained with: so it is here.
    - Sizes and learning rate of V3's reward models are not published.
"""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsnotes.model import DeepSeek


class RewardModel(nn.Module):
    """The backbone of a language model with a scalar head on its last token.

    The weights of `model` are copied (V3 and R1 start from a trained model), so training the reward
    leaves it alone; the head starts at 0, so that all answers start equal.

        >>> score = RewardModel(DeepSeek(TINY))
        >>> score(torch.zeros(2, 9, dtype=torch.long), lengths=torch.tensor([9, 5]))
        tensor([0., 0.], grad_fn=...)
    """

    def __init__(self, model: DeepSeek) -> None:
        super().__init__()
        self.model = copy.deepcopy(model.model)
        weight = model.lm_head.weight
        self.score = nn.Linear(
            weight.shape[1], 1, bias=False, device=weight.device, dtype=weight.dtype
        )
        nn.init.zeros_(self.score.weight)

    def forward(
        self, tokens: Int[Tensor, "batch seq"], *, lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """r: one score per sequence (prompt and answer), read at its last token.

        `lengths` counts the tokens of each; what follows is padding and changes nothing, since a
        token sees only those before it. ValueError for a length outside 1 to seq.
        """
        if lengths.min() < 1 or lengths.max() > tokens.shape[1]:
            raise ValueError(
                f"lengths must lie in 1 to {tokens.shape[1]}, got {int(lengths.min())} to "
                f"{int(lengths.max())}"
            )
        hidden = self.model(tokens)
        last = hidden[torch.arange(len(tokens), device=tokens.device), lengths - 1]
        r: Tensor = self.score(self.model.norm(last))[:, 0]
        return r


def preference_probability(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """P(chosen > rejected) = sigmoid(r_chosen - r_rejected) of the Bradley-Terry model.

    >>> preference_probability(torch.tensor([2.0]), torch.tensor([2.0]))
    tensor([0.5000])
    """
    return (chosen - rejected).sigmoid()


def bradley_terry_loss(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
) -> Float[Tensor, ""]:
    """Mean over the pairs of -log sigmoid(r_chosen - r_rejected), in nats; ln 2 for equal scores.

    ValueError for no pairs at all.

        >>> bradley_terry_loss(torch.tensor([0.0]), torch.tensor([0.0]))
        tensor(0.6931)
    """
    if len(chosen) == 0:
        raise ValueError("chosen must hold at least one score, got none")
    return F.softplus(rejected - chosen).mean()  # -log sigmoid(x), without overflow
