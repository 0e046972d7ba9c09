"""What the steps of a search or of a decoder's loop do beside products with weights, each in one pass.

Kernels for the processor, in single precision or bfloat16. `mix`, `dots` and `lstm_cell` have first gradients in a
`Loop`; otherwise they serve where no gradient is wanted. Everything else is served by the references: other devices and
types, subclasses of tensors, the transforms of torch.func, graphs that are traced or compiled, machines without a
compiler, and ATTNLAB_KERNELS=off.
"""

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attnlab.kernels import asked, load, serves
from attnlab.kernels.loops import Fixed, cast, current

_DTYPES = (torch.float32, torch.bfloat16)
_MOST = 64  # of the largest: more of them are better found by sorting


def attend_one(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention of one query a row (Vaswani et al. 2017, equation 1), with its weights.

    Args:
        query: [N, H, 1, d].
        key: [B, H, S, d].
        value: [B, H, S, d].
        mask: bool, broadcastable to [B, H, 1, S], True at keys that may be seen; at least one in every row.
        rows: long [N], from 0, of each query its row of the B; None where they go row by row.

    Returns:
        Contexts [N, H, 1, d] and weights [N, H, 1, S], these in single precision or wider.
    """
    items, heads, queries, width = query.shape
    positions = key.shape[2]
    if not (
        _is_served(query, key, value)
        and query.dtype == key.dtype == value.dtype
        and queries == 1
        and key.shape == value.shape == (len(key), heads, positions, width)
        and key.stride() == value.stride()
        and query.stride(3) == key.stride(3) == 1
        and (mask is None or serves((torch.bool,), mask))
        and (len(key) if rows is None else len(rows)) == items
        and (rows is None or (serves((torch.int64,), rows) and rows.is_contiguous()))
        and (kernel := _kernel()) is not None
    ):
        return naive_attend_one(query, key, value, mask, rows)
    item, head, position, _ = key.stride()
    apart = (value.data_ptr() - key.data_ptr()) // key.itemsize
    keys = Keys(key.data_ptr(), None, item, head, position, None if rows is None else rows.data_ptr(), 1, 0, apart)
    seen = _Mask()
    if mask is not None:
        given = mask.expand(len(key), heads, 1, positions).stride()
        seen = _Mask(mask.data_ptr(), given[0], given[1], given[3])
    contexts = query.new_empty(items, heads, 1, width)
    weights = query.new_empty(items, heads, 1, positions, dtype=torch.float32)
    sizes = _Sizes(items, len(key), heads, positions, width, torch.get_num_threads())
    found = kernel.steps_attend(
        query.data_ptr(), query.stride(0), query.stride(1), ctypes.byref(keys), ctypes.byref(seen),
        contexts.data_ptr(), weights.data_ptr(), ctypes.byref(sizes), query.dtype == torch.bfloat16,
    )  # fmt: skip
    return (contexts, weights) if found else naive_attend_one(query, key, value, mask, rows)


def naive_attend_one(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The reference of `attend_one`."""
    if rows is not None:
        mask = mask if mask is None else mask.expand(len(key), *mask.shape[1:])[rows]
        key, value = key[rows], value[rows]
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    return weights.to(value.dtype) @ value, weights


def finds_rows(keys: Tensor) -> bool:
    """Whether the kernel serves attention to such keys, so that rows may share them."""
    return _is_served(keys) and _kernel() is not None


def mix(weights: Tensor, values: Tensor) -> Tensor:
    """The context of one query a row: weights [N, 1, S] over values [N, S, D] -> [N, 1, D], of the values' dtype."""
    loop = current()
    if loop is not None and _row_by_row(weights, values):
        key = "mix", asked(values), id(values)
        return loop.step(key, values, lambda: (_FixedRows(mixes=True), (cast(values),)), weights)
    if not (
        _is_served(weights, values)
        and weights.dtype == torch.float32
        and values.stride(-1) == 1
        and weights.shape == (len(values), 1, values.shape[1])
        and weights.is_contiguous()
        and (kernel := _kernel()) is not None
    ):
        return naive_mix(weights, values)
    rows, positions, width = values.shape
    contexts = values.new_empty(rows, 1, width)
    kernel.steps_mix(
        weights.data_ptr(), values.data_ptr(), values.stride(0), values.stride(1), contexts.data_ptr(), rows, positions,
        width, torch.get_num_threads(), values.dtype == torch.bfloat16,
    )  # fmt: skip
    return contexts


def naive_mix(weights: Tensor, values: Tensor) -> Tensor:
    """The reference of `mix`, for any queries and leading dimensions; it has gradients."""
    return weights.to(values.dtype) @ values


def dots(query: Tensor, keys: Tensor) -> Tensor:
    """The products of one query a row, [N, 1, D], and its keys [N, S, D]: [N, 1, S], by the kernel in single precision.

    They serve other numbers of queries and leading dimensions too.
    """
    loop = current()
    if loop is not None and _row_by_row(query, keys):
        key = "dots", asked(keys), id(keys)
        return loop.step(key, keys, lambda: (_FixedRows(mixes=False), (cast(keys),)), query)
    if not (
        _is_served(query, keys)
        and query.dtype == keys.dtype
        and keys.stride(-1) == 1
        and query.shape == (len(keys), 1, keys.shape[-1])
        and query.is_contiguous()
        and (kernel := _kernel()) is not None
    ):
        return naive_dots(query, keys)
    rows, positions, width = keys.shape
    found = query.new_empty(rows, 1, positions, dtype=torch.float32)
    kernel.steps_dots(
        query.data_ptr(), keys.data_ptr(), keys.stride(0), keys.stride(1), found.data_ptr(), rows, positions, width,
        torch.get_num_threads(), keys.dtype == torch.bfloat16,
    )  # fmt: skip
    return found


def naive_dots(query: Tensor, keys: Tensor) -> Tensor:
    """The reference of `dots`; it has gradients."""
    return query @ keys.transpose(-1, -2)


def _row_by_row(inputs: Tensor, matrices: Tensor) -> bool:
    return inputs.dim() == matrices.dim() == 3 and inputs.shape[:2] == (len(matrices), 1)


class _FixedRows(Fixed):
    """`mix` or `dots` of many inputs, one after the other, with the same values or keys."""

    def __init__(self, mixes: bool) -> None:
        super().__init__()
        self._mixes = mixes

    def ahead(self, inputs: Tensor, *fixed: Tensor) -> Tensor:
        return mix(inputs, *fixed) if self._mixes else dots(inputs.to(fixed[0].dtype), *fixed)

    def back(self, inputs: Tensor, grad: Tensor, *fixed: Tensor) -> Tensor:
        found = dots(grad.contiguous(), *fixed) if self._mixes else mix(grad.contiguous(), *fixed)
        return found.to(inputs.dtype)

    def total(self, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], *fixed: Tensor) -> tuple[Tensor, ...]:
        given, back = (torch.cat(parts, 1).to(fixed[0].dtype) for parts in (inputs, grads))
        return (given.mT @ back if self._mixes else back.mT @ given,)


def lstm_cell(inputs: Tensor, recurrent: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The gates of an LSTM (Hochreiter and Schmidhuber 1997, with forget gates, in torch's order).

    Args:
        inputs: what the gates get from the input, with the biases, [N, 4 H].
        recurrent: what they get from the last hidden state, [N, 4 H].
        cell: the last cell, [N, H].

    Returns:
        the hidden state and the cell, [N, H] each.
    """
    if current() is not None and _in_lstm(inputs, recurrent, cell):
        found: tuple[Tensor, Tensor] = _LSTMCell.apply(inputs, recurrent, cell)  # type: ignore[no-untyped-call]
        return found
    if not _is_served(inputs, recurrent, cell) or not _in_lstm(inputs, recurrent, cell):
        return naive_lstm_cell(inputs, recurrent, cell)
    return _lstm(inputs, recurrent, cell)


def naive_lstm_cell(inputs: Tensor, recurrent: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The reference of `lstm_cell`; it has gradients."""
    i, f, g, o = (inputs + recurrent).chunk(4, -1)
    new = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * new.tanh(), new


def _in_lstm(inputs: Tensor, recurrent: Tensor, cell: Tensor) -> bool:
    """Whether the kernel knows such gates and cells."""
    return (
        serves(_DTYPES, inputs, recurrent, cell)
        and inputs.dtype == recurrent.dtype == cell.dtype
        and inputs.is_contiguous()
        and recurrent.is_contiguous()
        and cell.stride(1) == 1
        and inputs.shape == recurrent.shape == (len(cell), 4 * cell.shape[1])
        and cell.numel() > 0
        and _kernel() is not None
    )


def _lstm(inputs: Tensor, recurrent: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    kernel = _kernel()
    assert kernel is not None
    hidden, new = (cell.new_empty(cell.shape) for _ in range(2))
    kernel.steps_lstm(
        inputs.data_ptr(), recurrent.data_ptr(), cell.data_ptr(), cell.stride(0), hidden.data_ptr(), new.data_ptr(),
        *cell.shape, torch.get_num_threads(), cell.dtype == torch.bfloat16,
    )  # fmt: skip
    return hidden, new


class _LSTMCell(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*inputs)
        return _lstm(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_hidden: Tensor, of_cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inputs, recurrent, cell = ctx.saved_tensors
        kernel = _kernel()
        assert kernel is not None
        of_hidden, of_cell = of_hidden.contiguous(), of_cell.contiguous()
        of_gates, of_before = torch.empty_like(inputs), cell.new_empty(cell.shape)
        kernel.steps_lstm_back(
            inputs.data_ptr(), recurrent.data_ptr(), cell.data_ptr(), cell.stride(0), of_hidden.data_ptr(),
            of_cell.data_ptr(), of_gates.data_ptr(), of_before.data_ptr(), *cell.shape, torch.get_num_threads(),
            cell.dtype == torch.bfloat16,
        )  # fmt: skip
        return of_gates, of_gates, of_before


def log_softmax(logits: Tensor) -> Tensor:
    """The logarithm of the softmax of logits [..., V], in single precision or wider."""
    if not (_is_served(logits) and logits.is_contiguous() and (kernel := _kernel()) is not None):
        return naive_log_softmax(logits)
    found = torch.empty_like(logits, dtype=torch.float32)
    size = logits.shape[-1]
    kernel.steps_log_softmax(
        logits.data_ptr(), found.data_ptr(), logits.numel() // size, size, torch.get_num_threads(),
        logits.dtype == torch.bfloat16,
    )  # fmt: skip
    return found


def naive_log_softmax(logits: Tensor) -> Tensor:
    """The reference of `log_softmax`; it has gradients."""
    return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def largest(offsets: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest of offsets [B, k] + values [B, k, V] for each of B, in order, and their places in [k V].

    [B, min(count, k V)] each, as `torch.topk` gives them; but NaN is none of them, and where nothing else is left they
    are -inf.
    """
    items, rows, size = values.shape
    count = min(count, rows * size)
    if not (
        _is_served(offsets, values)
        and offsets.dtype == values.dtype == torch.float32
        and offsets.is_contiguous()
        and values.is_contiguous()
        and 0 < count <= _MOST
        and (kernel := _kernel()) is not None
    ):
        return naive_largest(offsets, values, count)
    found = values.new_empty(items, count)
    places = torch.empty(items, count, dtype=torch.int64, device=values.device)
    kernel.steps_largest(
        offsets.data_ptr(), values.data_ptr(), items, rows, size, count, found.data_ptr(), places.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return found, places


def naive_largest(offsets: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The reference of `largest`."""
    sums = (offsets.unsqueeze(-1) + values).flatten(1)
    found, places = sums.topk(min(count, sums.shape[1]), 1)
    return found, places


def _is_served(*given: Tensor) -> bool:
    return (
        serves(_DTYPES, *given)
        and not (torch.is_grad_enabled() and any(x.requires_grad for x in given))
        and min(x.numel() for x in given) > 0
    )


class Keys(ctypes.Structure):
    """Keys and values, as query.h has them."""

    _fields_ = (
        ("at", ctypes.c_void_p), ("steps", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("item", "head", "position")),
        ("rows", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("down", "along", "value")),
    )  # fmt: skip


class _Mask(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("item", "head", "position")))


class _Sizes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("rows", "items", "heads", "positions", "width", "threads"))


@cache
def _kernel() -> ctypes.CDLL | None:
    library = load("steps")
    if library is not None:
        at, number = ctypes.c_void_p, ctypes.c_int64
        library.steps_attend.argtypes = [at, number, number, at, at, at, at, at, number]
        library.steps_mix.argtypes = [at, at, number, number, at, *[number] * 5]
        library.steps_dots.argtypes = library.steps_mix.argtypes
        library.steps_lstm.argtypes = [at, at, at, number, at, at, *[number] * 4]
        library.steps_log_softmax.argtypes = [at, at, *[number] * 4]
        library.steps_largest.argtypes = [at, at, *[number] * 4, at, at, number]
        library.steps_lstm_back.argtypes = [at, at, at, number, at, at, at, at, *[number] * 4]
        for name in ("attend", "mix", "dots", "lstm", "lstm_back", "log_softmax", "largest"):
            getattr(library, f"steps_{name}").restype = ctypes.c_bool if name == "attend" else None
    return library
