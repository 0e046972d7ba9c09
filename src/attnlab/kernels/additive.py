"""Scores of additive attention without their hidden layer in memory."""

import ctypes
import logging
import math
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.kernels import by_reference, differentiate, load, off, serves
from attnlab.kernels.loops import Fixed, current

logger = logging.getLogger(__name__)

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_LEAST = 2**14  # cells of the hidden layer below which the reference is faster


def additive_scores(query: Tensor, key: Tensor, energy: Tensor) -> Tensor:
    """e_ts = v^T tanh(q_t + k_s): Bahdanau, Cho and Bengio 2015, appendix A.1.2, with W s and U h + b already taken.

    In single precision or less this is a compiled kernel, in C++ on the processor and in Triton on a GPU. It computes
    in single precision, takes the exponentials in tanh(q + k) = 1 - 2 / (1 + e^2q e^2k) once a query and once a key
    (on a GPU once for every few queries), and computes the hidden layer [..., T, S, A] again in the backward pass
    instead of keeping it: forward and backward allocate O((T + S) A + T S) for each leading index, where leading
    dimensions that broadcast are written out. Results do not depend on the number of threads. A gradient of a gradient
    is that of the reference, at the reference's cost.

    Everything else is served by the reference, `naive_additive_scores`: double precision, subclasses of tensors, the
    transforms of torch.func, graphs that are traced or compiled, hidden layers so small that it is faster, other
    devices, machines without a compiler or GPUs without Triton, and ATTNLAB_KERNELS=off.

    There is no mask: the normalizers alone know masks, and what they hide has a score like any other.

    Args:
        query: q, [..., T, A].
        key: k, [..., S, A]; the leading dimensions of both broadcast.
        energy: v, [A].

    Returns:
        Scores [..., T, S] in float32 or wider.
    """
    scores: Tensor
    if not _is_served(query, key, energy):
        scores = naive_additive_scores(query, key, energy)
        return scores.to(torch.promote_types(scores.dtype, torch.float32))
    if query.shape[:-2] != key.shape[:-2]:
        leading = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])  # type: ignore[no-untyped-call]
        query, key = query.expand(*leading, -1, -1), key.expand(*leading, -1, -1)
    loop = current()
    if loop is not None:
        # the energy may be made anew at each step, as a view of the same parameter
        name = "additive", id(key), energy.data_ptr(), energy.stride(), energy.requires_grad
        return loop.step(name, (key, energy), lambda: (_FixedKeys(), (key.float(), energy.float())), query.float())
    scores = _AdditiveScores.apply(query.float(), key.float(), energy.float())  # type: ignore[no-untyped-call]
    return scores


def naive_additive_scores(query: Tensor, key: Tensor, energy: Tensor) -> Tensor:
    """The reference of `additive_scores`: the equation as it is written, for any tensors of one dtype."""
    hidden = torch.tanh(query.unsqueeze(-2) + key.unsqueeze(-3))  # [..., T, S, A]
    return nn.functional.linear(hidden, energy.unsqueeze(0)).squeeze(-1)


def _is_served(query: Tensor, key: Tensor, energy: Tensor) -> bool:
    """Whether a kernel does the work."""
    device = query.device.type
    return (
        device in ("cpu", "cuda")
        and serves(_DTYPES, query, key, energy, device=device)
        and max(query.numel() * key.shape[-2], key.numel() * query.shape[-2]) >= _LEAST
        and query.shape[-1] == key.shape[-1] == energy.shape[-1]
        and (_kernel() if device == "cpu" else _device_kernel(query.shape[-1])) is not None
    )


@cache
def _kernel() -> ctypes.CDLL | None:
    library = load("additive")
    if library is not None:
        tensors = {"forward": 4, "backward": 7, "prepare": 3, "forward_ready": 6, "backward_ready": 7}
        for name, count in tensors.items():
            function = getattr(library, f"additive_{name}")
            function.argtypes = [ctypes.c_void_p] * count + [ctypes.c_int64] * 5
            function.restype = None
    return library


def _compiled() -> ctypes.CDLL:
    kernel = _kernel()
    assert kernel is not None
    return kernel


def _device_kernel(width: int) -> ModuleType | None:
    """The kernel for GPUs, where it can hold rows of this width."""
    kernel = None if off() else _triton_kernel()
    return kernel if kernel is not None and width <= kernel.WIDEST else None


@cache
def _triton_kernel() -> ModuleType | None:
    try:
        return import_module("attnlab.kernels.additive_triton")
    except ImportError as error:
        logger.info("No kernel additive for GPUs, the reference is used: %s", error)
        return None


def _run(function: Callable[..., None], tensors: tuple[Tensor, ...], query: Tensor, key: Tensor) -> None:
    """Calls a function of the processor's kernel with contiguous tensors and its sizes: items, T, S, A and threads."""
    *leading, queries, width = query.shape
    sizes = math.prod(leading), queries, key.shape[-2], width, torch.get_num_threads()
    function(*(x.data_ptr() for x in tensors), *sizes)


class _AdditiveScores(torch.autograd.Function):
    """Of float32 [..., T, A], [..., S, A] and [A] to [..., T, S], without broadcasting."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return _forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if by_reference(grad):
            return differentiate(naive_additive_scores, inputs, ctx.needs_input_grad, grad)
        return _backward(*inputs, grad)


class _FixedKeys(Fixed):
    """The same of the queries that come one after the other, with keys and energy fixed."""

    def __init__(self) -> None:
        super().__init__()
        self._ready: tuple[Tensor, ...] | None = None  # what the processor's kernel makes of the keys

    def ahead(self, inputs: Tensor, *fixed: Tensor) -> Tensor:
        if inputs.is_cuda:
            return _forward(inputs, *fixed)
        query, key, energy = (x.contiguous() for x in (inputs, *fixed))
        scores = query.new_empty(*query.shape[:-1], key.shape[-2])
        _run(_compiled().additive_forward_ready, (query, key, *self._prepared(key), energy, scores), query, key)
        return scores

    def back(self, inputs: Tensor, grad: Tensor, *fixed: Tensor) -> Tensor:
        query, key, energy, grad = (x.contiguous() for x in (inputs, *fixed, grad))
        if query.is_cuda:
            on_device: Tensor = _on_device("backward_query", query, key, energy, grad)
            return on_device.view_as(query)
        found = torch.empty_like(query)
        _run(_compiled().additive_backward_ready, (query, key, *self._prepared(key), energy, grad, found), query, key)
        return found

    def total(self, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], *fixed: Tensor) -> tuple[Tensor, ...]:
        return _backward(torch.cat(inputs, -2), *fixed, torch.cat(grads, -2))[1:]

    def _prepared(self, key: Tensor) -> tuple[Tensor, ...]:
        if self._ready is None:
            self._ready = torch.empty_like(key), key.new_empty(key.shape[:-2])
            _run(_compiled().additive_prepare, (key, *self._ready), key, key)
        return self._ready


def _forward(*inputs: Tensor) -> Tensor:
    query, key, energy = (x.contiguous() for x in inputs)
    if query.is_cuda:
        on_device: Tensor = _on_device("forward", query, key, energy)
        return on_device.view(*query.shape[:-1], key.shape[-2])
    scores = query.new_empty(*query.shape[:-1], key.shape[-2])
    _run(_compiled().additive_forward, (query, key, energy, scores), query, key)
    return scores


def _backward(*inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients for query, key and energy, from those and the scores' gradient."""
    query, key, energy, grad = (x.contiguous() for x in inputs)
    if query.is_cuda:
        of_query, of_key, of_energy = _on_device("backward", query, key, energy, grad)
        return of_query.view_as(query), of_key.view_as(key), of_energy
    of_query, of_key = torch.empty_like(query), torch.empty_like(key)
    of_energy = query.new_empty(math.prod(query.shape[:-2]), query.shape[-1])  # of each item
    _run(_compiled().additive_backward, (query, key, energy, grad, of_query, of_key, of_energy), query, key)
    return of_query, of_key, of_energy.sum(0)


def _on_device(name: str, query: Tensor, key: Tensor, energy: Tensor, *grad: Tensor) -> Any:
    """Calls a function of the GPU's kernel, whose tensors have one leading dimension, on the tensors' own device."""
    items = math.prod(query.shape[:-2])
    one = (x.view(items, *x.shape[-2:]) for x in (query, key))
    with torch.cuda.device(query.device):
        return getattr(_triton_kernel(), name)(*one, energy, *(x.view(items, *x.shape[-2:]) for x in grad))
