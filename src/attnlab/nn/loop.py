"""Linear maps inside a loop over steps, whose weight gradient is one product after the loop instead of one a step."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class LoopLinear:
    """x W^T for many x [N, I] in a row, with W [O, I] fixed meanwhile.

    Equal to `torch.nn.functional.linear` at every step, gradients included. The weight is cast once under autocast, and
    its gradient, sum_t g_t^T x_t, is computed in one product when the backward pass has left the loop; a product a step
    would be narrow, and adding it up a pass over W each time. It belongs to one forward and one backward pass.
    """

    def __init__(self, weight: Tensor) -> None:
        device = weight.device.type
        if torch.is_autocast_enabled(device):
            weight = weight.to(torch.get_autocast_dtype(device))
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._weight: Tensor = _Collect.apply(weight, self._seen)  # type: ignore[no-untyped-call]

    def __call__(self, inputs: Tensor) -> Tensor:
        out: Tensor = _Apply.apply(inputs.to(self._weight.dtype), self._weight, self._seen)  # type: ignore[no-untyped-call]
        return out


class _Apply(torch.autograd.Function):
    # (W x^T)^T, not x W^T: with the few rows of a step BLAS is up to half again as fast

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, seen: list[tuple[Tensor, Tensor]]) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.seen = seen
        return (weight @ inputs.t()).t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        ctx.seen.append((inputs, grad))
        return (weight.t() @ grad.t()).t(), None, None


class _Collect(torch.autograd.Function):
    """The identity on the weight; autograd comes back to it when every step has been."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, seen: list[tuple[Tensor, Tensor]]) -> Tensor:
        ctx.seen = seen
        ctx.set_materialize_grads(False)
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:
        if not ctx.seen:
            return grad, None
        inputs, grads = (torch.cat(parts) for parts in zip(*ctx.seen, strict=True))
        ctx.seen.clear()
        return grads.t() @ inputs, None
