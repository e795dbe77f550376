"""A reward model: a language model with a scalar head, trained on pairs of which one is preferred.

It scores answers that no rule can check. Only differences of scores have a meaning: the probability
that one answer is preferred to another is the sigmoid of the difference of their scores.

Equations
    Bradley-Terry model (Biometrika 39, 1952)
        P(chosen > rejected) = sigmoid(r_chosen - r_rejected)
    Its negative log-likelihood, the loss of reward models since Ouyang et al. (arXiv 2203.02155)
        eq 1. R1 (arXiv 2501.12948) v2 section 3.1 calls the loss of its helpful reward model
        pairwise and prints no formula; V3 (arXiv 2412.19437) section 5.2.1 names no loss.

Departures and open points
    - R1 has two reward models. Its safety model is trained point-wise: each response is labelled
      safe or unsafe (v2 section 3.1), again without a formula. This module does not have it.
    - R1 v2 eq 5 prints RM_helpful(A, B), with two responses as input. Here the model scores one
      response: that is what the scalar head in R1 can give, and what training a policy needs.
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

    The weights of `model` are copied (V3 and R1 start from a trained model); training the reward
    model does not change `model`. The head starts at 0, so all answers have equal scores at first.

        >>> score = RewardModel(model)
        >>> score(tokens, lengths=torch.tensor([16, 5]))
        tensor([0., 0.], grad_fn=<SelectBackward0>)
    """

    @checked
    def __init__(self, model: DeepSeek) -> None:
        super().__init__()
        if not isinstance(model, DeepSeek):
            raise TypeError(f"model must be a DeepSeek, got {type(model).__name__}")
        self.model = copy.deepcopy(model.model)
        self.score = nn.Linear(
            model.config.hidden_size, 1, bias=False, device=model.device, dtype=model.dtype
        )
        nn.init.zeros_(self.score.weight)

    @checked
    def forward(
        self, tokens: Integer[Tensor, "batch seq"], *, lengths: Integer[Tensor, "batch"]
    ) -> Float[Tensor, "batch"]:
        """r: one score per sequence (prompt and answer), read at its last token.

        `lengths` counts the tokens of each sequence. The tokens after them are padding; they change
        nothing, since a token sees only the tokens before it. ValueError for other shapes and for a
        length outside 1 to seq; TypeError for lengths that are not whole numbers.
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
        hidden = self.model(tokens)  # (batch, seq, hidden)
        last = hidden[torch.arange(len(tokens), device=tokens.device), lengths.long() - 1]
        r: Tensor = self.score(last)[:, 0]  # (batch, hidden) -> (batch,)
        return r


@checked
def preference_probability(
    chosen: Float[Tensor, "pairs"], rejected: Float[Tensor, "pairs"]
) -> Float[Tensor, "pairs"]:
    """P(chosen > rejected) = sigmoid(r_chosen - r_rejected) of the Bradley-Terry model.

    ValueError unless both have the shape (pairs,) with at least one pair; TypeError for scores that
    are not floats.

        >>> preference_probability(torch.tensor([2.0]), torch.tensor([2.0]))
        tensor([0.5000])
    """
    _check_pairs(chosen)
    return (chosen - rejected).sigmoid()


@checked
def bradley_terry_loss(
    chosen: Float[Tensor, "pairs"], rejected: Float[Tensor, "pairs"]
) -> Float[Tensor, ""]:
    """Mean over the pairs of -log sigmoid(r_chosen - r_rejected), in nats; ln 2 for equal scores.

    The arithmetic and the result are float32 or wider. ValueError unless both have the shape
    (pairs,) with at least one pair: scores of shape (pairs, 1), the output of a head, would compare
    every chosen with every rejected one. TypeError unless both hold floats.

        >>> bradley_terry_loss(torch.tensor([0.0]), torch.tensor([0.0]))
        tensor(0.6931)
    """
    _check_pairs(chosen)
    wide = torch.promote_types(chosen.dtype, torch.float32)  # 60000 - -60000 is inf in float16
    return F.softplus(rejected.to(wide) - chosen.to(wide)).mean()  # -log sigmoid(x)


def _check_pairs(chosen: Tensor) -> None:
    if len(chosen) == 0:
        raise ValueError("chosen must hold at least one score, got none")
