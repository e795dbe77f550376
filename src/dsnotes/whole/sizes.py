"""How large the models of a run are, and how long each stage trains.

Two sizes are meant for readers: `laptop`, two CPU cores and the poems of the package, and `gpu`,
one H100 and a larger file of poems; both take about half an hour. `tiny` takes seconds, learns
nothing, and is there for tests.

Departures
    - V3 (arXiv 2412.19437) warms up and decays otherwise (`training.state`), has one prediction
      module as here, and 61 layers.
    - Matrices have at most 128 rows and columns or multiples of 128, as those of V3 do: where a
      block of a scale would be cut at an edge, transformers reads blocks of other sizes.
    - Its rates of learning and weights of losses are for other sizes. Those here were tried on one
      seed and judged by the held-out poems.
"""

from dataclasses import dataclass, replace

from dsnotes.checks.arguments import check_fields
from dsnotes.checks.numeric import at_least
from dsnotes.config import Config
from dsnotes.training import growth

GAMMA, MTP_WEIGHT = growth.GAMMA, growth.MTP_WEIGHT


@dataclass(frozen=True, kw_only=True)
class Training:
    """A stage that reads poems: `steps` batches, the rate falling over the last `cooldown`."""

    steps: int
    batch_size: int
    learning_rate: float
    cooldown: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self)
        at_least(1, steps=self.steps, batch_size=self.batch_size)


@dataclass(frozen=True, kw_only=True)
class Reinforcement:
    """A stage of GRPO: in each step `group_size` poems to each of `prompts` prompts.

    `beta` weighs the KL to the model before the stage; the rate falls as in `Training`.
    """

    steps: int
    prompts: int
    group_size: int
    learning_rate: float
    cooldown: float = 0.5
    beta: float = 0.02

    def __post_init__(self) -> None:
        check_fields(self)
        at_least(1, steps=self.steps, prompts=self.prompts, group_size=self.group_size)


@dataclass(frozen=True, kw_only=True)
class Size:
    """The two models of a run and its stages; `Config.vocab_size` is set by the corpus.

    >>> SIZES["laptop"].model.n_routed_experts
    8
    """

    model: Config
    small: Config  # the student
    pretrain: Training
    cold_start: Training
    reinforce: Reinforcement
    sampled: int  # poems written for rejection sampling, of each form
    pretrain_small: Training
    distill: Training
    reinforce_small: Reinforcement
    held_out: int  # poems to measure the loss on, at most about twice as many
    judged: int  # poems written to judge a model, of each form
    timed: int  # poems written to measure speed
    save_every: int  # steps between two saves of a stage

    def __post_init__(self) -> None:
        check_fields(self)
        at_least(1, sampled=self.sampled, held_out=self.held_out)
        at_least(1, judged=self.judged, timed=self.timed)


_LAPTOP = replace(  # the model that grows through the book, with room for longer poems
    growth.CONFIG, vocab_size=1, kv_lora_rank=64, qk_rope_head_dim=32, max_position_embeddings=96
)
_GPU = replace(
    _LAPTOP,
    hidden_size=512,
    intermediate_size=1536,
    moe_intermediate_size=512,
    num_attention_heads=8,
    kv_lora_rank=96,
    qk_nope_head_dim=48,
    v_head_dim=48,
)
_TINY = replace(
    _LAPTOP,
    hidden_size=32,
    num_hidden_layers=2,
    intermediate_size=64,
    moe_intermediate_size=32,
    n_routed_experts=4,
    num_attention_heads=2,
    kv_lora_rank=16,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=8,
)


def _smaller(config: Config) -> Config:
    """A student: half as wide, two layers, no prediction module."""
    return replace(
        config,
        hidden_size=config.hidden_size // 2,
        num_hidden_layers=2,
        intermediate_size=config.intermediate_size // 2,
        moe_intermediate_size=config.moe_intermediate_size // 2,
        num_nextn_predict_layers=0,
    )


SIZES = {
    "tiny": Size(
        model=_TINY,
        small=_smaller(_TINY),
        pretrain=Training(steps=4, batch_size=8, learning_rate=1e-3),
        cold_start=Training(steps=3, batch_size=8, learning_rate=1e-3),
        reinforce=Reinforcement(steps=3, prompts=2, group_size=4, learning_rate=1e-3),
        sampled=8,
        pretrain_small=Training(steps=3, batch_size=8, learning_rate=1e-3),
        distill=Training(steps=3, batch_size=2, learning_rate=1e-3),
        reinforce_small=Reinforcement(steps=3, prompts=2, group_size=4, learning_rate=1e-3),
        held_out=2000,
        judged=4,
        timed=2,
        save_every=2,
    ),
    "laptop": Size(
        model=_LAPTOP,
        small=_smaller(_LAPTOP),
        pretrain=Training(steps=1500, batch_size=64, learning_rate=2e-3),
        cold_start=Training(steps=120, batch_size=64, learning_rate=7e-4, cooldown=1.0),
        reinforce=Reinforcement(steps=150, prompts=8, group_size=16, learning_rate=5e-4),
        sampled=1000,
        pretrain_small=Training(steps=600, batch_size=64, learning_rate=2e-3),
        distill=Training(steps=200, batch_size=64, learning_rate=7e-4, cooldown=1.0),
        reinforce_small=Reinforcement(steps=80, prompts=8, group_size=16, learning_rate=5e-4),
        held_out=2000,
        judged=128,
        timed=3,
        save_every=200,
    ),
    "gpu": Size(
        model=_GPU,
        small=_smaller(_GPU),
        pretrain=Training(steps=1600, batch_size=384, learning_rate=1.5e-3),
        cold_start=Training(steps=100, batch_size=384, learning_rate=3e-4, cooldown=1.0),
        reinforce=Reinforcement(steps=320, prompts=16, group_size=64, learning_rate=3e-4),
        sampled=4000,
        pretrain_small=Training(steps=1600, batch_size=384, learning_rate=2e-3),
        distill=Training(steps=400, batch_size=256, learning_rate=7e-4, cooldown=1.0),
        reinforce_small=Reinforcement(steps=100, prompts=16, group_size=32, learning_rate=5e-4),
        held_out=3000,
        judged=256,
        timed=3,
        save_every=500,
    ),
}
