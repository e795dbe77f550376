"""Schedules on real processes: gradients equal those of one process, and faults end the run."""

import functools
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from dsnotes.training.dualpipe import runtime
from dsnotes.training.dualpipe.actions import Action, Kind, Schedule
from dsnotes.training.dualpipe.clock import Clock
from dsnotes.training.dualpipe.launch import Ranks, Run
from dsnotes.training.dualpipe.processes import RankError
from dsnotes.training.dualpipe.runtime import Pipeline, one_process
from dsnotes.training.dualpipe.schedule import SCHEDULES, dualpipe, dualpipev, one_f_one_b
from dsnotes.training.dualpipe.split import WeightQueue
from dsnotes.training.dualpipe.timeline import Durations, simulate

sys.path.insert(0, str(Path(__file__).parent))  # handed on to processes started anew
import faults

HIDDEN, SHAPE, VOCABULARY = 64, (2, 16, 64), 32
PATIENCE = 300.0  # seconds; for a step on a machine that has much else to do


def _stages(n: int) -> list[nn.Module]:
    """Tokens in, hidden states out; norms, biases and an embedding besides the plain weights."""
    stages = [
        nn.Sequential(nn.RMSNorm(HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(),
                      nn.Linear(HIDDEN, HIDDEN, bias=False))
        for _ in range(n)
    ]  # fmt: skip
    stages[0].insert(0, nn.Embedding(VOCABULARY, HIDDEN))
    return list(stages)


def _batch(m: int) -> tuple[Tensor, Tensor]:
    return torch.randint(VOCABULARY, (m, *SHAPE[:2])), torch.randn(m, *SHAPE)


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request):
    with Ranks(request.param) as ranks:
        ranks.size = request.param
        pids = [process.pid for process in ranks._processes]
        yield ranks
    assert _alive(pids) == []


def _alive(pids: list[int]) -> list[int]:
    def state(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return "gone"

    return [pid for pid in pids if state(pid) not in ("gone", "Z")]


def _largest_difference(run: Run, reference: dict[str, Tensor]) -> float:
    assert run.gradients.keys() == reference.keys()
    for result in run.ranks:  # both copies of a stage, not only the one that ends up in `run`
        for name, gradient in result.gradients.items():
            assert torch.equal(gradient, run.gradients[name])
    assert max(g.abs().max() for g in reference.values()) > 0.5
    return max(float((run.gradients[k] - g).abs().max()) for k, g in reference.items())


@pytest.mark.parametrize("name", SCHEDULES)
def test_gradients_equal_those_of_one_process(ranks, name: str) -> None:
    schedule = SCHEDULES[name](ranks.size, 2 * ranks.size + 2)
    stages, (inputs, targets) = _stages(schedule.num_stages), _batch(schedule.num_micro_batches)
    loss, reference = one_process(stages, inputs, targets, loss=faults.scaled_mse)
    run = ranks.step(
        schedule, stages, inputs, targets, loss=faults.scaled_mse, hidden_shape=SHAPE,
        timeout=PATIENCE,
    )  # fmt: skip
    assert run.loss == pytest.approx(loss, rel=1e-5)
    assert _largest_difference(run, reference) < 1e-5
    traced = [[event.action for event in events] for events in run.trace.events]
    assert traced == [list(actions) for actions in schedule.actions]
    assert run.trace.peak_activations == simulate(schedule).peak_activations


def test_the_trace_of_a_paced_run_is_as_predicted(ranks) -> None:
    """Actions of 20 ms and more on real processes take their places in the simulated order."""
    schedule = dualpipe(ranks.size, 2 * ranks.size)
    pace = Durations(0.02, 0.02, 0.02, 0.05)
    run = ranks.step(
        schedule, _stages(schedule.num_stages), *_batch(schedule.num_micro_batches),
        loss=F.mse_loss, hidden_shape=SHAPE, pace=pace, timeout=PATIENCE,
    )  # fmt: skip
    assert run.trace.makespan >= simulate(schedule, pace).makespan - 1e-6
    done: dict[tuple[bool, int, int], float] = {}
    for events in run.trace.events:
        for action, start, end in events:
            assert end - start >= pace.of(action) - 1e-6
            for part in action.parts:
                if part.kind is not Kind.BACKWARD_WEIGHT:
                    done[part.kind is Kind.FORWARD, part.stage, part.micro_batch] = end
    for events in run.trace.events:
        for action, start, _ in events:
            for part in action.parts:
                if part.kind is not Kind.BACKWARD_WEIGHT:
                    forward = part.kind is Kind.FORWARD
                    source = forward, part.stage + (-1 if forward else 1), part.micro_batch
                    assert start >= done.get(source, 0.0)


def test_actions_are_timed_only_when_asked(monkeypatch) -> None:
    """On a GPU the marks of a trace take time."""
    clocks = []
    monkeypatch.setattr(runtime, "Clock", lambda *args: clocks.append(args) or Clock(*args))
    schedule, batch = dualpipev(1, 4), torch.ones(4, *SHAPE)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        build = functools.partial(
            Pipeline, schedule, {0: nn.Identity(), 1: nn.Identity()}, loss=F.mse_loss,
            hidden_shape=SHAPE,
        )  # fmt: skip
        assert build().step(batch, batch).events == ()
        assert not clocks
        events = build(trace=True).step(batch, batch).events
        assert [event.action for event in events] == list(schedule.actions[0])
        assert build(pace=Durations(0, 0, 0)).step(batch, batch).events == ()
        assert len(clocks) == 2
    finally:
        dist.destroy_process_group()


def test_bad_jobs_are_refused_and_the_ranks_live_on(ranks, monkeypatch) -> None:
    schedule = one_f_one_b(ranks.size, 3)
    stages, (inputs, targets) = _stages(ranks.size), _batch(3)
    step = functools.partial(ranks.step, loss=F.mse_loss, hidden_shape=SHAPE, timeout=PATIENCE)
    with pytest.raises(ValueError, match=f"stages must be {ranks.size} modules, got 1"):
        step(schedule, stages[:1], inputs, targets)
    with pytest.raises(ValueError, match=r"inputs must have 3 micro-batches .*got shape \(2, 2"):
        step(schedule, stages, inputs[:2], targets[:2])
    with pytest.raises(ValueError, match=f"there are {ranks.size} ranks, got"):
        step(one_f_one_b(3, 3), _stages(3), inputs, targets)
    with monkeypatch.context() as patch:  # as in a notebook
        patch.delattr(sys.modules["__main__"], "__file__", raising=False)
        patch.setattr(faults.Narrows, "__module__", "__main__")
        patch.setattr(sys.modules["__main__"], "Narrows", faults.Narrows, raising=False)
        with pytest.raises(ValueError, match="stages and loss must come from a module"):
            step(schedule, [*stages[:-1], faults.Narrows(64, 64)], inputs, targets)
    assert step(schedule, stages, inputs, targets).loss > 0


@pytest.mark.parametrize(
    ("num_ranks", "fault", "message", "timeout"),
    [
        (2, faults.Narrows, r"rank 0 raised[\s\S]*stage 0 must return \(2, 16, 64\)", PATIENCE),
        (3, faults.Exits, "rank 1 died with exit code 7", PATIENCE),
        (3, faults.Sleeps, "rank 1 did not finish within 10 s", 10.0),
    ],
)
def test_a_fault_ends_the_run_and_is_named(num_ranks, fault, message, timeout) -> None:
    """The neighbours wait for the rank at fault and fail only because of it."""
    stages, (inputs, targets) = _stages(num_ranks), _batch(6)
    guilty = num_ranks - 2
    with Ranks(num_ranks) as ranks:
        step = functools.partial(
            ranks.step, one_f_one_b(num_ranks, 6), loss=F.mse_loss, hidden_shape=SHAPE
        )
        step(stages, inputs, targets, timeout=PATIENCE)  # from now on only the fault takes long
        stages[guilty].append(fault(HIDDEN, HIDDEN))
        pids = [process.pid for process in ranks._processes]
        assert _alive(pids) == pids
        begin = time.monotonic()
        with pytest.raises(RankError, match=message) as caught:
            step(stages, inputs, targets, timeout=timeout)
        assert caught.value.rank == guilty
        assert time.monotonic() - begin < faults.SLEEP / 2  # nobody waited for it to wake up
        assert _alive(pids) == []
        with pytest.raises(ValueError, match="these ranks have been ended"):
            ranks.call(time.sleep, [()] * num_ranks, timeout=1.0)


def test_ranks_that_do_not_start_in_time_are_ended() -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(RankError, match=r"rank 0, 1 did not start within 0\.1 s"):
        Ranks(2, start_timeout=0.1)
    assert set(multiprocessing.active_children()) == before


@pytest.mark.skipif(not os.path.exists("/proc/self/net/tcp"), reason="needs /proc")
def test_ranks_listen_on_loopback_only(monkeypatch) -> None:
    """Also where the environment names another interface."""
    names = [name for _, name in socket.if_nameindex() if not name.startswith("lo")]
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(variable, names[0] if names else "absent0")
    stages, batch = (
        [faults.KnowsItsSockets(HIDDEN, HIDDEN) for _ in range(2)],
        torch.randn(3, *SHAPE),
    )
    with Ranks(2) as ranks:
        run = ranks.step(
            one_f_one_b(2, 3), stages, batch, batch, loss=F.mse_loss, hidden_shape=SHAPE,
            timeout=PATIENCE,
        )  # fmt: skip
    assert run.loss > 0


def test_trap_5_copies_that_are_not_summed(ranks) -> None:
    schedule = dualpipe(ranks.size, 2 * ranks.size)
    stages, (inputs, targets) = _stages(ranks.size), _batch(schedule.num_micro_batches)
    _, reference = one_process(stages, inputs, targets, loss=faults.scaled_mse)
    options = {"loss": faults.scaled_mse, "hidden_shape": SHAPE}
    jobs = [
        (schedule, {s: stages[s] for s in schedule.stages_of(rank)}, inputs, targets, options)
        for rank in range(ranks.size)
    ]
    apart = [r.gradients for r in ranks.call(faults.step_without_sum, jobs, timeout=PATIENCE)]
    summed = ranks.step(schedule, stages, inputs, targets, **options, timeout=PATIENCE)
    assert _largest_difference(summed, reference) < 1e-5
    for name, correct in reference.items():
        holders = [gradients[name] for gradients in apart if name in gradients]
        assert len(holders) == 2  # each has seen half of the micro-batches
        torch.testing.assert_close(holders[0] + holders[1], correct, atol=1e-5, rtol=0)
        for half in holders:
            assert (half - correct).norm() > 0.1 * correct.norm()


def test_torchrun() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "dsnotes.training.dualpipe", "--schedule", "DualPipe", "--micro-batches", "6"],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("DualPipe rank")]
    assert len(lines) == 2, done.stderr
    for line in lines:
        assert float(line.split("gradient difference ")[1].split(";")[0]) < 1e-5


def test_weight_gradients_come_when_asked_and_not_before() -> None:
    model = nn.Sequential(
        nn.Embedding(7, 8), nn.Linear(8, 8), nn.SiLU(), nn.RMSNorm(8), nn.Linear(8, 5, bias=False)
    )
    x = torch.randint(7, (2, 3))
    model(x).square().sum().backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    queue = WeightQueue()
    for _ in range(2):  # two micro-batches
        with queue.record():
            y = model(x)
        y.square().sum().backward()
    owed = {name for name, p in model.named_parameters() if p.grad is None}
    assert owed == {"1.weight", "1.bias", "4.weight"}
    queue.flush()
    queue.flush()  # nothing is owed any more
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * expected[name])
        assert not parameter.grad.requires_grad


def test_a_frozen_or_computed_weight_is_left_to_autograd() -> None:
    frozen, computed = nn.Linear(4, 4), torch.randn(4, 4, requires_grad=True)
    frozen.requires_grad_(False)
    x, queue = torch.randn(2, 4, requires_grad=True), WeightQueue()
    with queue.record():
        y = F.linear(frozen(x), computed * 2)
    y.sum().backward()
    queue.flush()
    assert frozen.weight.grad is None
    assert computed.grad is not None
    assert x.grad is not None


def test_the_order_of_every_rank_may_be_its_own() -> None:
    """Rank 1 begins with the second micro-batch, which rank 0 makes last."""
    f = [[Action(Kind.FORWARD, stage, 0, m) for m in range(2)] for stage in range(2)]
    b = [[Action(Kind.BACKWARD, stage, 0, m) for m in range(2)] for stage in range(2)]
    crossed = Schedule("crossed", 2, 2, ((*f[0], *b[0]), (f[1][1], b[1][1], f[1][0], b[1][0])))
    stages, (inputs, targets) = _stages(2), _batch(2)
    loss, reference = one_process(stages, inputs, targets, loss=faults.scaled_mse)
    with Ranks(2) as ranks:
        run = ranks.step(
            crossed, stages, inputs, targets, loss=faults.scaled_mse, hidden_shape=SHAPE,
            timeout=PATIENCE,
        )  # fmt: skip
        assert run.loss == pytest.approx(loss, rel=1e-5)
        assert _largest_difference(run, reference) < 1e-5
        upside_down = Schedule("upside down", 2, 1, ((b[0][0], f[0][0]), (f[1][0], b[1][0])))
        with pytest.raises(RankError, match="upside down cannot go on: rank 0 waits for"):
            ranks.step(
                upside_down, stages, inputs[:1], targets[:1], loss=F.mse_loss, hidden_shape=SHAPE,
            )  # fmt: skip


def test_results_travel_as_plain_bytes() -> None:
    """A schedule is sent to every rank: it must survive the journey, equal and small."""
    schedule = dualpipe(4, 8)
    _ = schedule.rank_of  # a cached property
    assert pickle.loads(pickle.dumps(schedule)) == schedule
