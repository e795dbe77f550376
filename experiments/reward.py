"""Policies that chase a reward model or a rule, on eight seeds, with equal numbers of pairs.

    python experiments/reward.py                    # about 5 minutes on one idle CPU core

Every seed has its own base policy, judge and pairs; all its variants start from that base:
    few       a reward model of 500 pairs
    even      the same number, both answers of a pair equally long
    many      a reward model of twenty times as many
    recall    a rule that forgot what must not be there
    rule      the quality itself
"""

from typing import Any

import torch
from _record import collect, parser, write
from torch import Tensor

from dsnotes.rl.keypoints import (
    LONGEST,
    agreement,
    base_policy,
    chase,
    fit_reward_model,
    judged_pairs,
    lengths,
    new_prompts,
    quality,
    recall,
    respond,
    written,
)

QUESTIONS = 18_000  # for the judge; about a tenth of its pairs are equally long
FEW, MANY, NEW, FRESH = 500, 10_000, 2_000, 500
STEPS = 60


def correlation(a: Tensor, b: Tensor) -> float:
    return torch.corrcoef(torch.stack([a.float(), b.float()]))[0, 1].item()


def run(seed: int) -> list[dict[str, Any]]:
    """All variants of one seed, as plain data."""
    generator = torch.Generator().manual_seed(1000 + seed)
    base = base_policy(seed=seed)
    chosen, rejected = judged_pairs(base, QUESTIONS, generator=generator)
    even = lengths(chosen) == lengths(rejected)
    new = judged_pairs(base, NEW, generator=generator)
    fresh = new_prompts(FRESH, generator=generator)
    starts = respond(base, fresh, generator=generator)
    sets = {
        "few": (chosen[:FEW], rejected[:FEW]),
        "even": (chosen[even][:FEW], rejected[even][:FEW]),
        "many": (chosen[:MANY], rejected[:MANY]),
    }
    found = []
    for name in (*sets, "recall", "rule"):
        entry: dict[str, Any] = {"variant": name, "seed": seed}
        if name in sets:
            model = fit_reward_model(base, *sets[name], generator=generator)

            def reward(tokens: Tensor, model=model) -> Tensor:
                return model(tokens, lengths=lengths(tokens))

            entry |= {"pairs": len(sets[name][0]), "agreement": agreement(model, *new)}
        else:
            reward = recall if name == "recall" else quality
        policy, history = chase(base, reward, generator=generator, steps=STEPS)
        ends = respond(policy, fresh, generator=generator)
        before, after = reward(starts), reward(ends)
        entry |= {
            "before": quality(starts).mean().item(),
            "after": quality(ends).mean().item(),
            "rise": ((after.mean() - before.mean()) / before.std()).item(),
            "score_quality": correlation(before, quality(starts)),
            "length_score": correlation(lengths(starts), before),
            "longest": (written(ends).sum(dim=1) == LONGEST).float().mean().item(),
        }
        found.append({k: round(v, 4) if isinstance(v, float) else v for k, v in entry.items()})
        r, q = zip(*history, strict=True)
        mean, std = before.mean().item(), before.std().item()
        found[-1] |= {
            "reward_curve": [round((x - mean) / std, 3) for x in r],
            "quality_curve": [round(x, 3) for x in q],
        }
    return found


def main() -> None:
    arguments = parser(__file__, __doc__, seeds=range(8)).parse_args()
    found = collect(run, [(seed,) for seed in arguments.seeds])
    write(
        arguments.out,
        script=__file__,
        settings={"few": FEW, "many": MANY, "steps": STEPS, "fresh": FRESH},
        runs=[entry for of_seed in found for entry in of_seed],
    )


if __name__ == "__main__":
    main()
