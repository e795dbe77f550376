"""FP8 against BF16 on tensor cores: what it costs in loss, where the cost comes from, when it goes.

One model of `dsnotes.training.growth`, widened to 48 million parameters, learns all quatrains of
five and seven characters. The runs of a seed start from the same weights and see the same poems in
the same order; they differ in how those linear layers compute that V3 runs in FP8. Everything else
is FP32. Loss is in nats per character of held-out poems, computed with the same layers.

Runs
    bf16            operands and results rounded to BF16, weight gradients summed in FP32
    bf16 again      the same with one weight changed by its last bit: how far chance alone carries
    fp32            nothing rounded
    v3              `fp8.linear.V3_RECIPE`
    dgrad 128x128   v3, but activation gradients in 128x128 blocks in Dgrad (V3 appendix B.2)
    tensor          one scale for a whole tensor, for all six operands
    only …          FP8 for one product, one operand or one kind of layer; what else as in bf16
Gradients: those of all these, of a model in the middle of its training, against float64, and over
the size of the batch. Only the first five are trained, unless `--part` asks for more: `switches`
are the last rows, `batches` bf16 and v3 on the same poems in smaller and larger steps.

    python experiments/prepare_poems.py … --full --out FOLDER         # makes the corpus
    python experiments/fp8_loss.py --corpus FOLDER/quatrains.txt --keep KEEP --workers 12

Writes book/data/runs/fp8_loss.json. The workers share all GPUs, 10 GB each; KEEP holds finished
runs, to go on from. 25 runs of 700 steps and the gradients took four H100s nine minutes.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import current_process
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from _record import collect, parser, write
from torch import Tensor, nn

from dsnotes.config import Config
from dsnotes.data import poems as corpus
from dsnotes.model.balance import BiasBalancer
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.moe import Gate, record_routing
from dsnotes.training import growth
from dsnotes.training.fp8 import linear
from dsnotes.training.fp8.formats import (
    BLOCK,
    PER_TENSOR,
    TILE,
    TOKEN_TILE,
    Group,
    dequantize,
    quantize,
)
from dsnotes.training.fp8.linear import Recipe, convert
from dsnotes.training.loop import moe_layers
from dsnotes.training.poems import END, SPECIALS
from dsnotes.training.state import TrainState

VOCABULARY = 5000  # the most frequent characters; poems with others are left out
LENGTH = 2 + 4 * 8 + 1  # of a poem of seven characters a line; shorter ones are filled up
Groups = dict[str, Group]
# The operands of Y = X W^T, dX = dY W and dW = dY^T X, and the groups that V3 scales them in
V3_GROUPS: Groups = {
    "fprop x": TILE,
    "fprop w": BLOCK,
    "dgrad dy": TILE,
    "dgrad w": BLOCK,
    "wgrad dy": TOKEN_TILE,
    "wgrad x": TOKEN_TILE,
}
KINDS = ("attention", "routed", "others")  # of layers; others: the dense layer, shared experts


class Lengths(NamedTuple):
    """How long everything takes; a record of other numbers is of another experiment."""

    poems: int = 700 * 512  # in a run
    batch: int = 512  # poems a step
    evaluations: int = 14
    held_out: int = 4096
    learning_rate: float = 1.5e-3  # at 512 poems a step; with the root of their number
    cooldown: float = 0.5


class Data(NamedTuple):
    train: Tensor  # (poems, LENGTH)
    held_out: Tensor
    vocabulary: int


@cache
def data(path: Path) -> Data:
    poems = corpus.parse(path.read_text("utf-8"))
    counts = Counter(c for poem in poems for line in poem.lines for c in line)
    kept = sorted(counts, key=lambda c: (-counts[c], c))[:VOCABULARY]
    ids = {symbol: i for i, symbol in enumerate((*SPECIALS, *kept))}
    rows: dict[bool, list[list[int]]] = {True: [], False: []}
    for poem in poems:
        if all(c in ids for line in poem.lines for c in line):
            row = [ids[f"<{poem.form}>"], ids[f"<{poem.rhyme}>"], *(ids[c] for c in poem.text)]
            rows[corpus.is_held_out(poem)].append(row + [END] * (LENGTH - len(row)))
    return Data(torch.tensor(rows[False]), torch.tensor(rows[True]), len(ids))


def config(vocabulary: int) -> Config:
    return dataclasses.replace(
        growth.CONFIG,
        vocab_size=vocabulary,
        hidden_size=512,
        num_hidden_layers=6,
        intermediate_size=1536,
        moe_intermediate_size=512,
        num_attention_heads=8,
        kv_lora_rank=128,
        qk_nope_head_dim=64,
        qk_rope_head_dim=32,
        v_head_dim=64,
        num_nextn_predict_layers=0,
    )


class _Bf16(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x, weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight)
        return (x @ weight.T).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (x, weight), dy = ctx.saved_tensors, grads[0].bfloat16()
        if x.is_cuda and len(x):
            dw = torch.mm(dy.T, x, out_dtype=torch.float32)
        else:
            dw = dy.float().T @ x.float()
        return (dy @ weight).float(), dw


class Bf16(nn.Linear):
    """`linear.Bf16Linear` on tensor cores."""

    def forward(self, input: Tensor) -> Tensor:
        y = _Bf16.apply(input.reshape(-1, self.in_features), self.weight)
        return y.view(*input.shape[:-1], self.out_features)


class _Switched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, groups: Groups | None) -> Tensor:
        ctx.groups = groups
        ctx.save_for_backward(x, weight)
        return _product(x, weight.T, groups, "fprop x", "fprop w")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (x, weight), dy, groups = ctx.saved_tensors, grads[0], ctx.groups
        dx = _product(dy, weight, groups, "dgrad dy", "dgrad w")
        return dx, _rounded(dy, groups, "wgrad dy").T @ _rounded(x, groups, "wgrad x"), None


def _product(a: Tensor, b: Tensor, groups: Groups | None, name_a: str, name_b: str) -> Tensor:
    """A B of rounded operands, itself rounded to BF16; nothing is rounded without groups."""
    b = _rounded(b.T, groups, name_b).T if name_b == "fprop w" else _rounded(b, groups, name_b)
    y = _rounded(a, groups, name_a) @ b
    return y if groups is None else y.bfloat16().to(y.dtype)


def _rounded(x: Tensor, groups: Groups | None, operand: str) -> Tensor:
    if groups is None:
        return x
    if operand not in groups:
        return x.bfloat16().to(x.dtype)
    if operand == "wgrad x" and groups[operand] == TOKEN_TILE:
        x = dequantize(quantize(x, group=TILE))  # what V3 keeps for the backward pass
    return dequantize(quantize(x, group=groups[operand]))


class Switched(nn.Linear):
    """A linear layer that rounds each of the six operands or not, and multiplies in FP32.

    An operand is rounded in its group of `groups`, else to BF16; None leaves all as they are.
    """

    groups: Groups | None = None

    def forward(self, input: Tensor) -> Tensor:
        y = _Switched.apply(input.reshape(-1, self.in_features), self.weight, self.groups)
        return y.view(*input.shape[:-1], self.out_features)


def bf16(model: nn.Module) -> None:
    linear._exchange(model, lambda _, k, n: Bf16(k, n, bias=False, device="meta"))


def bf16_again(model: DeepSeek) -> None:
    bf16(model)
    with torch.no_grad():
        weight = model.model.norm.weight
        weight[0] = torch.nextafter(weight[0], weight[0] + 1)


def switched(
    model: nn.Module, *, groups: Groups | None = None, kinds: tuple[str, ...] = KINDS
) -> None:
    """Layers of `kinds` round in these groups, all others to BF16."""
    paths = linear._exchange(model, lambda _, k, n: Switched(k, n, bias=False, device="meta"))
    for path in paths:
        layer = model.get_submodule(path)
        layer.groups = groups if groups is None or kind_of(path) in kinds else {}


def kind_of(path: str) -> str:
    return next(
        (k for k, p in (("attention", "self_attn"), ("routed", ".experts.")) if p in path), "others"
    )


def some(part: str) -> Groups:
    return {operand: g for operand, g in V3_GROUPS.items() if part in operand.split()}


VARIANTS: dict[str, Callable[[DeepSeek], Any]] = {
    "bf16": bf16,
    "bf16 again": bf16_again,
    "fp32": switched,
    "v3": convert,
    "dgrad 128x128": partial(convert, recipe=Recipe(dgrad_group=BLOCK)),
    "tensor": partial(switched, groups=dict.fromkeys(V3_GROUPS, PER_TENSOR)),
    **{f"only {part}": partial(switched, groups=some(part))
       for part in ("fprop", "dgrad", "wgrad", "x", "w", "dy")},
    **{f"only {kind}": partial(switched, groups=V3_GROUPS, kinds=(kind,)) for kind in KINDS},
}  # fmt: skip
MAIN = ("v3", "dgrad 128x128", "fp32", "bf16", "bf16 again")


def built(variant: str, seed: int, vocabulary: int) -> DeepSeek:
    torch.manual_seed(seed)
    model = DeepSeek(config(vocabulary))
    VARIANTS[variant](model)
    return model.to(own_device())


def own_device() -> torch.device:
    """The workers take the GPUs in turn."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    worker = (current_process()._identity or (0,))[0]
    torch.cuda.set_device(worker % torch.cuda.device_count())
    return torch.device("cuda", torch.cuda.current_device())


def loss_of(model: DeepSeek, tokens: Tensor) -> Tensor:
    """Mean nats per character, given form and group; punctuation and what follows do not count."""
    targets = tokens[:, 1:].masked_fill(tokens[:, 1:] < len(SPECIALS), -1)
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


@torch.no_grad()
def evaluate(model: DeepSeek, tokens: Tensor) -> float:
    losses = torch.stack([loss_of(model, part) for part in tokens.split(1024)])
    return round(losses.mean().item(), 5)


def order(n: int, *, batch: int, seed: int) -> Iterator[Tensor]:
    """Indices of the poems of each step; the same poems one after the other, whatever the batch."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.zeros(0, dtype=torch.long)
    while True:
        while len(left) < batch:
            left = torch.cat([left, torch.randperm(n, generator=generator)])
        yield left[:batch]
        left = left[batch:]


def trained(
    model: DeepSeek, given: Data, seed: int, lengths: Lengths, *, steps: int | None = None
) -> Iterator[dict[str, float]]:
    """Train for all steps, or some, of a run; yields a point of its curve now and then."""
    poems, held_out = (
        x.to(model.device) for x in (given.train, given.held_out[: lengths.held_out])
    )
    total = lengths.poems // lengths.batch
    state = TrainState.create(
        model,
        steps=total,
        learning_rate=lengths.learning_rate * (lengths.batch / 512) ** 0.5,
        cooldown=lengths.cooldown,
    )
    if poems.is_cuda:
        for group in state.optimizer.param_groups:
            group["fused"], group["foreach"] = True, False
    balancer = BiasBalancer([moe.gate for moe in moe_layers(model)], gamma=growth.GAMMA)
    every = max(1, total // lengths.evaluations)
    losses: list[Tensor] = []
    for step, rows in enumerate(order(len(poems), batch=lengths.batch, seed=seed)):
        if step % every == 0 or step == total:
            train = round(torch.stack(losses).mean().item(), 5) if losses else None
            yield {"step": step, "held_out": evaluate(model, held_out), "train": train}
            losses.clear()
        if step == (total if steps is None else steps):
            return
        with record_routing(model) as routings:
            loss = loss_of(model, poems[rows.to(poems.device)])
        state.update(loss)
        losses.append(loss.detach())
        balancer.observe([routing.indices for routing in routings])
        balancer.step()


def run(variant: str, seed: int, batch: int, *, path: Path, lengths: Lengths) -> dict[str, Any]:
    """One run; its start and the order of its poems depend on the seed alone."""
    began, given = monotonic(), data(path)
    model = built(variant, seed, given.vocabulary)
    curve = list(trained(model, given, seed, lengths._replace(batch=batch)))
    return {
        "variant": variant,
        "seed": seed,
        "batch": batch,
        "held_out": curve[-1]["held_out"],
        "curve": curve,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "seconds": round(monotonic() - began, 1),
    }


def gradients(
    seed: int, *, path: Path, lengths: Lengths, few: bool
) -> dict[str, list[dict[str, Any]]]:
    """Errors of the gradient against float64, after half of the steps in BF16.

    ‖g - g64‖ / ‖g64‖ of all weights of a kind together. Each token goes to the experts that the
    float64 model chooses: a choice that turns is another matter. `sampling` compares the float64
    gradient of the batch with that of all poems here: what a step has of chance anyway.
    """
    given = data(path)
    model = built("bf16", seed, given.vocabulary)
    for _ in trained(model, given, seed, lengths, steps=lengths.poems // lengths.batch // 2):
        pass
    state = model.state_dict()
    poems = given.train[
        torch.randperm(len(given.train), generator=torch.Generator().manual_seed(7))
    ]
    poems = poems.to(model.device)
    exact = built("fp32", seed, given.vocabulary)
    exact.load_state_dict(state)
    exact.double()
    rows, everything = [], None
    for batch in (16, 8) if few else (2048, 512, 128, 32):
        choices: list[Tensor] = []
        with as_chosen(choices, replay=False):
            reference = gradient(exact, poems[:batch])
        everything = reference if everything is None else everything
        rows.append(
            {"seed": seed, "batch": batch, "variant": "sampling"} | far(reference, everything)
        )
        for variant in VARIANTS:
            if variant == "bf16 again" or ("only" in variant and batch != lengths.batch):
                continue
            other = built(variant, seed, given.vocabulary)
            other.load_state_dict(state)
            with as_chosen(list(choices), replay=True):
                found = gradient(other, poems[:batch])
            rows.append({"seed": seed, "batch": batch, "variant": variant} | far(found, reference))
    return {"rows": rows}


def gradient(model: DeepSeek, tokens: Tensor, *, at_once: int = 256) -> dict[str, Tensor]:
    """Mean gradient of every weight, in float64."""
    total: dict[str, Tensor] = {}
    for part in tokens.split(at_once):
        model.zero_grad()
        loss_of(model, part).backward()
        for name, weight in model.named_parameters():
            g = weight.grad.double() * (len(part) / len(tokens))
            total[name] = total[name] + g if name in total else g
    return total


def far(found: dict[str, Tensor], reference: dict[str, Tensor]) -> dict[str, float]:
    """Relative errors by kind of layer; `rest` are the weights that V3 does not run in FP8."""
    off, size = Counter(), Counter()
    for name, expected in reference.items():
        parts = name.split(".")
        kind = kind_of(name) if parts[-2] in linear.QUANTIZED_LINEARS else "rest"
        off[kind] += (found[name] - expected).square().sum().item()
        size[kind] += expected.square().sum().item()
    return {kind: round((off[kind] / size[kind]) ** 0.5, 6) for kind in (*KINDS, "rest")}


@contextmanager
def as_chosen(choices: list[Tensor], *, replay: bool) -> Iterator[None]:
    """The gates note whom they choose, or choose whom they are told."""
    choose = Gate._choose

    def noted(gate: Gate, scores: Tensor) -> Tensor:
        if replay:
            return choices.pop(0)
        choices.append(choose(gate, scores))
        return choices[-1]

    Gate._choose = noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        Gate._choose = choose  # type: ignore[method-assign]


def main() -> None:
    options = parser(__file__, __doc__, seeds=range(5))
    options.add_argument(
        "--corpus", type=Path, required=True, help="made by prepare_poems.py --full"
    )
    options.add_argument("--keep", type=Path, help="a folder for finished runs, to go on from")
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--part", choices=("loss", "switches", "batches", "gradients"), nargs="+")
    options.add_argument("--few", action="store_true", help="a few poems, to see that all runs")
    given = options.parse_args()
    if not given.corpus.is_file():
        options.error(f"--corpus must be the file that prepare_poems.py wrote, got {given.corpus}")
    lengths = Lengths(poems=32, batch=8, evaluations=1, held_out=8) if given.few else Lengths()
    parts = given.part or ("loss", "gradients")
    few_seeds, b = given.seeds[:3], lengths.batch
    jobs: dict[str, list[tuple[str, int, int]]] = {
        "loss": [(variant, seed, b) for variant in MAIN for seed in given.seeds],
        "switches": [(v, seed, b) for v in VARIANTS if v not in MAIN for seed in few_seeds],
        "batches": [
            (variant, seed, size)
            for size in (b // 4, b * 4)
            for variant in ("v3", "bf16")
            for seed in few_seeds
        ],
    }
    one = partial(run, path=given.corpus, lengths=lengths)
    wanted = [job for part in parts for job in jobs.get(part, [])]
    runs = list(collect(one, wanted, workers=given.workers, keep=given.keep))
    tables = {}
    if "gradients" in parts:
        measured = collect(
            partial(gradients, path=given.corpus, lengths=lengths, few=given.few),
            [(seed,) for seed in few_seeds],
            workers=given.workers,
            keep=given.keep and given.keep / "gradients",
        )
        tables["gradients"] = [row for each in measured for row in each["rows"]]
    model = DeepSeek(config(data(given.corpus).vocabulary))
    settings = lengths._asdict() | {
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_poems": len(data(given.corpus).train),
        "tokens_per_poem": LENGTH,
    }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    write(
        given.out,
        script=__file__,
        settings=settings,
        runs=runs,
        tables=tables,
        seeds=given.seeds,
        device=device,
        minutes=sum(r["seconds"] for r in runs) / 60,
    )


if __name__ == "__main__":
    main()
