"""A model cut into stages: modules that map one tensor to one, as a pipeline runs them.

The first stage takes tokens and returns hidden states, the last one returns logits; one after the
other they are the model. `dsnotes.training.dualpipe` runs them on as many processes.

Departures
    Prediction modules have no stage: they read the embedding, at the other end of the pipeline. V3
    (arXiv 2412.19437) section 3.2.3 keeps embedding and head on one rank for that reason.
"""

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import Pass
from dsnotes.model.rope import rope_rotation


class PipelineStage(nn.Module):
    """Layers `first` to `last` - 1 of a model, with the embedding or the head at its ends.

    The modules are the model's own: one set of weights.

        >>> PipelineStage(model, 0, 2)(tokens).shape
        torch.Size([2, 16, 64])
    """

    @checked
    def __init__(self, model: DeepSeek, first: int, last: int) -> None:
        super().__init__()
        self.frequencies = model.model.frequencies
        self.embed_tokens = model.model.embed_tokens if first == 0 else None
        self.layers = model.model.layers[first:last]
        is_last = last == model.config.num_hidden_layers
        self.norm = model.model.norm if is_last else None
        self.lm_head = model.lm_head if is_last else None

    @checked
    def forward(
        self, x: Integer[Tensor, "batch seq"] | Float[Tensor, "batch seq hidden"]
    ) -> Float[Tensor, "batch seq channels"]:
        """Hidden states of the layers, or logits after the last."""
        if self.embed_tokens is not None:
            x = self.embed_tokens(x)  # (batch, seq, hidden)
        positions = torch.arange(x.shape[1], device=x.device)
        shared = Pass(rope_rotation(positions, self.frequencies, dtype=x.dtype))
        for layer in self.layers:
            x = layer(x, shared)
        if self.norm is not None and self.lm_head is not None:
            x = self.lm_head(self.norm(x))  # (batch, seq, vocab)
        return x


@checked
def cut(model: DeepSeek, num_stages: int) -> list[PipelineStage]:
    """The model as `num_stages` stages; their numbers of layers differ by one at most.

    ValueError for more stages than layers, and for a model with multi-token prediction modules.

        >>> torch.equal(nn.Sequential(*cut(model, 3))(tokens), model(tokens))
        True
    """
    layers = model.config.num_hidden_layers
    if not 1 <= num_stages <= layers:
        raise ValueError(f"num_stages must lie in 1 .. {layers} layers, got {num_stages}")
    if len(model.model.layers) > layers:
        raise ValueError("model must have no multi-token prediction modules: no stage is theirs")
    ends = [-(-i * layers // num_stages) for i in range(num_stages + 1)]
    return [PipelineStage(model, *ends[i : i + 2]) for i in range(num_stages)]
