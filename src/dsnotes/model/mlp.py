"""SwiGLU: the feed-forward network of a dense layer, of an expert and of the shared experts.

Two projections of the input are multiplied, one of them after SiLU, and a third brings the product
back to the width of the model.

Equation
    Shazeer (arXiv 2002.05202) (6): FFN(x) = (Swish(x W) * x V) W_2. The released names are
        gate_proj (W), up_proj (V) and down_proj (W_2)

Departure: autograd keeps every factor of the product. V3 (arXiv 2412.19437 §3.3.3) keeps the two
    inputs of SwiGLU and computes its output again in the backward pass.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, channels


class MLP(nn.Module):
    """SwiGLU feed-forward network: down(silu(gate(x)) * up(x)).

    >>> MLP(64, 32)(torch.randn(5, 64)).shape
    torch.Size([5, 64])
    """

    @checked
    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        at_least(1, hidden_size=hidden_size, intermediate_size=intermediate_size)
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    @checked
    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        """Map (..., hidden_size) to the same shape; raises ValueError for another last size."""
        channels(self.gate_proj.in_features, x=x)
        y: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return y
