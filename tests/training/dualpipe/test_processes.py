"""The processes of a pipeline: what they are refused, what they say, how they end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dsnotes.training.dualpipe.engine import torch_dualpipev
from dsnotes.training.dualpipe.launch import Ranks
from dsnotes.training.dualpipe.processes import RankError
from dsnotes.training.dualpipe.runtime import one_process
from dsnotes.training.dualpipe.schedule import dualpipe, one_f_one_b
from dsnotes.training.dualpipe.sharing import tied

sys.path.insert(0, str(Path(__file__).parent))
import faults

SHAPE = (2, 4)
PATIENCE = 300.0  # seconds; for what takes one or two, on a machine that has much else to do


@pytest.fixture(scope="module")
def ranks():
    with Ranks(2) as ranks:
        yield ranks


def _linear() -> nn.Linear:
    return nn.Linear(4, 4)


def _shared() -> list[nn.Module]:
    first, second = _linear(), nn.Sequential(nn.Tanh(), _linear())
    second[1].weight = first.weight
    return [first, second]


def _frozen() -> list[nn.Module]:
    half = nn.Sequential(_linear(), _linear())
    half[0].weight.requires_grad_(False)
    return [_linear().requires_grad_(False), half]


@pytest.mark.parametrize("schedule", [one_f_one_b(2, 3), dualpipe(2, 4)], ids=["1F1B", "DualPipe"])
@pytest.mark.parametrize(
    "build",
    [_shared, _frozen, lambda: [nn.Tanh(), _linear()], lambda: [_linear(), nn.Identity()],
     lambda: [nn.Identity(), nn.Tanh()]],
    ids=["shared", "frozen", "first without weights", "last without weights", "no weights"],
)  # fmt: skip
def test_stages_of_every_kind(ranks, schedule, build) -> None:
    stages, (inputs, targets) = build(), torch.randn(2, schedule.num_micro_batches, *SHAPE)
    loss, reference = one_process(stages, inputs, targets, loss=faults.scaled_mse)
    run = ranks.step(
        schedule, stages, inputs, targets, loss=faults.scaled_mse, hidden_shape=SHAPE,
        timeout=PATIENCE,
    )  # fmt: skip
    assert run.loss == pytest.approx(loss, rel=1e-5)
    assert run.gradients.keys() == reference.keys()
    assert set(dict(nn.Sequential(*stages).named_parameters())) >= set(reference)
    for name, gradient in reference.items():
        torch.testing.assert_close(run.gradients[name], gradient, rtol=1e-4, atol=1e-3)
    for names in tied(stages):
        for result in run.ranks:
            for name in set(names) & set(result.gradients):
                assert torch.equal(result.gradients[name], run.gradients[names[0]])


def _step(ranks: Ranks, stages: list[nn.Module], **options) -> object:
    inputs, targets = torch.randn(2, 3, *SHAPE)
    options = {"loss": F.mse_loss, "hidden_shape": SHAPE, "timeout": PATIENCE} | options
    return ranks.step(one_f_one_b(2, 3), stages, inputs, targets, **options)


class Home(nn.Module):
    """Keeps a lambda, as many modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.activation = lambda x: x.tanh()


def test_what_cannot_be_sent_is_refused_and_the_ranks_live_on(ranks) -> None:
    weight_norm = nn.utils.parametrizations.weight_norm
    for stages, options in (
        ([_linear(), _linear()], {"loss": lambda y, target: F.mse_loss(y, target)}),
        ([_linear(), Home()], {}),
        ([weight_norm(_linear()), _linear()], {}),
    ):
        with pytest.raises(ValueError, match=r"can be sent to other processes: .*no lambda \(\w+"):
            _step(ranks, stages, **options)
    with pytest.raises(ValueError, match="loss must have no trained weights"):
        _step(ranks, [_linear(), _linear()], loss=nn.Bilinear(4, 4, 1))
    for seconds in (float("nan"), -1.0, 0.0, float("inf"), 1e300):
        with pytest.raises(ValueError, match=r"timeout must be seconds above 0, at most 1e\+06"):
            ranks.call(time.sleep, [(), ()], timeout=seconds)
    assert _step(ranks, [_linear(), _linear()]).loss > 0


def test_the_engine_of_torch_is_not_given_what_it_gets_wrong(ranks) -> None:
    stages, (inputs, targets) = [_linear() for _ in range(4)], torch.randn(2, 4, *SHAPE)
    with pytest.raises(ValueError, match="stages must be two for each rank, got 3"):
        torch_dualpipev(ranks, stages[:3], inputs, targets, loss=F.mse_loss)
    stages[1].weight = stages[3].weight  # of rank 1 and of rank 0
    with pytest.raises(ValueError, match=r"share a parameter: 1\.weight, 3\.weight"):
        torch_dualpipev(ranks, stages, inputs, targets, loss=F.mse_loss)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cuda:0"}, 'device must be "cpu" or "cuda" .*got \'cuda:0\''),
        ({"device": "tpu"}, 'device must be "cpu" or "cuda" .*got \'tpu\''),
        ({"num_ranks": 0}, "num_ranks must be a whole number of at least 1, got 0"),
        ({"num_ranks": -1}, "num_ranks must be a whole number of at least 1, got -1"),
        ({"start_timeout": float("nan")}, "start_timeout must be seconds above 0, .*got nan"),
        ({"start_timeout": -1.0}, "start_timeout must be seconds above 0, .*got -1"),
    ],
)
def test_ranks_that_cannot_be_are_refused(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ranks(**({"num_ranks": 2} | arguments))


def test_a_gpu_for_each_rank() -> None:
    too_many = torch.cuda.device_count() + 1
    with pytest.raises(ValueError, match=rf'"cuda" needs a GPU for each of {too_many} ranks'):
        Ranks(too_many, device="cuda")


@pytest.mark.parametrize("device", ["cuda:0", "tpu"])
def test_no_folder_is_left_of_ranks_that_were_refused(device, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="device"):
        Ranks(2, device=device)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_cuts_the_graph_is_named_at_once() -> None:
    begin = time.monotonic()
    with Ranks(2) as ranks, pytest.raises(RankError) as caught:
        _step(ranks, [_linear(), faults.Cuts(4, 4)], timeout=1e5)
    assert "stage 1 passes no gradient to stage 0" in str(caught.value)
    assert caught.value.rank == 1
    assert time.monotonic() - begin < 2 * PATIENCE  # and not the timeout of the step


def test_a_job_may_raise_what_a_connection_raises() -> None:
    with Ranks(1) as ranks, pytest.raises(RankError, match="EOFError: the file of the job"):
        ranks.call(faults.raises_end_of_file, [()], timeout=PATIENCE)


PROGRAM = """
import sys, torch
import torch.nn.functional as F
from dsnotes.training.dualpipe.launch import run
from dsnotes.training.dualpipe.schedule import one_f_one_b
inputs, targets = torch.randn(2, 2, 2, 4)
stages = [torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)]
try:
    run(one_f_one_b(2, 2), stages, inputs, targets, loss=LOSS, hidden_shape=(2, 4))
    print("no error")
except Exception as error:
    print(type(error).__name__, error)
"""


def _says(command: list[str], tmp_path: Path, **options) -> str:
    """What a program prints; it must leave nothing in its folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=PATIENCE,
        env=os.environ | {"TMPDIR": str(folder)}, **options,
    )  # fmt: skip
    assert [path for path in folder.iterdir() if path.name.startswith("dsnotes-")] == []
    assert done.stderr == ""
    return done.stdout


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROGRAM.replace("LOSS", "F.mse_loss"), encoding="utf8")
    said = _says([str(script)], tmp_path)
    assert said.startswith("RankError the ranks cannot start")
    assert 'under `if __name__ == "__main__":`' in said


def test_a_program_without_a_file_is_told_so(tmp_path: Path) -> None:
    said = _says(["-"], tmp_path, input=PROGRAM.replace("LOSS", "F.mse_loss"))
    assert said == (
        "ValueError every rank imports the program that starts it, but <stdin> is no file\n"
    )


def test_a_lambda_in_a_notebook_is_named(tmp_path: Path) -> None:
    """A program given by -c has no file either and, like a notebook, is not imported."""
    said = _says(["-c", PROGRAM.replace("LOSS", "lambda y, t: F.mse_loss(y, t)")], tmp_path)
    assert said.startswith("ValueError stages and loss must be such as can be sent")
    assert "no lambda" in said


ENDLESS = """
import signal, sys, tempfile
sys.path[:0] = [sys.argv[1]]
import faults
from dsnotes.training.dualpipe.engine import torch_dualpipev
from dsnotes.training.dualpipe.launch import Ranks
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # not so behind a shell
    tempfile.tempdir = sys.argv[2]
    ranks = Ranks(2)
    print(*(process.pid for process in ranks._processes), flush=True)
    if sys.argv[3] == "work":
        ranks.call(faults.never_returns, [(), ()], timeout=faults.SLEEP)
    elif sys.argv[3] == "wait":
        sys.stdin.read()
"""


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
@pytest.mark.parametrize(
    ("ending", "doing"),
    [(signal.SIGKILL, "work"), (signal.SIGTERM, "work"),
     (signal.SIGINT, "work"), (None, "nothing")],
)  # fmt: skip
def test_ranks_end_with_their_parent(tmp_path: Path, ending, doing: str) -> None:
    """However it ends, and whatever they do; they would sleep for longer than this waits."""
    script, folder = tmp_path / "script.py", tmp_path / "temporary"
    script.write_text(ENDLESS, encoding="utf8")
    folder.mkdir()
    here = str(Path(__file__).parent)
    with subprocess.Popen(
        [sys.executable, str(script), here, str(folder), doing],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as parent:  # fmt: skip
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        if ending is not None:
            assert all(_runs(pid) for pid in pids)
            parent.send_signal(ending)
        parent.wait(PATIENCE)
        end = time.monotonic() + faults.SLEEP / 2
        while any(_runs(pid) for pid in pids) or list(folder.iterdir()):
            assert time.monotonic() < end, (pids, list(folder.iterdir()))
            time.sleep(0.05)
