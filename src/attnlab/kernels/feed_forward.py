"""The feed-forward layer of a block, with its hidden layer in the cache."""

import ctypes
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attnlab.kernels import by_reference, differentiate, load, serves
from attnlab.kernels.dropout import Kept
from attnlab.kernels.products import linear

_LEAST = 400  # rows below which the reference is faster
_LANES = 16  # of which the widths are multiples
_ROWS = 96  # that the kernel takes at a time


def feed_forward(
    inputs: Tensor, first: Tensor, first_bias: Tensor, second: Tensor, second_bias: Tensor, kept: Kept | None = None
) -> Tensor:
    """drop(gelu(x W_1^T + b_1)) W_2^T + b_2: Vaswani et al. 2017, section 3.3, with the exact GELU of Hendrycks and
    Gimpel 2016.

    On the processor and in single precision this is a compiled kernel that goes through the layer some rows at a time.
    It keeps the hidden layer before its activation for the backward pass, and nothing else of its size. Gradients of
    the weights are sums over shares of the rows, one a thread. A gradient of a gradient is that of the reference, at
    the reference's cost.

    Everything else is served by the reference, `naive_feed_forward`: other devices and types, autocast, widths that 16
    does not divide, so few rows that it is faster, subclasses of tensors, the transforms of torch.func, graphs that are
    traced or compiled, machines without a compiler, and ATTNLAB_KERNELS=off.

    Args:
        inputs: x, [..., D].
        first: W_1, [H, D].
        first_bias: b_1, [H].
        second: W_2, [D, H].
        second_bias: b_2, [D].
        kept: what dropout keeps of the hidden layer [..., H]; None for all.

    Returns:
        Outputs [..., D].
    """
    outputs: Tensor
    given = (inputs, first, first_bias, second, second_bias)
    if not _is_served(*given):
        return naive_feed_forward(*given, kept)
    outputs = _FeedForward.apply(*given, kept)  # type: ignore[no-untyped-call]
    return outputs


def naive_feed_forward(
    inputs: Tensor, first: Tensor, first_bias: Tensor, second: Tensor, second_bias: Tensor, kept: Kept | None = None
) -> Tensor:
    """The reference of `feed_forward`, operation by operation."""
    hidden = F.gelu(linear(inputs, first, first_bias))
    return linear(hidden if kept is None else kept.apply(hidden), second, second_bias)


def _is_served(*given: Tensor) -> bool:
    inputs, first = given[:2]
    return (
        serves((torch.float32,), *given)
        and not torch.is_autocast_enabled("cpu")
        and all(size % _LANES == 0 for size in first.shape)
        and inputs.shape[-1] == first.shape[1]
        and inputs.numel() >= _LEAST * inputs.shape[-1] > 0
        and _kernel() is not None
    )


class _Kept(ctypes.Structure):
    _fields_ = (("bits", ctypes.c_void_p), ("threshold", ctypes.c_int64), ("scale", ctypes.c_float))


class _Sizes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("rows", "width", "hidden", "threads"))


@cache
def _kernel() -> ctypes.CDLL | None:
    library = load("feed_forward")
    if library is not None:
        library.feed_forward.argtypes = [ctypes.c_void_p] * 9
        library.feed_forward_backward.argtypes = [ctypes.c_void_p] * 12 + [ctypes.c_int64]
        for function in (library.feed_forward, library.feed_forward_backward):
            function.restype = None
    return library


def _rest(rows: Tensor, hidden: int, kept: Kept | None) -> tuple[Any, ...]:
    """The arguments of the kernel behind the tensors: dropout and sizes."""
    dropout = _Kept(None, 0, 1.0) if kept is None else _Kept(kept.bits.data_ptr(), kept.threshold, kept.scale)
    return ctypes.byref(dropout), ctypes.byref(_Sizes(*rows.shape, hidden, torch.get_num_threads()))


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        kernel = _kernel()
        assert kernel is not None
        *tensors, kept = given
        inputs, first, first_bias, second, second_bias = (x.contiguous() for x in tensors)
        rows = inputs.view(-1, inputs.shape[-1])
        reached, outputs = rows.new_empty(len(rows), len(first)), torch.empty_like(inputs)
        first, second = first.t().contiguous(), second.t().contiguous()
        passed = (rows, first, first_bias, second, second_bias, reached, outputs)
        kernel.feed_forward(*(x.data_ptr() for x in passed), *_rest(rows, reached.shape[1], kept))
        ctx.save_for_backward(*tensors, reached, None if kept is None else kept.bits)
        ctx.threshold = None if kept is None else kept.threshold
        return outputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, reached, bits = ctx.saved_tensors
        kept = None if bits is None else Kept(bits, ctx.threshold)
        if by_reference(grad):
            wanted = ctx.needs_input_grad[:5]
            return *differentiate(partial(naive_feed_forward, kept=kept), tensors, wanted, grad), None
        kernel = _kernel()
        assert kernel is not None
        inputs, first, first_bias, second, second_bias = (x.contiguous() for x in tensors)
        rows, grad = inputs.view(-1, inputs.shape[-1]), grad.contiguous()
        shares = min(torch.get_num_threads(), -(-len(rows) // _ROWS))
        of_inputs = torch.empty_like(inputs)
        sums = [x.new_empty(shares, *x.shape) for x in (first, first_bias, second, second_bias)]
        passed = (rows, reached, grad, first, second, of_inputs, *sums)
        kernel.feed_forward_backward(*(x.data_ptr() for x in passed), *_rest(rows, reached.shape[1], kept), shares)
        return of_inputs, *(x.sum(0) for x in sums), None
