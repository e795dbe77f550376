"""A reward model: a language model with a scalar head, trained on pairs of which one is preferred.

It is what scores answers that no rule can check. Only differences of its scores have a meaning: the
probability that one answer is preferred to another is the sigmoid of the difference.

Equations
    Bradley-Terry model (Biometrika 39, 1952)
        P(chosen > rejected) = sigmoid(r_chosen - r_rejected)
    Its negative log-likelihood, the loss of reward models since Ouyang et al. (arXiv 2203.02155)
        eq 1. R1 (arXiv 2501.12948) v2 section 3.1 calls the loss of its helpful reward model
        pairwise and prints no formula; V3 (arXiv 2412.19437) section 5.2.1 names no loss.

Departures and open points
    - R1 has two reward models. Its safety model is trained point-wise, each response labelled safe
      or unsafe (v2 section 3.1), again without a formula. It is not here.
    - R1 v2 eq 5 prints RM_helpful(A, B), two responses as input. A score per response is what the
      scalar head that it describes can give, and what a policy is trained with: so it is here.
    - Sizes and learning rate of V3's reward models are not published.
"""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.model.deepseek import DeepSeek


class RewardModel(nn.Module):
    """The backbone of a language model with a scalar head on its last token.

    The weights of `model` are copied (V3 and R1 start from a trained model), so training the reward
    leaves it alone; the head starts at 0, so that all answers start equal.

        >>> score = RewardModel(DeepSeek(TINY))
        >>> score(torch.zeros(2, 9, dtype=torch.long), lengths=torch.tensor([9, 5]))
        tensor([0., 0.], grad_fn=...)
    """

    @checked
    def __init__(self, model: DeepSeek) -> None:
        super().__init__()
        if not isinstance(model, DeepSeek):
            raise TypeError(f"model must be a DeepSeek, got {type(model).__name__}")
        self.model = copy.deepcopy(model.model)
        weight = model.lm_head.weight
        self.score = nn.Linear(
            weight.shape[1], 1, bias=False, device=weight.device, dtype=weight.dtype
        )
        nn.init.zeros_(self.score.weight)

    @checked
    def forward(
        self, tokens: Integer[Tensor, "batch seq"], *, lengths: Integer[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """r: one score per sequence (prompt and answer), read at its last token.

        `lengths` counts the tokens of each; what follows is padding and changes nothing, since a
        token sees only those before it. ValueError for other shapes, and for a length outside 1 to
        seq; TypeError for lengths that are not whole numbers.
        """
        if tokens.numel() == 0:
            raise ValueError(
                f"tokens must be (batch, seq), not empty, got shape {tuple(tokens.shape)}"
            )
        if lengths.min() < 1 or lengths.max() > tokens.shape[1]:
            raise ValueError(
                f"lengths must lie in 1 to {tokens.shape[1]}, got {int(lengths.min())} to "
                f"{int(lengths.max())}"
            )
        hidden = self.model(tokens)
        last = hidden[torch.arange(len(tokens), device=tokens.device), lengths.long() - 1]
        r: Tensor = self.score(self.model.norm(last))[:, 0]
        return r


@checked
def preference_probability(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """P(chosen > rejected) = sigmoid(r_chosen - r_rejected) of the Bradley-Terry model.

    ValueError unless both are (pairs,) alike, with at least one; TypeError for what is no float.

        >>> preference_probability(torch.tensor([2.0]), torch.tensor([2.0]))
        tensor([0.5000])
    """
    _check_pairs(chosen)
    return (chosen - rejected).sigmoid()


@checked
def bradley_terry_loss(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
) -> Float[Tensor, ""]:
    """Mean over the pairs of -log sigmoid(r_chosen - r_rejected), in nats; ln 2 for equal scores.

    Computed, and returned, in float32 or wider.
    ValueError unless both are (pairs,) alike, with at least one pair: scores (pairs, 1), as a head
    gives them, would be compared all with all. TypeError for what is no float.

        >>> bradley_terry_loss(torch.tensor([0.0]), torch.tensor([0.0]))
        tensor(0.6931)
    """
    _check_pairs(chosen)
    wide = torch.promote_types(chosen.dtype, torch.float32)  # 60000 - -60000 is inf in float16
    return F.softplus(rejected.to(wide) - chosen.to(wide)).mean()  # -log sigmoid(x)


def _check_pairs(chosen: Tensor) -> None:
    if len(chosen) == 0:
        raise ValueError("chosen must hold at least one score, got none")
