"""Training on poems: in this process, or on several that share every batch.

With `Run.processes` above 1 a run starts as many (gloo on a CPU, NCCL and a GPU for each with
CUDA), asks them for one step at a time, and ends them. The first saves the training in
`<stage>.pt`, where one process would save it: either goes on from what the other has left.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from dsnotes.data.poems import Verse
from dsnotes.model.deepseek import DeepSeek
from dsnotes.training.dualpipe.channels import EVERYONE
from dsnotes.training.dualpipe.processes import Processes
from dsnotes.training.loop import language_step, train
from dsnotes.training.parallel import ParallelState, parallel_step
from dsnotes.training.state import Report, Snapshot, TrainState
from dsnotes.training.texts import Batch
from dsnotes.training.verses import PAD, batches
from dsnotes.whole.run import Run, Stopped
from dsnotes.whole.sizes import GAMMA, MTP_WEIGHT, Training

ON_PROCESSES = "pretrain"  # the stage that they share
_PATIENCE = 600.0  # seconds for a step: the first reads the corpus, and compiles
_Start = tuple[TrainState, Callable[..., Report], Iterator[Batch]]


def read_poems(
    run: Run, name: str, model: DeepSeek, poems: Sequence[Verse], how: Training
) -> list[Report]:
    """Train on poems to the end; the reports of all steps. See `Run.train`."""
    if name == ON_PROCESSES and run.processes > 1:
        _read_on_processes(run, model)
    return run.train(name, *start(run, model, poems, how))


def start(
    run: Run, model: DeepSeek, poems: Sequence[Verse], how: Training, *, parallel: bool = False
) -> _Start:
    """State, step and data: biases follow the load, the prediction module learns."""
    kind, step = (ParallelState, parallel_step) if parallel else (TrainState, language_step)
    state = kind.create(
        model.to(run.device),
        steps=how.steps,
        learning_rate=how.learning_rate,
        cooldown=how.cooldown,
        seed=run.seed,
    )
    weight = MTP_WEIGHT if model.config.num_nextn_predict_layers else 0.0
    order = {"steps": how.steps, "batch_size": how.batch_size, "seed": run.seed}
    data = batches(poems, run.vocabulary, **order)
    return state, partial(step, gamma=GAMMA, mtp_weight=weight, padding=PAD), data


def _read_on_processes(run: Run, model: DeepSeek) -> None:
    """Bring `pretrain.pt` to the last step; `Stopped` if the run must stop before."""
    device = torch.device(run.device).type  # rank r takes GPU r
    arguments = {
        "out": run.folder,
        "size": run.settings["size"],
        "seed": run.seed,
        "corpus": run.corpus,
        "device": device,
        "fp8": run.fp8,
        "progress": run.progress,
    }
    ranks, steps = run.processes, run.size.pretrain.steps
    with Processes(ranks, device=device) as processes:

        def ask(job: Callable[..., Any], *given: Any) -> Any:
            return processes.call(job, [given] * ranks, timeout=_PATIENCE)[0]

        taken = ask(_begin, model, arguments)
        while taken < steps:
            taken = ask(_step)
            if run.is_over() and taken < steps:
                ask(_save)
                break
    if taken < steps:
        raise Stopped(f"stopped in {ON_PROCESSES}, after step {taken} of {steps}")


# --- what each of the processes does; it keeps its training from one job to the next ---

_training: dict[str, Any] = {}
_Wait = Callable[[int | None], None]


def _begin(on_wait: _Wait, model: DeepSeek, arguments: dict[str, Any]) -> int:
    """Build the training, or take up what was saved of it; the steps that are taken."""
    run, rank = Run(**arguments), dist.get_rank()
    if run.device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")
    state, step, data = start(run, model, run.poems, run.size.pretrain, parallel=True)
    file = run.folder / f"{ON_PROCESSES}.pt"
    on_wait(EVERYONE)
    for turn in range(dist.get_world_size()):
        if turn == rank:  # one at a time: a snapshot tries whether it can write
            Snapshot(file).load(state)
        dist.barrier()
    reports = train(
        state,
        step,
        data,
        checkpoint=file if rank == 0 else None,
        save_every=run.size.save_every,
        description=ON_PROCESSES,
        progress=run.progress and rank == 0,
    )
    _training.update(state=state, reports=reports, file=file)
    return state.step


def _step(on_wait: _Wait) -> int:
    on_wait(EVERYONE)
    next(_training["reports"])
    taken: int = _training["state"].step
    return taken


def _save(on_wait: _Wait) -> None:
    if dist.get_rank() == 0:
        Snapshot(_training["file"]).save(_training["state"])
