"""Scaled dot-product attention of many short sequences."""

import ctypes
from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attnlab.kernels import by_reference, differentiate, load, serves

_DTYPES = (torch.float32, torch.bfloat16)


def dot_product_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v: Vaswani et al. 2017, equation 1.

    On the processor, in single precision or bfloat16, this is a compiled kernel. It computes in single precision, a
    head of an item at a time, and keeps no weights for the backward pass, which computes them again. Results do not
    depend on the number of threads. A gradient of a gradient is that of `naive_dot_product_attention`, at its cost.

    Everything else is served by torch's kernels, in `torch_dot_product_attention`: other devices, other types, tensors
    of which one is broadcast to another's leading dimensions, subclasses of tensors, the transforms of torch.func,
    graphs that are traced or compiled, machines without a compiler, and ATTNLAB_KERNELS=off.

    Args:
        query: [N, H, T, d].
        key: [N, H, S, d].
        value: [N, H, S, d].
        mask: bool, broadcastable to [N, H, T, S], True at keys that may be seen; at least one in every row.

    Returns:
        Contexts [N, H, T, d], in memory as [N, T, H, d].
    """
    contexts: Tensor
    if not _is_served(query, key, value, mask):
        return torch_dot_product_attention(query, key, value, mask)
    contexts = _DotProduct.apply(query, key, value, mask)  # type: ignore[no-untyped-call]
    return contexts


def torch_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same by torch's kernels; on a processor in at least single precision, for on short sequences their backward
    pass is far slower in bfloat16."""
    on_processor = query.device.type == "cpu"
    dtype = torch.promote_types(query.dtype, torch.float32) if on_processor else query.dtype
    with torch.autocast("cpu", enabled=False) if on_processor else nullcontext():
        contexts = F.scaled_dot_product_attention(query.to(dtype), key.to(dtype), value.to(dtype), mask)
    narrowed: Tensor = contexts.to(query.dtype)
    return narrowed


def naive_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same with its weights, as it is written; its gradients have gradients."""
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    contexts: Tensor = scores.softmax(-1) @ value
    return contexts


def _is_served(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    return (
        serves(_DTYPES, query, key, value)
        and (mask is None or serves((torch.bool,), mask))
        and query.dtype == key.dtype == value.dtype
        and query.dim() == 4
        and key.shape == value.shape == (*query.shape[:2], key.shape[-2], query.shape[-1])
        and min(query.numel(), key.numel()) > 0
        and _kernel() is not None
    )


class _Heads(ctypes.Structure):
    """A tensor [N, H, T, d] whose last dimension is dense."""

    _fields_ = (("at", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("item", "head", "row")))

    @classmethod
    def of(cls, *tensors: Tensor) -> "ctypes.Array[_Heads]":
        return (cls * len(tensors))(*(cls(x.data_ptr(), *x.stride()[:3]) for x in tensors))


class _Mask(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("item", "head", "row", "key")))


class _Sizes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("items", "heads", "queries", "keys", "width", "threads"))


@cache
def _kernel() -> ctypes.CDLL | None:
    library = load("dot_product")
    if library is not None:
        for function in (library.dot_product_forward, library.dot_product_backward):
            function.restype = None
    return library


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _rest(query: Tensor, key: Tensor, mask: Tensor | None) -> tuple[Any, ...]:
    """The arguments of the kernel behind the tensors: mask, sizes and type."""
    items, heads, queries, width = query.shape
    keys = key.shape[2]
    seen = _Mask()
    if mask is not None:
        seen = _Mask(mask.data_ptr(), *mask.expand(items, heads, queries, keys).stride())
    sizes = _Sizes(items, heads, queries, keys, width, torch.get_num_threads())
    return ctypes.byref(seen), ctypes.byref(sizes), ctypes.c_bool(query.dtype == torch.bfloat16)


class _DotProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        kernel = _kernel()
        assert kernel is not None
        ctx.save_for_backward(query, key, value, mask)
        items, heads, queries, width = query.shape
        contexts = query.new_empty(items, queries, heads, width).transpose(1, 2)
        tensors = [_dense(x) for x in (query, key, value)]
        kernel.dot_product_forward(_Heads.of(*tensors), _Heads.of(contexts), *_rest(query, key, mask))
        return contexts

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask = ctx.saved_tensors
        if by_reference(grad):
            wanted = ctx.needs_input_grad[:3]
            return *differentiate(
                partial(naive_dot_product_attention, mask=mask), (query, key, value), wanted, grad
            ), None
        kernel = _kernel()
        assert kernel is not None
        items, heads, queries, width = query.shape
        keys = key.shape[2]
        if queries == keys:  # side by side, as the parts of one projection (see `chunk`)
            of_query, of_key, of_value = query.new_empty(items, keys, 3, heads, width).permute(2, 0, 3, 1, 4)
        else:
            of_query = query.new_empty(items, queries, heads, width).transpose(1, 2)
            of_key, of_value = key.new_empty(items, keys, 2, heads, width).permute(2, 0, 3, 1, 4)
        tensors, grad = [_dense(x) for x in (query, key, value)], _dense(grad)
        kernel.dot_product_backward(
            _Heads.of(*tensors), _Heads.of(grad), _Heads.of(of_query, of_key, of_value),
            *_rest(query, key, mask),
        )  # fmt: skip
        return of_query, of_key, of_value, None


def chunk(projection: Tensor, count: int) -> tuple[Tensor, ...]:
    """The parts [..., D] of a projection [..., count D]; where their gradients lie side by side, as the kernel leaves
    them, its own is made of them without a copy."""
    if serves(_DTYPES, projection):
        parts: tuple[Tensor, ...] = _Chunk.apply(projection, count)  # type: ignore[no-untyped-call]
        return parts
    return projection.chunk(count, -1)


class _Chunk(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projection: Tensor, count: int) -> tuple[Tensor, ...]:
        return projection.chunk(count, -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        first, width = grads[0], grads[0].shape[-1]
        beside = not by_reference(first) and all(
            grad.stride() == first.stride()
            and grad.stride(-1) == 1
            and grad.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
            and grad.storage_offset() == first.storage_offset() + number * width
            for number, grad in enumerate(grads)
        )
        if beside:
            return first.as_strided((*first.shape[:-1], len(grads) * width), first.stride()), None
        return torch.cat(grads, -1), None
