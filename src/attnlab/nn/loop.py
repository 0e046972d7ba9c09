"""Linear maps inside a loop over steps, whose weight gradient is one product after the loop instead of one a step."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attnlab.kernels.products import pack, product


class LoopLinear:
    """x W^T for many x [N, I] in a row, with W [O, I] fixed meanwhile.

    Equal to `torch.nn.functional.linear` at every step, gradients included. The weight is cast under autocast, and laid
    out for the processor's products, once in each direction, and its gradient, sum_t g_t^T x_t, is computed in one
    product when the backward pass has left the loop; a product a step would be narrow, and adding it up a pass over W
    each time. It belongs to one forward and one backward pass.
    """

    def __init__(self, weight: Tensor) -> None:
        device = weight.device.type
        if torch.is_autocast_enabled(device):
            weight = weight.to(torch.get_autocast_dtype(device))
        self._fixed = _Fixed(weight)
        self._weight: Tensor = _Collect.apply(weight, self._fixed.seen)  # type: ignore[no-untyped-call]

    def __call__(self, inputs: Tensor) -> Tensor:
        out: Tensor = _Apply.apply(inputs.to(self._weight.dtype), self._weight, self._fixed)  # type: ignore[no-untyped-call]
        return out


class _Fixed:
    """What the steps of one loop share: the weight for either direction, and the inputs and gradients so far."""

    def __init__(self, weight: Tensor) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []
        self._ahead = pack(weight)
        self._back: Tensor | None = None

    # where it is not packed, (W x^T)^T, not x W^T: with the few rows of a step BLAS is up to half again as fast

    def ahead(self, inputs: Tensor, weight: Tensor) -> Tensor:
        return (weight @ inputs.t()).t() if self._ahead is None else product(inputs.contiguous(), self._ahead)

    def back(self, grad: Tensor, weight: Tensor) -> Tensor:
        if self._ahead is not None and self._back is None:
            self._back = pack(weight.t())
        return (weight.t() @ grad.t()).t() if self._back is None else product(grad.contiguous(), self._back)


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, fixed: _Fixed) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.fixed = fixed
        return fixed.ahead(inputs, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        ctx.fixed.seen.append((inputs, grad))
        return ctx.fixed.back(grad, weight), None, None


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
