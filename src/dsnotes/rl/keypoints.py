"""A small task with a known true quality, to watch a policy that exploits its reward model.

A question gives three letters, the key points; an answer is up to seven letters. Its true quality
is F1: it should contain the points and nothing else. A judge prefers one of two answers, without
giving a number. A `RewardModel` learns from the judge, and a policy maximises its scores.

Equations
    quality = 2 |points hit| / (|letters written| + 3), the F1 of the letters against the points
    P(first preferred) = sigmoid(8 (q_first - q_second)), a Bradley-Terry judge on true quality

The task is not from a paper. It stands for what R1 (arXiv 2501.12948) v2 section B.5 reports: the
reward still rises while the quality falls.

Shapes: a row of tokens is 3 points, SEP, then up to 7 letters and END to the end of the row.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least
from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.grpo import group_advantages, grpo_loss
from dsnotes.rl.objective import completion_mask, token_log_probs
from dsnotes.rl.reward_model import RewardModel, bradley_terry_loss, preference_probability

LETTERS, POINTS, LONGEST = "ABCDEFGHIJ", 3, 7
END, SEP = len(LETTERS), len(LETTERS) + 1
PROMPT = POINTS + 1
SHARPNESS = 8.0  # of the judge: how surely it sees a difference in quality
CLEAR = 0.15  # pairs closer in quality are not judged
CONFIG = replace(
    TINY,
    vocab_size=SEP + 1,
    hidden_size=32,
    num_hidden_layers=1,
    intermediate_size=64,
    q_lora_rank=None,
    kv_lora_rank=16,
    qk_nope_head_dim=8,
    v_head_dim=8,
    initializer_range=0.1,
    num_nextn_predict_layers=0,
)


@checked
def new_prompts(n: int, *, generator: Generator) -> Int[Tensor, "n prompt"]:
    """`n` questions: three different letters each, then SEP. ValueError for n below 1."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    points = torch.rand(n, len(LETTERS), generator=generator).argsort(dim=1)[:, :POINTS]
    return torch.cat([points, torch.full((n, 1), SEP)], dim=1)


@checked
def careless_answers(
    prompts: Int[Tensor, "n prompt"], *, generator: Generator
) -> Int[Tensor, "n seq"]:
    """Prompts with answers of 1 to 5 letters: a key point with probability 0.6, else any letter."""
    n, size = len(prompts), (len(prompts), LONGEST + 1)
    point = torch.randint(POINTS, size, generator=generator)
    letters = torch.where(
        torch.rand(size, generator=generator) < 0.6,
        prompts.gather(1, point),
        torch.randint(len(LETTERS), size, generator=generator),
    )
    long = torch.randint(1, 6, (n, 1), generator=generator)
    return torch.cat([prompts, letters.where(torch.arange(LONGEST + 1) < long, END)], dim=1)


@checked
def written(tokens: Int[Tensor, "n seq"]) -> Bool[Tensor, "n answer"]:
    """True on the letters of the answer, the tokens before its first END.

    >>> written(torch.tensor([[0, 1, 2, SEP, 2, END, END]])).tolist()
    [[True, False, False]]
    """
    return (tokens[:, PROMPT:] == END).cumsum(dim=1) == 0


@checked
def lengths(tokens: Int[Tensor, "n seq"]) -> Int[Tensor, "n"]:
    """Number of tokens of each row up to the first END, END included."""
    return PROMPT + written(tokens).sum(dim=1) + 1


@checked
def recall(tokens: Int[Tensor, "n seq"]) -> Float[Tensor, "n"]:
    """Share of the key points that the answer contains."""
    answer = tokens[:, PROMPT:].masked_fill(~written(tokens), END)
    hit = (tokens[:, :POINTS, None] == answer[:, None]).any(dim=2)
    return hit.sum(dim=1) / POINTS


@checked
def quality(tokens: Int[Tensor, "n seq"]) -> Float[Tensor, "n"]:
    """F1 of the letters against the key points: 1 when each point occurs once and nothing else.

    >>> quality(torch.tensor([[0, 1, 2, SEP, 2, 1, 0, END], [0, 1, 2, SEP, 2, END, END, END]]))
    tensor([1.0000, 0.5000])
    """
    return 2 * POINTS * recall(tokens) / (written(tokens).sum(dim=1) + POINTS)


@checked
def show(row: Int[Tensor, "seq"]) -> tuple[str, str]:
    """Key points and answer of one row, as letters.

    >>> show(torch.tensor([0, 1, 2, SEP, 2, 9, END]))
    ('ABC', 'CJ')
    """
    text = "".join((LETTERS + ".|")[i] for i in row.tolist())
    return text[:POINTS], text[PROMPT:].split(".")[0]


@checked
def base_policy(*, seed: int, steps: int = 200) -> DeepSeek:
    """A model trained to answer like `careless_answers`."""
    at_least(0, steps=steps)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    policy = DeepSeek(CONFIG)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3, betas=(0.9, 0.95))
    for _ in range(steps):
        tokens = careless_answers(new_prompts(128, generator=generator), generator=generator)
        mask = completion_mask(tokens, torch.full((128,), PROMPT), eos=END)
        loss = -token_log_probs(policy(tokens), tokens)[mask].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy


@checked
def respond(
    policy: DeepSeek, prompts: Int[Tensor, "n prompt"], *, generator: Generator
) -> Int[Tensor, "n seq"]:
    """Prompts with sampled answers, END after each."""
    new = policy.generate(
        prompts, max_new_tokens=LONGEST, temperature=1.0, stop_token=END, generator=generator
    )
    new = F.pad(new, (0, LONGEST + 1 - new.shape[1]), value=END)
    return torch.cat([prompts, new], dim=1)


@checked
def judged_pairs(
    policy: DeepSeek, n: int, *, generator: Generator
) -> tuple[Int[Tensor, "pairs seq"], Int[Tensor, "pairs seq"]]:
    """Chosen and rejected answers to n questions, without pairs of nearly equal quality."""
    prompts = new_prompts(n, generator=generator).repeat_interleave(2, dim=0)
    tokens = respond(policy, prompts, generator=generator)
    q, pairs = quality(tokens).view(n, 2), tokens.view(n, 2, -1)
    clear = (q[:, 0] - q[:, 1]).abs() > CLEAR
    q, pairs = q[clear], pairs[clear]
    wins = preference_probability(SHARPNESS * q[:, 0], SHARPNESS * q[:, 1])
    first = torch.rand(len(q), generator=generator) < wins
    ordered = torch.where(first[:, None, None], pairs, pairs.flip(1))
    return ordered[:, 0], ordered[:, 1]


@checked
def fit_reward_model(
    base: DeepSeek,
    chosen: Int[Tensor, "pairs seq"],
    rejected: Int[Tensor, "pairs seq"],
    *,
    generator: Generator,
    steps: int = 300,
) -> RewardModel:
    """A frozen reward model that started from `base` and was trained on the pairs."""
    at_least(0, steps=steps)
    model = RewardModel(base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        i = torch.randint(len(chosen), (128,), generator=generator)
        both = torch.cat([chosen[i], rejected[i]])
        r_chosen, r_rejected = model(both, lengths=lengths(both)).chunk(2)
        loss = bradley_terry_loss(r_chosen, r_rejected)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.requires_grad_(False)


@checked
def agreement(
    model: RewardModel, chosen: Int[Tensor, "pairs seq"], rejected: Int[Tensor, "pairs seq"]
) -> float:
    """Share of the pairs in which the answer of higher quality also has the higher score."""
    a, b = (model(x, lengths=lengths(x)) for x in (chosen, rejected))
    right = (a > b) == (quality(chosen) > quality(rejected))
    return float(right.float().mean())


@checked
def chase(
    base: DeepSeek,
    reward: Callable[[Tensor], Tensor],
    *,
    generator: Generator,
    steps: int = 60,
    questions: int = 24,
    samples: int = 16,
) -> tuple[DeepSeek, list[tuple[float, float]]]:
    """A copy of `base` after GRPO on `reward`, and mean reward and quality before each step.

    `reward` maps rows of tokens (n, seq) to n scores. There is no KL term and one update per batch,
    so neither a reference nor a clip limits the policy.
    """
    at_least(0, steps=steps)
    at_least(1, questions=questions, samples=samples)
    policy = copy.deepcopy(base)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    history = []
    for _ in range(steps):
        prompts = new_prompts(questions, generator=generator).repeat_interleave(samples, dim=0)
        tokens = respond(policy, prompts, generator=generator)
        r = reward(tokens)
        history.append((r.mean().item(), quality(tokens).mean().item()))
        advantages = group_advantages(r.view(questions, samples)).flatten()
        sampled = tokens[:, :-1]  # the last END is not a choice of the policy
        log_probs = token_log_probs(policy(sampled), sampled)
        mask = completion_mask(sampled, torch.full((len(sampled),), PROMPT), eos=END)
        loss = grpo_loss(log_probs, log_probs.detach(), advantages, mask)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    return policy, history
