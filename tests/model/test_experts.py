"""experts: stacked weights and grouped products against the loop, on a CPU; where the loop stays.

`MoE` takes this way on a GPU alone (`test_gpu.py`). Here every test calls it, or puts it in front
of the loop, with the operations of PyTorch that its kernels stand for.
"""

import copy
import gc
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import parametrize

from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.experts import Plain, grouped, stack
from dsnotes.model.moe import MoE, Routing
from dsnotes.training.fp8.linear import convert
from dsnotes.weights import checkpoint

CONFIG = replace(TINY, hidden_size=64, moe_intermediate_size=32, n_routed_experts=8, n_group=1,
                 topk_group=1, num_experts_per_tok=3)  # fmt: skip
BF16 = torch.bfloat16


def build(dtype: torch.dtype = BF16) -> MoE:
    moe = MoE(CONFIG)
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.normal_(std=0.2)
    return moe.to(dtype)


def routing(tokens: int, *, idle: bool = False) -> Routing:
    scores = torch.rand(tokens, 8)
    if idle:
        scores[:, [0, 3, 7]] = -1.0
    return Routing(scores.topk(3).indices, torch.rand(tokens, 3).requires_grad_(), scores)


def run(moe: MoE, x: Tensor, to: Routing) -> Tensor | None:
    return grouped(moe.experts, x * 1, to.indices, to.weights)


def exactly(moe: MoE, x: Tensor, to: Routing) -> Tensor:
    return copy.deepcopy(moe).double()._routed(x.double(), to._replace(weights=to.weights.double()))


def error(found: Tensor, exact: Tensor) -> float:
    return ((found.double() - exact).norm() / exact.norm()).item()


def is_stacked(moe: MoE) -> bool:
    """All gates and ups in one piece of memory, all downs in another."""
    both = {e.gate_proj.weight.untyped_storage().data_ptr() for e in moe.experts}
    both |= {e.up_proj.weight.untyped_storage().data_ptr() for e in moe.experts}
    downs = {e.down_proj.weight.untyped_storage().data_ptr() for e in moe.experts}
    return len(both) == len(downs) == 1


@pytest.fixture
def before_the_loop(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """`MoE` as it is on a GPU; which calls were grouped."""
    calls: list[bool] = []
    loop = MoE._routed

    def first(self: MoE, x: Tensor, to: Routing) -> Tensor:
        y = grouped(self.experts, x, to.indices, to.weights)
        calls.append(y is not None)
        return loop(self, x, to) if y is None else y

    monkeypatch.setattr(MoE, "_routed", first)
    return calls


# --- the same numbers ---


@pytest.mark.parametrize("tokens", [1, 2, 40])
@pytest.mark.parametrize("idle", [False, True])
def test_no_further_from_the_exact_sum_than_the_loop(tokens: int, idle: bool) -> None:
    moe, to = build(), routing(tokens, idle=idle)
    exact = copy.deepcopy(moe).double()
    x, upstream = torch.randn(2, tokens, 64, dtype=BF16)
    x.requires_grad_()

    def outcome(y: Tensor, moe: MoE, x: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        inputs = [x, g, *moe.experts.parameters()]
        return y, *torch.autograd.grad(y, inputs, upstream.to(y.dtype))

    ours = outcome(run(moe, x, to), moe, x, to.weights)
    loop = outcome(moe._routed(x, to), moe, x, to.weights)
    x64, g64 = (t.detach().double().requires_grad_() for t in (x, to.weights))
    expected = outcome(exact._routed(x64, to._replace(weights=g64)), exact, x64, g64)
    for a, b, c in zip(ours, loop, expected, strict=True):
        assert a.dtype == b.dtype
        if c.any():
            assert error(a, c) < max(1.5 * error(b, c), 6e-3)
        else:
            assert not a.any()  # an idle expert: 0, not None


def test_the_same_with_and_without_a_graph() -> None:
    moe, to, x = build(), routing(20), torch.randn(20, 64, dtype=BF16)
    y = run(moe, x, to)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert run(moe, x, to).equal(y)


def test_second_derivatives() -> None:
    moe, to = build(), routing(20)
    exact = copy.deepcopy(moe).double()
    x, upstream = torch.randn(2, 20, 64, dtype=BF16)
    x.requires_grad_()

    def second(y: Tensor, moe: MoE, x: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        inputs = [x, g, moe.experts[2].gate_proj.weight, moe.experts[3].down_proj.weight]
        first = torch.autograd.grad(y, inputs, upstream.to(y.dtype), create_graph=True)
        return torch.autograd.grad(sum(d.square().sum() for d in first), inputs)

    ours = second(run(moe, x, to), moe, x, to.weights)
    loop = second(moe._routed(x, to), moe, x, to.weights)
    x64, g64 = (t.detach().double().requires_grad_() for t in (x, to.weights))
    expected = second(exact._routed(x64, to._replace(weights=g64)), exact, x64, g64)
    for a, b, c in zip(ours, loop, expected, strict=True):
        assert error(a, c) < max(2 * error(b, c), 0.01)


def test_under_autocast_the_weights_and_their_gradients_stay_float32() -> None:
    moe, to, x = build(torch.float32), routing(30), torch.randn(30, 64, requires_grad=True)
    assert run(moe, x, to) is None
    exact = copy.deepcopy(moe).double()
    with torch.autocast("cpu", dtype=BF16):
        y, loop = run(moe, x, to), moe._routed(x, to)
        assert run(copy.deepcopy(moe).double(), x, to) is None  # autocast leaves float64 alone
    assert y.dtype == loop.dtype == torch.float32
    assert moe.experts[0].up_proj.weight.dtype == torch.float32
    expected = exact._routed(x.double(), to._replace(weights=to.weights.double()))
    assert error(y, expected) < 1.2 * error(loop, expected)
    ours = torch.autograd.grad(y.sum(), list(moe.experts.parameters()))
    theirs = torch.autograd.grad(expected.sum(), list(exact.experts.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == torch.float32
        assert error(a, b) < 0.01


def test_the_plain_form_of_the_kernels_against_autograd() -> None:
    both, d = torch.randn(7, 48, requires_grad=True), torch.randn(7, 24)
    g = torch.rand(7, requires_grad=True)
    hidden = Plain.swiglu(both, g)
    expected = torch.autograd.grad(hidden, [both, g], d)
    d_both, again, d_g = Plain.swiglu_backward(d, both, g)
    torch.testing.assert_close((d_both, d_g), expected)
    torch.testing.assert_close(again, hidden)


# --- the weights ---


def test_they_move_once_and_keep_their_names_and_values() -> None:
    moe, to, x = build(), routing(9), torch.randn(9, 64, dtype=BF16)
    named, before = dict(moe.named_parameters()), copy.deepcopy(moe.state_dict())
    assert not is_stacked(moe)
    run(moe, x, to)
    assert is_stacked(moe)
    assert all(named[name] is parameter for name, parameter in moe.named_parameters())
    after = moe.state_dict()
    assert list(after) == list(before)
    assert all(after[name].equal(before[name]) for name in before)
    assert all(p.is_leaf and p.requires_grad and p.is_contiguous() for p in moe.parameters())
    places = [p.data_ptr() for p in moe.parameters()]
    run(moe, x, to)
    assert places == [p.data_ptr() for p in moe.parameters()]


def swapped(moe: MoE) -> None:
    moe.experts[1], moe.experts[2] = moe.experts[2], moe.experts[1]


def assigned(moe: MoE) -> None:
    fresh = {name: torch.randn_like(tensor) for name, tensor in moe.state_dict().items()}
    moe.load_state_dict(fresh, assign=True)


MOVES: dict[str, Callable[[MoE], Any]] = {
    "to and back": lambda moe: moe.float().bfloat16(),
    "assign": assigned,
    "load": lambda moe: moe.load_state_dict(build().state_dict()),
    "another order": swapped,
    "a new expert": lambda moe: moe.experts.__setitem__(4, build().experts[4]),
    "a new layer": lambda moe: setattr(moe.experts[4], "up_proj", build().experts[4].up_proj),
    "data": lambda moe: setattr(
        moe.experts[0].down_proj.weight, "data", torch.ones(64, 32).to(BF16)
    ),
    "in place": lambda moe: moe.experts[5].gate_proj.weight.data.mul_(3),
    "an optimizer": lambda moe: step(moe),
    "a stack of others": lambda moe: moe.experts.load_state_dict(of_a_stack(), assign=True),
}


def step(moe: MoE) -> None:
    optimizer = torch.optim.AdamW(moe.parameters(), lr=0.1)
    for parameter in moe.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def of_a_stack() -> dict[str, Tensor]:
    """Views of one piece of memory, in another order than ours."""
    moe = build()
    run(moe, torch.randn(3, 64, dtype=BF16), routing(3))
    names = list(moe.experts.state_dict())
    values = list(moe.experts.state_dict().values())
    order = [*range(3, 24), 0, 1, 2]
    return {names[i]: values[order[i]] for i in range(24)}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_a_change_of_the_weights_is_seen(move: Callable[[MoE], Any]) -> None:
    moe, to, x = build(), routing(25), torch.randn(25, 64, dtype=BF16)
    run(moe, x, to)
    with torch.no_grad():
        move(moe)
    for _ in range(2):
        y = run(moe, x, to)
        assert is_stacked(moe)
        assert error(y, exactly(moe, x, to)) < 0.01


def test_a_copy_has_weights_of_its_own() -> None:
    moe, to, x = build(), routing(25), torch.randn(25, 64, dtype=BF16)
    y, twin = run(moe, x, to), copy.deepcopy(moe)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not run(twin, x, to).any()
    assert run(moe, x, to).equal(y)
    saved = io.BytesIO()
    torch.save(moe, saved)
    size = sum(p.nbytes for p in moe.parameters())
    assert saved.tell() < 1.1 * size + 50_000
    saved.seek(0)
    assert run(torch.load(saved, weights_only=False), x, to).equal(y)


def test_a_checkpoint_of_stacked_weights(tmp_path: Any, before_the_loop: list[bool]) -> None:
    config = replace(CONFIG, num_hidden_layers=2, first_k_dense_replace=0)
    model, tokens = DeepSeek(config).bfloat16(), torch.randint(256, (2, 6))
    logits = model(tokens)
    assert before_the_loop == [True, True]
    checkpoint.save(model, tmp_path)
    loaded = checkpoint.load(tmp_path)
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert loaded.bfloat16()(tokens).equal(logits)
    assert before_the_loop == [True] * 4


def test_the_gradients_are_views_of_one_and_not_copied() -> None:
    moe, to, x = build(), routing(25), torch.randn(25, 64, dtype=BF16)
    for turn in (1, 2):
        run(moe, x, to).sum().backward()
        grads = [p.grad for p in moe.experts.parameters()]
        assert len({g.untyped_storage().data_ptr() for g in grads}) == 2
        if turn == 1:
            first = [g.clone() for g in grads]
    assert all(torch.allclose(g, 2 * f) for g, f in zip(grads, first, strict=True))  # they add up
    nn.utils.clip_grad_norm_(moe.parameters(), 1.0)
    moe.experts[0].up_proj.weight.grad.zero_()
    assert moe.experts[0].gate_proj.weight.grad.any()


@pytest.mark.parametrize("frozen", [False, True])
def test_a_change_between_forward_and_backward_is_an_error(frozen: bool) -> None:
    moe, to = build(), routing(25)
    x = torch.randn(25, 64, dtype=BF16, requires_grad=True)
    moe.experts.requires_grad_(not frozen)
    y = run(moe, x, to)
    with torch.no_grad():
        moe.experts[5].up_proj.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_frozen_weights_get_no_gradient() -> None:
    moe, to = build(), routing(25)
    x = torch.randn(25, 64, dtype=BF16, requires_grad=True)
    (expected,) = torch.autograd.grad(run(moe, x, to).sum(), [x])
    moe.experts[:7].requires_grad_(False)
    run(moe, x, to).sum().backward()
    assert x.grad.equal(expected)
    assert [p.grad is None for p in moe.experts.parameters()] == [True] * 21 + [False] * 3
    moe.experts.requires_grad_(False)
    (again,) = torch.autograd.grad(run(moe, x, to).sum(), [x])
    assert again.equal(expected)


def test_neighbours_in_memory_are_no_stack() -> None:
    """Two weights side by side, as a GPU's memory may place them, with storages of their own."""
    whole = torch.randn(2, 8, 8)
    first = torch.empty(0).set_(whole.untyped_storage()[: 64 * 4], 0, (8, 8), (8, 1))
    weights = [nn.Parameter(first), nn.Parameter(whole[1])]
    assert weights[1].data_ptr() == weights[0].data_ptr() + weights[0].nbytes
    stacked = stack(weights)
    assert stacked.equal(whole)
    assert [w.data_ptr() for w in weights] == [part.data_ptr() for part in stacked]


# --- where the loop stays ---


def hooked(kind: str) -> Callable[[MoE], Any]:
    return lambda moe: getattr(moe.experts[2].up_proj, f"register_{kind}")(lambda *_: None)


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


LOOPS: dict[str, Callable[[MoE], Any]] = {
    "float32": lambda moe: moe.float(),
    "float16": lambda moe: moe.half(),
    "a forward hook": hooked("forward_hook"),
    "a hook before": hooked("forward_pre_hook"),
    "a backward hook": hooked("full_backward_hook"),
    "a hook before backward": hooked("full_backward_pre_hook"),
    "a hook of an expert": lambda moe: moe.experts[0].register_forward_hook(lambda *_: None),
    "another class": lambda moe: setattr(moe.experts[1].up_proj, "__class__", Doubled),
    "another forward": lambda moe: setattr(moe.experts[1], "forward", lambda x: x),
    "a bias": lambda moe: setattr(moe.experts[1], "up_proj", nn.Linear(64, 32, dtype=BF16)),
    "a parametrization": lambda moe: parametrize.register_parametrization(
        moe.experts[1].up_proj, "weight", Twice()
    ),
    "one in float32": lambda moe: moe.experts[1].float(),
    "one transposed": lambda moe: setattr(
        moe.experts[1].up_proj.weight, "data", torch.randn(64, 32).to(BF16).T
    ),
    "one of another width": lambda moe: moe.experts.__setitem__(
        1, MoE(replace(CONFIG, moe_intermediate_size=16)).experts[1].to(BF16)
    ),
    "sides that are no multiple of 8": lambda moe: moe.__setattr__(
        "experts", MoE(replace(CONFIG, moe_intermediate_size=12)).experts.to(BF16)
    ),
    "another device": lambda moe: moe.experts[3].to("meta"),
}


@pytest.mark.parametrize("change", LOOPS.values(), ids=LOOPS)
def test_the_loop_stays_for(change: Callable[[MoE], Any]) -> None:
    moe, to = build(), routing(5)
    x = torch.randn(5, 64, dtype=BF16)
    run(moe, x, to)
    change(moe)
    assert run(moe, x.to(moe.gate.weight.dtype), to) is None


def test_the_loop_stays_for_fp8_layers(before_the_loop: list[bool]) -> None:
    moe, x = build(torch.float32), torch.randn(5, 64)
    convert(moe)
    with torch.autocast("cpu", dtype=BF16):
        moe(x)
    assert before_the_loop == [False]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by PyTorch, of itself
def test_the_loop_stays_without_tokens_and_inside_transforms() -> None:
    moe, to, x = build(), routing(5), torch.randn(5, 64, dtype=BF16)
    assert run(moe, x[:0], Routing(*(t[:0] for t in to))) is None
    found: list[Tensor | None] = []

    def call(x: Tensor) -> Tensor:
        found.append(run(moe, x, to))
        return moe._routed(x, to).sum()

    torch.func.grad(call)(x)
    with torch.autograd.forward_ad.dual_level():
        call(torch.autograd.forward_ad.make_dual(x, x))
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    call(x)
    handle.remove()
    weights = {name: p * 1 for name, p in moe.named_parameters()}
    with torch.nn.utils.stateless._reparametrize_module(moe, weights):
        call(x)
    assert found == [None] * 4
    call(x)
    assert found[-1] is not None


def test_the_loop_stays_where_fsdp_moves_the_weights(before_the_loop: list[bool]) -> None:
    """It gathers them into memory of its own for each pass: a stack would keep those of the first.

    Other models go on as ever once that one is gone.
    """
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        moe, x = build(), torch.randn(5, 64, dtype=BF16)
        model = nn.Sequential(moe, nn.Linear(64, 1, dtype=BF16))
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        y = model(x)
        y.sum().backward()
        with torch.no_grad():
            for parameter in moe.experts.parameters():
                parameter.zero_()
        assert not model(x).equal(y)
        assert before_the_loop == [False] * 2
        del moe, model, y
        gc.collect()
        build()(x)
        assert before_the_loop[2:] == [True]
    finally:
        distributed.destroy_process_group()
