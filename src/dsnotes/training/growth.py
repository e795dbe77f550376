"""One model that grows: a dense Transformer becomes a small DeepSeek, one part at a time.

Every stage has the parts of the stages before it and one more, so that two neighbours differ in
that part alone. All train on the same quatrains in the same order, with the same settings, from
weights that are the same wherever two stages share them.

Stages
    dense     multi-head attention, and one feed-forward network in each layer
    experts   all layers but the first: eight routed experts, two of them active, and a shared one
    bias      the biases of the gates follow the load (V3, arXiv 2412.19437, section 2.1.2)
    mla       latent attention in the place of multi-head attention (2.1.1)
    mtp       a module that predicts the token after the next is trained along (2.2)
    fp8       the products of the linear layers take FP8 inputs (3.3)

What is equal
    experts   an expert has a third of the width of the dense network and a token meets three: as
              many multiply-adds as before, but for the gate
    mla       as many heads, and as many channels of content in each; 16 channels more carry RoPE
    mtp, fp8  the model that answers: its sizes, and the weights that it starts from

Departures
    - V3 has a small sequence-wise loss beside the bias, sets gamma to 0 at the end and lowers the
      weight of the MTP loss: here all stay. V3's gamma, 0.001, is for a thousand times the steps.
    - One dense layer comes first, as in V2; V3 has three of 61.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import torch

from dsnotes.checks.arguments import checked
from dsnotes.config import Config
from dsnotes.model.attention import use_attention
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules
from dsnotes.training import poems
from dsnotes.training.fp8.linear import convert
from dsnotes.training.loop import language_step, train
from dsnotes.training.state import Report, TrainState

Stage = Literal["dense", "experts", "bias", "mla", "mtp", "fp8"]
STAGES: tuple[Stage, ...] = get_args(Stage)
GAMMA, MTP_WEIGHT = 0.01, 0.3
STEPS, BATCH_SIZE, LEARNING_RATE, COOLDOWN = 600, 64, 3e-3, 0.4
# what the last stage is; `config_of` takes away what an earlier one does not have
CONFIG = Config(
    vocab_size=len(poems.vocabulary()),
    hidden_size=128,
    num_hidden_layers=4,
    intermediate_size=384,
    first_k_dense_replace=1,
    moe_intermediate_size=128,
    n_shared_experts=1,
    n_routed_experts=8,
    num_experts_per_tok=2,
    num_attention_heads=4,
    q_lora_rank=None,
    kv_lora_rank=48,
    qk_nope_head_dim=32,
    qk_rope_head_dim=16,
    v_head_dim=32,
    max_position_embeddings=64,
    num_nextn_predict_layers=1,
    initializer_range=0.02,
)


@checked
def parts(stage: Stage) -> tuple[Stage, ...]:
    """What a stage has that the dense model has not, each part by the stage that added it.

    >>> parts("mla")
    ('experts', 'bias', 'mla')
    """
    return STAGES[1 : STAGES.index(stage) + 1]


@checked
def config_of(stage: Stage) -> Config:
    """The configuration of a stage. Before `mla` the fields of latent attention are not read.

    >>> config_of("experts").num_nextn_predict_layers
    0
    """
    own = parts(stage)
    return replace(
        CONFIG,
        first_k_dense_replace=1 if "experts" in own else CONFIG.num_hidden_layers,
        num_nextn_predict_layers=1 if "mtp" in own else 0,
    )


@checked
def key_value_heads(stage: Stage) -> int | None:
    """How many heads of keys and values the attention of a stage has; None for a latent one.

    >>> key_value_heads("bias"), key_value_heads("mla")
    (4, None)
    """
    return None if "mla" in parts(stage) else CONFIG.num_attention_heads


@checked
def build(stage: Stage, *, seed: int) -> DeepSeek:
    """The untrained model of a stage, prediction module and FP8 layers included.

    >>> [type(layer.mlp).__name__ for layer in build("experts", seed=0).model.layers]
    ['MLP', 'MoE', 'MoE', 'MoE']
    """
    torch.manual_seed(seed)
    model = DeepSeek(config_of(stage))
    if (heads := key_value_heads(stage)) is not None:
        use_attention(model, num_key_value_heads=heads)
    if "mtp" in parts(stage):
        add_modules(model)
    if "fp8" in parts(stage):
        convert(model)
    return model


@checked
def options(stage: Stage) -> dict[str, Any]:
    """The keywords of `language_step` for a stage.

    >>> options("experts"), options("mtp")
    ({'gamma': 0.0, 'mtp_weight': 0.0}, {'gamma': 0.01, 'mtp_weight': 0.3})
    """
    own = parts(stage)
    return {
        "gamma": GAMMA if "bias" in own else 0.0,
        "mtp_weight": MTP_WEIGHT if "mtp" in own else 0.0,
    }


@checked
def start(
    stage: Stage, *, steps: int = STEPS, seed: int, device: torch.device | str = "cpu"
) -> TrainState:
    """The beginning of a run of `steps` steps on `device`, for `training`.

    The weights are drawn on the CPU: a seed means the same ones everywhere.

    >>> start("dense", steps=60, seed=0).steps
    60
    """
    return TrainState.create(
        build(stage, seed=seed).to(device),
        steps=steps,
        learning_rate=LEARNING_RATE,
        cooldown=COOLDOWN,
        seed=seed,
    )


@checked
def training(
    state: TrainState, stage: Stage, *, seed: int, progress: bool = True
) -> Iterator[Report]:
    """Train a stage on the poems: `loop.train` with its step and its data.

    The seed orders the poems, for all stages alike.

        >>> state = start("mla", steps=2, seed=0)
        >>> [list(report) for report in training(state, "mla", seed=0, progress=False)]
        [['loss', 'load'], ['loss', 'load']]
    """
    return train(
        state,
        partial(language_step, **options(stage)),
        poems.batches(steps=state.steps, batch_size=BATCH_SIZE, seed=seed),
        description=f"{stage}, seed {seed}",
        progress=progress,
    )
