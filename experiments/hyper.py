"""What is passed on over depth while a small verse model learns: one stream, four free, four mHC.

Twelve dense layers, so 24 sub-layers, that differ in their residual connections alone. `plain` has
one stream. `mhc` has four, mixed by doubly stochastic matrices that start as the mean of all four;
those of `near` start near the identity. `free` drops the constraint: its mixing is the identity
plus what the same projections give. The gain is that of the product of all mixing matrices, the
largest over the tokens of 64 held-out poems. `keeps` is the mean weight of a stream in itself.

Writes book/data/runs/hyper.json; takes about 10 minutes of processor time.

    python experiments/hyper.py
"""

from dataclasses import replace
from itertools import product

import torch
from _record import Run, collect, parser, write
from torch import Tensor, nn

from dsnotes.after.hyper import HyperConnection, HyperHead, Mappings, gains, start_streams
from dsnotes.model.attention import use_attention
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import Pass
from dsnotes.training import growth, poems
from dsnotes.training.loop import language_step, train
from dsnotes.training.state import TrainState

LAYERS, HIDDEN, STREAMS = 12, 64, 4
CONFIG = replace(
    growth.config_of("dense"),
    hidden_size=HIDDEN,
    num_hidden_layers=LAYERS,
    first_k_dense_replace=LAYERS,
    intermediate_size=2 * HIDDEN,
    num_attention_heads=2,
)
STEPS, BATCH_SIZE, LEARNING_RATE, COOLDOWN = 160, 16, 3e-3, 0.4
LOSS_EVERY, GAIN_EVERY = 5, 20


class Free(HyperConnection):
    """Hyper-connections whose mixing may be any matrix."""

    def mappings(self, streams: Tensor) -> Mappings:
        raw = self.unconstrained(streams)
        mixing = torch.eye(self.hc_mult) + raw.res
        return Mappings(torch.sigmoid(raw.pre), 2 * torch.sigmoid(raw.post), mixing)


class Near(HyperConnection):
    """mHC that starts near the identity: a stream keeps seven eighths of itself."""

    def __init__(self, hidden_size: int, *, hc_mult: int) -> None:
        super().__init__(hidden_size, hc_mult=hc_mult)
        self.base.data[2 * hc_mult :] = 3 * torch.eye(hc_mult).flatten()


KINDS = {"plain": None, "free": Free, "mhc": HyperConnection, "near": Near}


class StreamLayer(nn.Module):
    """A decoder layer whose two residual connections are over streams; the first makes them."""

    def __init__(self, layer: nn.Module, kind: type[HyperConnection]) -> None:
        super().__init__()
        self.layer = layer
        self.attn_hc, self.ffn_hc = (kind(HIDDEN, hc_mult=STREAMS) for _ in range(2))

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        of = self.layer
        x = start_streams(x, hc_mult=STREAMS) if x.ndim == 3 else x
        x = self.attn_hc(x, lambda h: of.self_attn(of.input_layernorm(h), shared))
        return self.ffn_hc(x, lambda h: of.mlp(of.post_attention_layernorm(h)))


def build(variant: str, seed: int) -> DeepSeek:
    """The untrained model: weights that two variants share are the same."""
    torch.manual_seed(seed)
    model = use_attention(DeepSeek(CONFIG), num_key_value_heads=CONFIG.num_attention_heads)
    if kind := KINDS[variant]:
        model.model.layers = nn.ModuleList(StreamLayer(at, kind) for at in model.model.layers)
        head = HyperHead(HIDDEN, hc_mult=STREAMS)
        model.model.norm = nn.Sequential(head, model.model.norm)
    return model


@torch.no_grad()
def mixings(model: DeepSeek, tokens: Tensor) -> Tensor:
    """The mixing matrices of all sub-layers and tokens: (depth, batch, seq, n, n)."""
    found: list[Tensor] = []
    around = [m for m in model.modules() if isinstance(m, HyperConnection)]
    hooks = [
        m.register_forward_pre_hook(lambda m, given: found.append(m.mappings(given[0]).res))
        for m in around
    ]
    model(tokens)
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


def run(variant: str, seed: int) -> Run:
    """Train one model from a seed."""
    model, held_out = build(variant, seed), poems.held_out().tokens
    state = TrainState.create(
        model, steps=STEPS, learning_rate=LEARNING_RATE, cooldown=COOLDOWN, seed=seed
    )
    data = poems.batches(steps=STEPS, batch_size=BATCH_SIZE, seed=seed)
    found: Run = {"variant": variant, "seed": seed, "gain": []}
    losses = []
    for report in train(state, language_step, data, progress=False):
        losses.append(report["loss"])
        if variant != "plain" and state.step % GAIN_EVERY == 0:
            mixed = mixings(model, held_out[:64])
            by_depth = gains(mixed.double()).flatten(2).amax(dim=-1).tolist()  # (depth, 2)
            found["gain"].append([float(f"{g:.6g}") for g in by_depth[-1]])
    if variant != "plain":
        found["keeps"] = round(mixed.diagonal(dim1=-2, dim2=-1).mean().item(), 4)
        found["gain_by_depth"] = [[float(f"{g:.6g}") for g in pair] for pair in by_depth]
    found["loss"] = [round(loss, 4) for loss in losses[LOSS_EVERY - 1 :: LOSS_EVERY]]
    found["held_out"] = round(poems.character_loss(model, held_out), 4)
    return found


def main() -> None:
    arguments = parser(__file__, __doc__, seeds=range(3)).parse_args()
    jobs = [(variant, seed) for seed, variant in product(arguments.seeds, KINDS)]
    runs = list(collect(run, jobs))
    settings = {
        "layers": LAYERS,
        "hidden_size": HIDDEN,
        "streams": STREAMS,
        "steps": STEPS,
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "loss_every": LOSS_EVERY,
        "gain_every": GAIN_EVERY,
    }
    write(arguments.out, script=__file__, settings=settings, runs=runs)


if __name__ == "__main__":
    main()
