"""Linear maps by oneDNN."""

from contextvars import ContextVar
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.kernels import asked, off, serves
from attnlab.kernels.loops import Fixed, cast, current

_DTYPES = (torch.float32, torch.bfloat16)
_EVERY = slice(None)

Packs = dict[tuple[Any, ...], tuple[tuple[Any, ...], Any]]
"""By ids, types and the like: what has those ids, and keeps them so, and what was made of it."""

_packs: ContextVar[Packs | None] = ContextVar("_packs", default=None)


class Packing:
    """Within this context `linear` and `side_by_side` bring each weight once, not at each product, into the order and
    type in which oneDNN reads it. It may be entered again, and keeps what it has; no parameter may change meanwhile. Of
    contexts within each other the outermost one holds.

    For 64 rows and a readout's many columns that halves the time of a product; for the few of a layer it saves a tenth
    to a third.
    """

    def __init__(self) -> None:
        self._kept: Packs = {}
        self._outside: list[Packs | None] = []

    def __enter__(self) -> None:
        outside = _packs.get()
        self._outside.append(outside)
        _packs.set(self._kept if outside is None else outside)

    def __exit__(self, *_: object) -> None:
        _packs.set(self._outside.pop())


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None, columns: slice = _EVERY) -> Tensor:
    """x W^T + b, as `torch.nn.functional.linear` gives it, for inputs [..., I], weight [O, J] and bias [O].

    In single precision torch asks MKL, which takes up to twice as long as oneDNN where there are few rows, as in the
    steps of a search, and a third longer for a readout's many columns; in bfloat16 it asks oneDNN, but for the product
    alone, and adds it to a copy of the bias. So this asks oneDNN for both where torch has it and no gradient is wanted,
    or in a `Loop`; everything else is served by torch's own function, and so is autocast, but within `Packing`.

    Args:
        inputs: x, [..., I].
        weight: W, [O, J].
        bias: b, [O].
        columns: the I of the weight's J columns that are read; all by default.
    """
    loop = current()
    if loop is not None:
        given = (weight,) if bias is None else (weight, bias)
        key = "linear", asked(weight), *map(id, given), columns.start, columns.stop
        return loop.step(key, given, partial(_fix, weight, bias, columns), inputs)
    packs = kept()
    if packs is not None and _reads_packs(inputs, weight):
        dtype = asked(inputs)
        packed = _packed(packs, (weight,), dtype, columns)
        if bias is not None and bias.dtype != dtype:
            bias = _packed(packs, (bias,), dtype) if type(bias) is nn.Parameter else bias.to(dtype)
        return product(inputs.to(dtype), packed, bias)
    part = weight if columns == _EVERY else weight[:, columns]
    operands = (inputs, part) if bias is None else (inputs, part, bias)
    return product(*operands) if _is_served(*operands) else F.linear(*operands)


def side_by_side(inputs: Tensor, *layers: nn.Linear) -> Tensor:
    """Several linear maps of the same inputs [..., I], with biases, by one product, whose gradient is one too:
    [..., O_1 + O_2 + ...]."""
    packs = kept()
    weights: tuple[Tensor, ...] = tuple(layer.weight for layer in layers)
    biases: tuple[Tensor, ...] = tuple(layer.bias for layer in layers)
    if packs is not None and _reads_packs(inputs, *weights, *biases):
        dtype = asked(inputs)
        packed, bias = (_packed(packs, given, dtype) for given in (weights, biases))
        return product(inputs.to(dtype), packed, bias)
    return linear(inputs, torch.cat(weights), torch.cat(biases))


def pack(weight: Tensor) -> Tensor | None:
    """A weight [O, I] in the order in which oneDNN reads it, for `product`; None where oneDNN does not serve it."""
    served = serves(_DTYPES, weight) and weight.numel() > 0 and _multiplies(weight.dtype)
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous()) if served else None


def product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b by oneDNN, for contiguous inputs and a weight that is packed, contiguous, or the transpose of one that
    is."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return found


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight, self.bias)


def kept() -> Packs | None:
    """What `Packing` has kept so far; None outside it, and for the compiler, which does not know contexts."""
    return None if torch.compiler.is_compiling() else _packs.get()


class _FixedLinear(Fixed):
    """x W^T + b of many x in a row, with W [O, I] and, where it has one, b [O] fixed."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        # in bfloat16, and for the way back, laying it out takes longer than the steps gain
        self._packed = pack(weight) if weight.dtype == torch.float32 else None

    def ahead(self, inputs: Tensor, *fixed: Tensor) -> Tensor:
        weight, *bias = fixed
        if self._packed is None:
            return F.linear(inputs.to(weight.dtype), weight, *bias)
        return product(inputs.to(weight.dtype).contiguous(), self._packed, *bias)

    def back(self, inputs: Tensor, grad: Tensor, *fixed: Tensor) -> Tensor:
        weight = fixed[0]
        out = grad @ weight if self._packed is None else product(grad.contiguous(), weight.t())
        return out.to(inputs.dtype)

    def total(self, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], *fixed: Tensor) -> tuple[Tensor, ...]:
        rows, back = (torch.cat([part.reshape(-1, part.shape[-1]) for part in parts]) for parts in (inputs, grads))
        of_weight = back.t() @ rows.to(back.dtype)
        return (of_weight, back.sum(0))[: len(fixed)]


def _fix(weight: Tensor, bias: Tensor | None, columns: slice) -> tuple[Fixed, tuple[Tensor, ...]]:
    """The map by a weight's columns, and its tensors in the type that autocast asks for."""
    part = cast(weight if columns == _EVERY else weight[:, columns]).contiguous()
    return _FixedLinear(part), (part,) if bias is None else (part, cast(bias))


def _packed(packs: Packs, given: tuple[Tensor, ...], dtype: torch.dtype, columns: slice = _EVERY) -> Tensor:
    """Weights [O, J] one below the other, their columns packed, or biases [O] one behind the other."""
    key = (*map(id, given), dtype, columns.start, columns.stop)
    if key not in packs:
        whole = torch.cat([x.detach() for x in given]) if len(given) > 1 else given[0].detach()
        if whole.dim() == 1:
            packs[key] = given, whole.to(dtype)
        else:
            part = whole[:, columns].to(dtype).contiguous()
            packs[key] = given, torch.ops.mkldnn._reorder_linear_weight(part)
    found: Tensor = packs[key][1]
    return found


def _is_served(inputs: Tensor, weight: Tensor, *bias: Tensor) -> bool:
    given = (inputs, weight, *bias)
    return (
        serves((inputs.dtype,), *given)
        and not (torch.is_grad_enabled() and any(x.requires_grad for x in given))
        and not torch.is_autocast_enabled("cpu")
        and min(x.numel() for x in given) > 0
        and all(x.is_contiguous() for x in (inputs, *bias))
        # oneDNN takes a hundred times as long for parts of a matrix
        and (weight.is_contiguous() or weight.t().is_contiguous())
        and _multiplies(inputs.dtype)
    )


def _reads_packs(inputs: Tensor, *parameters: Tensor) -> bool:
    """Whether a product of these inputs may read packed parameters."""
    return (
        not torch.is_grad_enabled()
        and serves(_DTYPES, inputs, *parameters)
        and all(type(x) is nn.Parameter for x in parameters)  # others are made anew at each call
        and inputs.numel() > 0
        and inputs.is_contiguous()
        and _multiplies(asked(inputs))
    )


def _multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there (not every build of torch has it), may be asked, and multiplies numbers of this type."""
    return (
        torch._C._get_mkldnn_enabled()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (dtype == torch.float32 or (dtype == torch.bfloat16 and _has_bfloat16()))
        and not off()
    )


@cache
def _has_bfloat16() -> bool:
    """Whether oneDNN multiplies bfloat16 on this processor."""
    asks = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return asks is not None and bool(asks())
