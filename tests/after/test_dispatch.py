"""dispatch: experts on real processes against all of them on one, values and gradients."""

from dataclasses import replace

import pytest
import torch

from dsnotes.after.dispatch import step
from dsnotes.config import TINY
from dsnotes.model.moe import MoE
from dsnotes.training.dualpipe.processes import Processes, RankError

CONFIG = replace(TINY, n_routed_experts=8, n_group=1, topk_group=1, num_experts_per_tok=3)


def layer(**changes: int) -> MoE:
    moe = MoE(replace(CONFIG, **changes))
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.normal_(std=0.2)
    return moe


def test_two_ranks_give_the_output_and_the_gradients_of_one_process() -> None:
    """The ranks have different numbers of tokens, and all of the second are alike."""
    moe = layer()
    inputs = [torch.randn(2, 9, 64), torch.randn(1, 64).expand(5, 64).contiguous()]
    grads = [torch.randn(2, 9, 64), torch.randn(5, 64)]
    with Processes(2) as processes:
        found = processes.call(
            step, [(moe, x, g) for x, g in zip(inputs, grads, strict=True)], timeout=60.0
        )

    xs = [x.clone().requires_grad_() for x in inputs]
    for x, grad, (y, of_x, _) in zip(xs, grads, found, strict=True):
        expected = moe(x)
        expected.backward(grad)
        torch.testing.assert_close(y, expected.detach())
        torch.testing.assert_close(of_x, x.grad)
    held = [{int(n.split(".")[1]) for n in g if n.startswith("experts")} for *_, g in found]
    assert held == [{0, 1, 2, 3}, {4, 5, 6, 7}]
    for name, parameter in moe.named_parameters():
        parts = [g[name] for *_, g in found if name in g]
        assert len(parts) == (1 if name.startswith("experts") else 2), name
        torch.testing.assert_close(torch.stack(parts).sum(0), parameter.grad, msg=name)


def test_experts_that_do_not_divide_are_named() -> None:
    with Processes(2) as processes:
        moe = layer(n_routed_experts=7)
        job = (moe, torch.randn(3, 64), torch.randn(3, 64))
        with pytest.raises(RankError, match="7 experts cannot be spread evenly over 2 ranks"):
            processes.call(step, [job, job], timeout=60.0)
