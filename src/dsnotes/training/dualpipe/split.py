"""The backward pass cut in two: gradients of inputs at once, gradients of weights when asked.

For y = x W^T the backward pass has two independent products, dx = dy W and dW = dy^T x. The stage
before waits only for dx, so dW can be computed during a wait; its operands are kept until then.

Equations
    Zero Bubble (arXiv 2401.10241) §2: B, the gradient of the input, and W, that of the weights;
    V3 (arXiv 2412.19437) §3.2.1: "backward for input" and "backward for weights"

Departures
    Only the weights of linear layers are delayed, as in the released code: their products are
    nearly all of the work. Gains of norms, embeddings and so on get their gradient with the inputs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class WeightQueue:
    """The delayed weight gradients of one forward pass.

    Run the forward inside `with queue.record()`. A backward then leaves out the weights and biases
    of linear layers, and `flush` adds the missing gradients to their `.grad`. If activations are
    recomputed (torch.utils.checkpoint), use the method `backward`; any other raises RuntimeError.

        >>> layer, queue = torch.nn.Linear(3, 2), WeightQueue()
        >>> with queue.record():
        ...     y = layer(torch.ones(1, 3, requires_grad=True))
        >>> y.sum().backward()
        >>> layer.weight.grad is None
        True
        >>> queue.flush(); layer.weight.grad
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """

    def __init__(self) -> None:
        self._owed: list[Callable[[], None]] = []

    @contextmanager
    def record(self) -> Iterator[None]:
        """Linear layers that are called inside delay their weight gradients."""
        with _Intercept(self._owed):
            yield

    def backward(self, y: Tensor, grad: Tensor | None = None) -> None:
        """y.backward(grad); forwards that it recomputes delay their weight gradients too."""
        # From an edge of the graph: called with a tensor, torch would take the mode off inside.
        edge = torch.autograd.graph.get_gradient_edge(y)
        grad = torch.ones_like(y) if grad is None else grad
        with self.record():
            torch.autograd.backward(edge, grad)

    def flush(self) -> None:
        """Compute the gradients that backward has left out since the last call."""
        with torch.no_grad():  # the kept inputs still hang on their graph
            for accumulate in self._owed:
                accumulate()
        self._owed.clear()


class _Intercept(TorchFunctionMode):
    """Replaces F.linear on parameters everywhere in the model."""

    def __init__(self, owed: list[Callable[[], None]]) -> None:
        super().__init__()
        self._owed = owed

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            return self._linear(*args, **kwargs)
        return func(*args, **kwargs)

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        # A computed weight has a graph of its own behind it, which must be passed through now.
        put_off = weight.is_leaf and weight.requires_grad and weight.ndim == 2
        if not (put_off and (bias is None or bias.is_leaf)):
            return F.linear(input, weight, bias)
        # An input that needs no gradient would leave nothing to call backward on.
        if not input.requires_grad:
            input = input.detach().requires_grad_()
        b = None if bias is None else bias.detach()
        y: Tensor = _Linear.apply(input, weight.detach(), b, self._accumulator(weight, bias))
        return y

    def _accumulator(self, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor, Tensor], None]:
        def put_off(x: Tensor, grad: Tensor) -> None:
            def accumulate() -> None:
                flat = grad.reshape(-1, grad.shape[-1])
                _add_grad(weight, flat.t() @ x.reshape(-1, x.shape[-1]))
                if bias is not None and bias.requires_grad:
                    _add_grad(bias, flat.sum(0))

            self._owed.append(accumulate)

        return put_off


class _Linear(torch.autograd.Function):
    """x W^T + b; its backward returns dx and keeps x and dy for dW."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, put_off: Callable[..., None]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.put_off, ctx.place = put_off, (weight.data_ptr(), weight.stride())
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        x, weight = ctx.saved_tensors
        if (weight.data_ptr(), weight.stride()) != ctx.place:
            raise RuntimeError(
                "a linear layer was recomputed outside WeightQueue.record: use WeightQueue.backward"
            )
        ctx.put_off(x, grads[0])
        return grads[0] @ weight, None, None, None


def _add_grad(parameter: Tensor, grad: Tensor) -> None:
    parameter.grad = grad if parameter.grad is None else parameter.grad + grad
