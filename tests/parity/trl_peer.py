"""TRL's GRPOTrainer without a model: a stand-in that hands out the log-probs under test.

`_compute_loss` is private; what it reads of the trainer is what `loss` sets.
"""

import warnings
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


def load(*modules: str) -> None:
    """Import TRL; its imports warn of deprecated names in their own dependencies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in ("trl.trainer.grpo_trainer", *modules):
            __import__(module)


def loss(
    log_probs: Tensor, inputs: dict[str, Tensor], *, unbiased_kl: bool = False, **settings: Any
) -> Tensor:
    """The loss of a trainer with these settings, on outputs of at most 20 tokens."""
    from trl import GRPOTrainer

    trainer = SimpleNamespace(
        **{"epsilon_low": 0.2, "epsilon_high": 0.2, "off_policy_mask_threshold": None} | settings,
        max_completion_length=20,
        current_gradient_accumulation_steps=1,
        top_entropy_quantile=1.0,
        get_off_policy_mask=GRPOTrainer.get_off_policy_mask,
        use_vllm=False,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        args=SimpleNamespace(
            use_bias_correction_kl=unbiased_kl, delta=None, steps_per_generation=1
        ),
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x
        ),
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (
            log_probs,
            torch.zeros_like(log_probs),
            None,
        ),
    )
    return GRPOTrainer._compute_loss(trainer, None, inputs)
