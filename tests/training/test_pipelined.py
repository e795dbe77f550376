"""pipelined: the stages are the model, and four processes train it as one does."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dsnotes.config import TINY
from dsnotes.model.attention import use_attention
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules
from dsnotes.training.dualpipe.launch import run
from dsnotes.training.dualpipe.runtime import one_process
from dsnotes.training.dualpipe.schedule import dualpipe
from dsnotes.training.loop import next_token_loss
from dsnotes.training.pipelined import cut

CONFIG = replace(TINY, num_hidden_layers=4, initializer_range=0.1)


@pytest.mark.parametrize(("num_stages", "layers"), [(1, [4]), (3, [2, 1, 1]), (4, [1, 1, 1, 1])])
@pytest.mark.parametrize("heads", [None, 4])
def test_the_stages_are_the_model(num_stages: int, layers: list[int], heads: int | None) -> None:
    model = DeepSeek(CONFIG)
    if heads is not None:
        use_attention(model, num_key_value_heads=heads)
    stages = cut(model, num_stages)
    assert sorted(len(stage.layers) for stage in stages) == sorted(layers)
    tokens = torch.randint(CONFIG.vocab_size, (2, 7))
    assert torch.equal(nn.Sequential(*stages)(tokens), model(tokens))
    ours = {id(p) for stage in stages for p in stage.parameters()}
    assert ours == {id(p) for p in model.parameters()}


def test_a_step_on_processes() -> None:
    stages = cut(DeepSeek(CONFIG), 2)
    tokens = torch.randint(CONFIG.vocab_size, (4, 3, 7))
    done = run(
        dualpipe(2, 4), stages, tokens, tokens, loss=next_token_loss, hidden_shape=(3, 7, 64)
    )
    loss, gradients = one_process(stages, tokens, tokens, loss=next_token_loss)
    assert done.loss == pytest.approx(loss, abs=1e-6)
    assert done.gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(done.gradients[name], gradient, msg=name)


def test_refusals() -> None:
    for wrong in (0, 5):
        with pytest.raises(
            ValueError, match=rf"num_stages must lie in 1 \.\. 4 layers, got {wrong}"
        ):
            cut(DeepSeek(CONFIG), wrong)
    with pytest.raises(ValueError, match="model must have no multi-token prediction modules"):
        cut(add_modules(DeepSeek(CONFIG)), 2)
