"""Loops over steps in which some tensors are the same at every step: what follows from those alone is done once."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attnlab.kernels import asked, watched

_loop: ContextVar["Loop | None"] = ContextVar("_loop", default=None)


class Fixed(ABC):
    """A function of one tensor that changes from step to step and of some that do not, with its gradients.

    It must hold none of the tensors that `Loop.step` hands to its methods: the graph that they belong to holds it.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[Tensor, Tensor]] = []  # of each step that a backward pass has left: input and gradient
        self._task = -1  # the number of that pass

    def keep(self, inputs: Tensor, grad: Tensor) -> None:
        """Notes a step that the backward pass has left."""
        task = torch._C._current_graph_task_id()
        if task != self._task:  # an earlier pass may not have come to the fixed tensors
            self._seen, self._task = [], task
        self._seen.append((inputs.detach(), grad))

    def taken(self) -> list[tuple[Tensor, Tensor]]:
        """The steps of this backward pass, which are kept no longer."""
        mine = self._task == torch._C._current_graph_task_id()
        found, self._seen, self._task = self._seen if mine else [], [], -1
        return found

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
        self._outside: list[Loop | None] = []

    def __enter__(self) -> "Loop":
        self._outside.append(_loop.get())
        _loop.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _loop.set(self._outside.pop())
        if not self._outside:
            self._known.clear()

    def step(
        self, key: tuple[Any, ...], given: Any, make: Callable[[], tuple[Fixed, tuple[Tensor, ...]]], inputs: Tensor
    ) -> Tensor:
        """A fixed function at one step.

        Args:
            key: what it is known by: the identities of the tensors in `given`, and the type that is asked for.
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
    """The loop that is run; None outside one, where no gradient is wanted, and where torch looks at every operation."""
    return _loop.get() if not watched() and torch.is_grad_enabled() else None


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
            ctx.function.keep(inputs, grad)
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
        steps = ctx.function.taken()
        if not steps:
            return None, *(None for _ in ctx.saved_tensors)
        inputs, grads = zip(*steps, strict=True)
        return None, *ctx.function.total(inputs, grads, *ctx.saved_tensors)
