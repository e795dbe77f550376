"""The sizes of a small R1-Zero: one that a laptop runs in a minute, and a longer one for a GPU.

A `Preset` holds the sizes of the model, of the base text and of both phases of training. Nothing
else differs between the two, so `PRESETS[name]` is all that moves a run to a larger machine.
"""

from dataclasses import dataclass, replace

import torch

from dsnotes.checks.arguments import check_fields, checked
from dsnotes.checks.numeric import at_least
from dsnotes.config import Config
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl import shellgame


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Sizes of one run; `LAPTOP` takes about a minute on one CPU core, `GPU` is the longer one.

    `base_lengths[k]` is how often the base text stops thinking after k swaps.
    """

    config: Config
    swaps: int
    base_lengths: tuple[float, ...]
    base_error: float = 0.1  # of each step of the base text
    base_steps: int
    base_batch: int
    base_learning_rate: float
    rl_steps: int
    prompts: int  # problems per step of GRPO
    group_size: int = 16  # G
    rl_learning_rate: float
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_fields(self)
        at_least(1, swaps=self.swaps, prompts=self.prompts, group_size=self.group_size)
        at_least(1, base_batch=self.base_batch)
        at_least(0, base_steps=self.base_steps, rl_steps=self.rl_steps)

    @property
    def max_new_tokens(self) -> int:
        """Room for a complete thought and three tokens more."""
        return self.swaps + 8


@checked
def new_model(preset: Preset, *, seed: int) -> DeepSeek:
    """A model with random weights on the device of the preset.

    >>> sum(p.numel() for p in new_model(LAPTOP, seed=0).parameters())
    140032
    """
    torch.manual_seed(seed)
    return DeepSeek(preset.config).to(preset.device)


_SMALL = Config(
    vocab_size=shellgame.VOCAB_SIZE,
    hidden_size=64,
    num_hidden_layers=2,
    intermediate_size=128,
    first_k_dense_replace=1,
    moe_intermediate_size=48,
    n_shared_experts=1,
    n_routed_experts=8,
    num_experts_per_tok=2,
    num_attention_heads=4,
    kv_lora_rank=32,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=16,
    rope_theta=1000.0,  # a problem is 20 tokens long: slower pairs would not turn at all
    max_position_embeddings=64,
    initializer_range=0.02,
)
LAPTOP = Preset(
    config=_SMALL,
    swaps=6,
    base_lengths=(1.0,) * 7,
    base_steps=250,
    base_batch=256,
    base_learning_rate=5e-3,
    rl_steps=60,
    prompts=16,
    rl_learning_rate=1e-3,
)
GPU = replace(
    LAPTOP,
    config=replace(
        _SMALL,
        hidden_size=256,
        num_hidden_layers=4,
        intermediate_size=768,
        moe_intermediate_size=192,
        n_routed_experts=16,
        num_experts_per_tok=3,
        num_attention_heads=8,
        kv_lora_rank=128,
        qk_nope_head_dim=16,
        qk_rope_head_dim=16,
        v_head_dim=32,
    ),
    swaps=16,
    base_lengths=(1.0,) * 17,
    base_error=0.05,
    base_steps=500,
    base_batch=1024,
    base_learning_rate=1e-3,
    rl_steps=200,
    prompts=64,
    rl_learning_rate=2e-4,
    device="cuda",
)
PRESETS = {"laptop": LAPTOP, "gpu": GPU}
