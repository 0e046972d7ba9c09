"""Loops over steps in which some tensors are the same at every step: what follows from those alone is done once."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attnlab.kernels import asked

_loop: ContextVar["Loop | None"] = ContextVar("_loop", default=None)


class Fixed(ABC):
    """A function of one tensor that changes from step to step and of some that do not, with its gradients.

    It must hold none of the tensors that `Loop.step` hands to its methods: the graph that they belong to holds it.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []  # of each step that the backward pass has left: input and gradient

    @abstractmethod
    def ahead(self, inputs: Tensor, *fixed: Tensor) -> Tensor:
        """The function at one step."""

    @abstractmethod
    def back(self, inputs: Tensor, grad: Tensor, *fixed: Tensor) -> Tensor:
        """The gradient for a step's input."""

    @abstractmethod
    def total(self, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], *fixed: Tensor) -> tuple[Tensor, ...]:
        """The gradients for the fixed tensors, of all steps together."""


class Loop:
    """Within this context, where gradients are wanted, functions of this package that get the same weights, keys or
    values at every step lay them out once, and compute their gradient once, when the backward pass has left the loop:
    that of one step is a narrow product, and a pass over the whole gradient to add it up.

    It equals the plain functions, first gradients included; those of gradients are refused. It belongs to one forward
    and one backward pass, and the tensors must not change meanwhile.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Any, Fixed, tuple[Tensor, ...]]] = {}
        self._outside: Loop | None = None

    def __enter__(self) -> "Loop":
        self._outside = _loop.get()
        _loop.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _loop.set(self._outside)
        self._known.clear()

    def step(
        self, key: tuple[Any, ...], given: Any, make: Callable[[], tuple[Fixed, tuple[Tensor, ...]]], inputs: Tensor
    ) -> Tensor:
        """A fixed function at one step.

        Args:
            key: what it is known by, made of the identities of the tensors in `given`.
            given: those, kept so that their identities stay theirs.
            make: the function and its fixed tensors, where it is not known yet.
            inputs: what changes.
        """
        if key not in self._known:
            function, tensors = make()
            self._known[key] = given, function, _Collect.apply(function, *tensors)  # type: ignore[no-untyped-call]
        _, function, tensors = self._known[key]
        out: Tensor = _Step.apply(function, inputs, *tensors)  # type: ignore[no-untyped-call]
        return out


def current() -> Loop | None:
    """The loop that is run; None outside one, where no gradient is wanted, and where custom gradients are not known: in
    the transforms of torch.func and for the compiler."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
        return None
    return _loop.get()


def cast(tensor: Tensor) -> Tensor:
    """A tensor in the type that autocast asks for."""
    return tensor.to(asked(tensor))


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Fixed, inputs: Tensor, *fixed: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, *fixed)
        ctx.function = function
        return function.ahead(inputs, *fixed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, *fixed = ctx.saved_tensors
        _, wanted, *collected = ctx.needs_input_grad
        if any(collected):
            ctx.function.seen.append((inputs, grad))
        return None, ctx.function.back(inputs, grad, *fixed) if wanted else None, *(None for _ in fixed)


class _Collect(torch.autograd.Function):
    """The identity on the fixed tensors; autograd comes back to it when every step has been."""

    @staticmethod
    def forward(ctx: Any, function: Fixed, *fixed: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*fixed)
        ctx.function = function
        ctx.set_materialize_grads(False)
        return tuple(x.view_as(x) for x in fixed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *_: None) -> tuple[Tensor | None, ...]:
        seen = ctx.function.seen
        if not seen:
            return None, *(None for _ in ctx.saved_tensors)
        inputs, grads = zip(*seen, strict=True)
        seen.clear()
        return None, *ctx.function.total(inputs, grads, *ctx.saved_tensors)
