"""A step of a Transformer's decoder block in a search, in two halves, between which the source is attended to.

Kernels for the processor within `Packing`, in single precision, or in bfloat16 under autocast where there are
instructions for it. They take some rows at a time through all of a half, so that what lies between its products stays
in the cache. Everything else is served by the references: other devices and types, gradients, widths that whole panels
of weights do not fill, the transforms of torch.func, graphs that are traced or compiled, machines without a compiler,
and ATTNLAB_KERNELS=off.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.kernels import asked, load, serves
from attnlab.kernels.products import kept, linear, side_by_side
from attnlab.kernels.steps import Keys, naive_attend_one


class Own(NamedTuple):
    """The layers of the first half, of width D.

    Attributes:
        before: the norm before the self-attention.
        projections: to queries [D], and keys and values [2 D].
        out: behind it.
        heads: of it.
        behind: the norm before the attention to the source.
        query: to what the source is asked.
    """

    before: nn.LayerNorm
    projections: tuple[nn.Linear, nn.Linear]
    out: nn.Linear
    heads: int
    behind: nn.LayerNorm
    query: nn.Linear


class Feed(NamedTuple):
    """The layers of the second half.

    Attributes:
        out: behind the attention to the source.
        norm: the norm before the feed-forward layer.
        first: its first map, to gelu.
        second: its second map.
    """

    out: nn.Linear
    norm: nn.LayerNorm
    first: nn.Linear
    second: nn.Linear


def reads_in_place(tokens: Tensor, layers: Own) -> bool:
    """Whether the kernel serves a search with tokens [N, D] like these: where it does not, a past that is gathered
    anew at each step costs more than one that is carried along."""
    return _is_served(tokens, layers.out)


def own_half(tokens: Tensor, past: Sequence[Tensor], ancestors: Tensor, layers: Own) -> tuple[Tensor, Tensor, Tensor]:
    """Soft scaled dot-product self-attention to all steps so far, and what the source is asked then.

    From step to step rows leave, are copied and change places. Nothing of what they were is moved: each row says in
    which row of every step its own past lies.

    Args:
        tokens: x, [N, D].
        past: of each step before this one queries, keys and values side by side, [N_t, 3 D].
        ancestors: long [N, T], of each row its row in every step, this one included.
        layers: the half's layers.

    Returns:
        x + out(attend(before(x))) [N, D]; query(behind(of that)) [N, D]; and this step's queries, keys and values.
    """
    # of the past the last step's alone is looked at, which looked at the one before
    if not (_is_served(tokens, layers.out, *past[-1:]) and serves((torch.int64,), ancestors)):
        return naive_own_half(tokens, past, ancestors, layers)
    kernel, dtype = _kernel(), asked(tokens)
    assert kernel is not None
    rows, width = tokens.shape
    added = torch.empty_like(tokens)
    projected, queries = (tokens.new_empty(rows, size, dtype=dtype) for size in (3 * width, width))
    steps = [*past, projected]
    places = (ctypes.c_void_p * len(steps))(*(step.data_ptr() + width * step.itemsize for step in steps))
    each = width // layers.heads
    keys = Keys(
        None, ctypes.cast(places, ctypes.c_void_p), 3 * width, each, 0, ancestors.data_ptr(), *ancestors.stride(), width
    )
    given = _struct(dtype, layers)
    given.rows, given.positions, given.threads = rows, len(steps), torch.get_num_threads()
    kernel.block_own(
        tokens.data_ptr(), ctypes.byref(given), ctypes.byref(keys), added.data_ptr(), projected.data_ptr(),
        queries.data_ptr(), dtype == torch.bfloat16,
    )  # fmt: skip
    return added, queries, projected


def naive_own_half(
    tokens: Tensor, past: Sequence[Tensor], ancestors: Tensor, layers: Own
) -> tuple[Tensor, Tensor, Tensor]:
    """The reference of `own_half`, operation by operation."""
    projected = side_by_side(layers.before(tokens), *layers.projections)
    steps = zip((*past, projected), ancestors.unbind(1), strict=True)
    whole = torch.stack([step[rows] for step, rows in steps], 1)  # [N, T, 3 D]
    each = tokens.shape[1] // layers.heads
    query, key, value = whole.view(*whole.shape[:2], 3, layers.heads, each).permute(2, 0, 3, 1, 4)  # [N, H, T, D / H]
    contexts, _ = naive_attend_one(query[:, :, -1:], key, value)
    added = tokens + linear(contexts.flatten(1), layers.out.weight, layers.out.bias)
    return added, linear(layers.behind(added), layers.query.weight, layers.query.bias), projected


def feeds_in_place(tokens: Tensor, contexts: Tensor, layers: Feed) -> bool:
    """Whether the kernel serves `feed_half`."""
    return _is_served(tokens, layers.first, contexts) and layers.out.in_features == tokens.shape[-1]


def feed_half(tokens: Tensor, contexts: Tensor, layers: Feed) -> Tensor:
    """x' + second(gelu(first(norm(x')))) with x' = x + out(c), for tokens x [..., D] and contexts c [..., D]."""
    if not feeds_in_place(tokens, contexts, layers):
        return naive_feed_half(tokens, contexts, layers)
    kernel, dtype = _kernel(), contexts.dtype
    assert kernel is not None
    added = torch.empty_like(tokens)
    given = _struct(dtype, layers)
    given.rows, given.threads = tokens.numel() // tokens.shape[-1], torch.get_num_threads()
    kernel.block_feed(
        tokens.data_ptr(), contexts.data_ptr(), ctypes.byref(given), added.data_ptr(), dtype == torch.bfloat16
    )
    return added


def naive_feed_half(tokens: Tensor, contexts: Tensor, layers: Feed) -> Tensor:
    """The reference of `feed_half`, operation by operation."""
    tokens = tokens + linear(contexts, layers.out.weight, layers.out.bias)
    hidden = F.gelu(linear(layers.norm(tokens), layers.first.weight, layers.first.bias))
    return tokens + linear(hidden, layers.second.weight, layers.second.bias)


def _is_served(tokens: Tensor, widest: nn.Linear, *others: Tensor) -> bool:
    """Whether the kernel serves tokens [..., D], other tensors in the type that is asked for, and maps of D and of the
    widths of `widest`."""
    dtype = asked(tokens)
    if not (
        not torch.is_grad_enabled()
        and serves((torch.float32,), tokens, widest.weight)
        and dtype in (torch.float32, torch.bfloat16)
        and serves((dtype,), *others)
        and all(x.is_contiguous() for x in (tokens, *others))
        and tokens.numel() > 0
    ):
        return False
    kernel = _kernel()
    return (
        kernel is not None
        and kept() is not None
        and all(size % kernel.block_panel() == 0 for size in widest.weight.shape)
        and (dtype == torch.float32 or bool(kernel.block_brain()))
    )


class _Norm(ctypes.Structure):
    _fields_ = (("scale", ctypes.c_void_p), ("shift", ctypes.c_void_p), ("epsilon", ctypes.c_float))


class _Map(ctypes.Structure):
    _fields_ = (
        ("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("inputs", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
    )  # fmt: skip


class _Own(ctypes.Structure):
    _fields_ = (
        ("before", _Norm), ("behind", _Norm), ("project", _Map), ("out", _Map), ("query", _Map),
        *((name, ctypes.c_int64) for name in ("rows", "heads", "positions", "threads")),
    )  # fmt: skip


class _Feed(ctypes.Structure):
    _fields_ = (
        ("out", _Map), ("norm", _Norm), ("first", _Map), ("second", _Map),
        ("rows", ctypes.c_int64), ("threads", ctypes.c_int64),
    )  # fmt: skip


def _struct(dtype: torch.dtype, layers: Own | Feed) -> Any:
    """The layers as the kernel takes them, kept with their weights, which lie in panels; a copy for the caller's
    sizes."""
    packs = kept()
    assert packs is not None
    key = (type(layers), dtype, id(layers.out))
    if key not in packs:
        norms = [_norm(norm) for norm in layers if isinstance(norm, nn.LayerNorm)]
        if isinstance(layers, Own):
            maps = [_map(dtype, *layers.projections), _map(dtype, layers.out), _map(dtype, layers.query)]
            made: Any = _Own(*(norm for norm, _ in norms), *(a_map for a_map, _ in maps), 0, layers.heads)
        else:
            maps = [_map(dtype, layer) for layer in (layers.out, layers.first, layers.second)]
            made = _Feed(maps[0][0], norms[0][0], maps[1][0], maps[2][0])
        packs[key] = (layers, [tensors for _, tensors in (*norms, *maps)]), made
    made = packs[key][1]
    return type(made).from_buffer_copy(made)


def _norm(norm: nn.LayerNorm) -> tuple[_Norm, tuple[Tensor, Tensor]]:
    """A norm, and the tensors that it points to."""
    scale, shift = norm.weight.detach(), norm.bias.detach()
    return _Norm(scale.data_ptr(), shift.data_ptr(), norm.eps), (scale, shift)


def _map(dtype: torch.dtype, *layers: nn.Linear) -> tuple[_Map, tuple[Tensor, ...]]:
    """Maps of the same inputs as one, and the tensors that it points to."""
    kernel = _kernel()
    assert kernel is not None
    weight, bias = (torch.cat([getattr(layer, name).detach() for layer in layers]) for name in ("weight", "bias"))
    inputs, pairs = weight.shape[1], 2 if dtype == torch.bfloat16 else 1  # inputs that lie side by side
    panels = weight.to(dtype).view(-1, kernel.block_panel(), inputs // pairs, pairs).transpose(1, 2).contiguous()
    return _Map(panels.data_ptr(), bias.data_ptr(), inputs, len(bias)), (panels, bias)


@cache
def _kernel() -> ctypes.CDLL | None:
    library = load("block")
    if library is not None:
        at, number = ctypes.c_void_p, ctypes.c_int64
        library.block_own.argtypes = [at] * 6 + [number]
        library.block_feed.argtypes = [at] * 4 + [number]
        for function in (library.block_own, library.block_feed):
            function.restype = None
        for function in (library.block_panel, library.block_brain):
            function.restype = number
    return library
