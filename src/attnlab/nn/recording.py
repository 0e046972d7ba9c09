"""CUDA graphs: a function of tensors whose many small kernels are recorded once and launched together."""

import gc
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from attnlab.kernels import off

logger = logging.getLogger(__name__)

Function = Callable[..., tuple[Tensor, ...]]
Key = tuple[object, ...]

_MOST = 128  # recordings of one function; each holds memory


class Recorder:
    """A function of tensors on a GPU, recorded with its backward pass for each shape of its inputs, and replayed.

    Equal to calling the function, gradients included, at the processor's cost of a few kernels. A shape is recorded
    when it comes for the second time. What a recording cannot do is left to a plain call: other devices, calls without
    gradients, a forward pass before the last one's backward pass, more shapes than a limit, functions that wait for the
    device (the log says so at INFO), and ATTNLAB_KERNELS=off. Copies of a recorder, with the module that has it, are
    None.

    Args:
        function: from tensors to a tuple of tensors, doing the same for all inputs of one shape.
        module: whose parameters it reads.
    """

    def __init__(self, function: Function, module: nn.Module) -> None:
        self._function = function
        self._module = module
        self._parameters = list(module.parameters())
        self._recordings: dict[Key, _Recording | None] = {}  # None for a shape that was seen once
        self._pool: Any = None  # the recordings share their memory, for one is in use at a time
        self._pending: weakref.ReferenceType[_Turn] | None = None
        self._refused = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (_nothing, ())

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        recording = self._find(inputs) if self._serves(inputs[0]) else None
        if recording is None:
            return self._function(*inputs)
        turn = _Turn()
        self._pending = weakref.ref(turn)
        outputs: tuple[Tensor, ...] = _Replay.apply(turn, recording, *inputs, *self._parameters)  # type: ignore[no-untyped-call]
        return outputs

    def _serves(self, tensor: Tensor) -> bool:
        last = None if self._pending is None else self._pending()
        return (
            not torch.compiler.is_compiling()
            and tensor.is_cuda
            and type(tensor) is Tensor
            and torch.is_grad_enabled()
            and not self._refused
            and not off()
            and (last is None or last.done)
        )

    def _find(self, inputs: Sequence[Tensor]) -> "_Recording | None":
        key = _key(inputs, self._parameters)
        if key not in self._recordings:
            if len(self._recordings) < _MOST:
                self._recordings[key] = None
            return None
        if self._recordings[key] is None:
            try:
                self._recordings[key] = recording = _Recording(self._function, self._module, inputs, self._pool)
                self._pool = recording.pool
            except _WaitsError as error:
                logger.info("No CUDA graph is recorded: %s", error)
                self._refused = True
        return self._recordings[key]


def _nothing() -> None:
    """What a recorder is copied to."""


def _key(inputs: Sequence[Tensor], parameters: Sequence[Tensor]) -> Key:
    """What a recording depends on: shapes, types, modes of torch, and where the parameters lie."""
    autocast = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    modes = autocast, torch.backends.cuda.matmul.allow_tf32, torch.are_deterministic_algorithms_enabled()
    shapes = tuple((x.shape, x.dtype, x.device, x.requires_grad) for x in inputs)
    return shapes, modes, tuple((x.data_ptr(), x.requires_grad) for x in parameters)


class _Call(nn.Module):
    """A function as the forward pass of a module that has the one whose parameters it reads."""

    def __init__(self, function: Function, module: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.module = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.function(*inputs)


class _Turn:
    """A forward pass; lives as long as its backward pass may still come."""

    done = False


class _Recording:
    """One shape: the graphs of the forward and the backward pass, and the tensors that they read and write."""

    def __init__(self, function: Function, module: nn.Module, inputs: Sequence[Tensor], pool: Any) -> None:
        self.inputs = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
        # the parameters' own places in memory, but not their nodes in autograd's graph, which belong to another stream
        parameters = {name: x.detach().requires_grad_(x.requires_grad) for name, x in module.named_parameters()}
        leaves = (*self.inputs, *parameters.values())
        wanted = [x for x in leaves if x.requires_grad]
        given = {f"module.{name}": x for name, x in parameters.items()}
        call, autocast = _Call(function, module), torch.is_autocast_enabled("cuda")

        def forward() -> tuple[Tensor, ...]:
            # a weight that was cast before would be read where it lay then
            with torch.autocast("cuda", enabled=autocast, cache_enabled=False):
                outputs: tuple[Tensor, ...] = functional_call(call, given, tuple(self.inputs))
                return outputs

        def backward(outputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad([x for x in outputs if x.requires_grad], wanted, self.grads, allow_unused=True)

        current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for waiting in ("default", "error"):  # the first time libraries set themselves up
                with _sync_debug_mode(waiting):
                    outputs = forward()
                    self.grads = [torch.zeros_like(x) for x in outputs if x.requires_grad]
                    backward(outputs)
            del outputs
            torch.cuda.synchronize()
            with _recorded(pool) as self._forward:
                outputs = forward()
            self.pool = self._forward.pool()
            with _recorded(self.pool) as self._backward:
                found = iter(backward(outputs))
        current.wait_stream(side)
        self.outputs = [x.detach() for x in outputs]
        self.differentiable = [x.requires_grad for x in outputs]
        self.found = [next(found) if x.requires_grad else None for x in leaves]

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for own, given in zip(self.inputs, inputs, strict=False):  # then come the parameters, read where they lie
            own.copy_(given)
        self._forward.replay()
        return tuple(x.clone() for x in self.outputs)

    def backward(self, grads: Sequence[Tensor]) -> list[Tensor | None]:
        for own, given in zip(self.grads, grads, strict=True):
            own.copy_(given)
        self._backward.replay()
        return [None if x is None else x.clone() for x in self.found]


class _WaitsError(RuntimeError):
    """A function waits for the device, which cannot be recorded."""


@contextmanager
def _sync_debug_mode(mode: str) -> Iterator[None]:
    """What torch does within when it has to wait for the device; a recording that fails at it would leave torch's
    generator of random numbers out of order."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    except RuntimeError as error:
        raise _WaitsError(str(error)) from error
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _recorded(pool: Any) -> Iterator[torch.cuda.CUDAGraph]:
    """Records what is launched on this stream. `torch.cuda.graph` would empty the allocator's cache before."""
    graph = torch.cuda.CUDAGraph()
    collecting = gc.isenabled()
    gc.disable()  # what is freed meanwhile might call CUDA
    try:
        # other threads, those that load data, may call CUDA meanwhile
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            yield graph
        finally:
            graph.capture_end()
    finally:
        if collecting:
            gc.enable()


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, turn: _Turn, recording: _Recording, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.turn, ctx.recording = turn, recording
        outputs = recording.forward(inputs)
        ctx.mark_non_differentiable(*(x for x, has in zip(outputs, recording.differentiable, strict=True) if not has))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.turn.done:
            raise RuntimeError(
                "The backward pass of a recorded function came a second time, when another forward pass may have "
                "overwritten what it needs; set ATTNLAB_KERNELS=off to do without recordings."
            )
        ctx.turn.done = True
        recording: _Recording = ctx.recording
        given = [grad for grad, has in zip(grads, recording.differentiable, strict=True) if has]
        return None, None, *recording.backward(given)
