"""One MoE layer and the absorbed attention of one layer of V3 on a Hopper GPU, beside other ways.

The rows are those of `benchmarks/moe.py` and `benchmarks/mla.py`, with the floors of the hardware
that they are held against: how fast this GPU copies, and multiplies matrices.

Writes book/data/runs/layers_gpu.json, in about two minutes; without a Hopper GPU it says so and
stops.
"""

import sys

import torch
from _record import ROOT, parser, write
from torch.utils.benchmark import Timer

sys.path.insert(0, str(ROOT))
from benchmarks import _measure, mla, moe


def seconds(call: str, **names: object) -> float:
    return Timer(call, globals=names).blocked_autorange(min_run_time=0.5).median


def floors() -> dict[str, float]:
    """Bytes copied a second, read and written counted, and operations of a product in bfloat16."""
    x = torch.randn(2**30, device="cuda", dtype=torch.bfloat16)
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    return {
        "bytes_per_second": 2 * x.nbytes / seconds("y.copy_(x)", x=x, y=torch.empty_like(x)),
        "flops_per_second": 2 * 8192**3 / seconds("a @ a", a=a),
    }


def main() -> None:
    arguments = parser(__file__, __doc__)
    arguments.add_argument("--rounds", type=int, default=_measure.ROUNDS, help="of what is timed")
    options = arguments.parse_args()
    if not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9:
        print("experiments/layers_gpu.py needs a Hopper GPU (H100, H200 …); nothing was measured.")
        return
    _measure.ROUNDS = options.rounds
    tables: dict[str, object] = {"floors": floors()}
    for name, rows in {"moe": moe.gpu_rows, "mla": mla.gpu_rows}.items():
        tables[name] = rows()
        write(
            options.out,
            script=__file__,
            settings={"rounds": options.rounds},
            tables=tables,
            seeds=[0],
            device="cuda",
        )


if __name__ == "__main__":
    main()
