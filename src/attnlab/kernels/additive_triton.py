"""Scores of additive attention and their gradients on a GPU, in Triton; `additive` says what is computed and when.

A program holds a few rows, queries or keys, in registers and goes through the rows of the other side, with nothing of
size T S A in memory: the backward pass computes the hidden layer again, once for the gradient of the queries and once
for that of the keys. e^2q is taken once for a row that is held and for one that passes, so that a pair costs some
products and one reciprocal:

    E = e^2q e^2k,    tanh(q + k) = (E - 1) / (E + 1),    its derivative 4 E / (E + 1)^2.

E - 1 is made so that small sums keep their relative precision and no product overflows. Each number is summed by one
program in one order: results repeat.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDEST = 2**14  # columns that a program can hold
_TILE = 1024  # numbers of the rows that it holds
_PASS = 64  # rows of the other side that it goes through in the forward pass
_OFTEN = 4  # programs from which on it pays to make the rows that pass ready before
_PTX = torch.version.cuda is not None  # whether instructions of NVIDIA's are known

_SMALL = tl.constexpr(0.5)  # up to here e^2x - 1 is kept instead of e^2x
_USUAL = tl.constexpr(21.0)  # up to here products of e^2x stay in single precision's range


def forward(query: Tensor, key: Tensor, energy: Tensor) -> Tensor:
    """Scores [N, T, S] of contiguous float32 q [N, T, A], k [N, S, A] and v [A]."""
    items, queries, width = query.shape
    keys = key.shape[1]
    scores = query.new_empty(items, queries, keys)
    tile = _tile(width)
    blocks = triton.cdiv(queries, tile["ROWS"])
    grid = items * blocks, triton.cdiv(keys, _PASS)
    _scores[grid](query, key, *_ready(key, blocks), energy, scores, queries, keys, width, PASS=_PASS, **tile)
    return scores


def backward(query: Tensor, key: Tensor, energy: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients for q, k and v, from that of the scores, contiguous [N, T, S]."""
    items, queries, width = query.shape
    keys = key.shape[1]
    of_query, of_key = torch.empty_like(query), torch.empty_like(key)
    tile = _tile(width)
    blocks, key_blocks = (triton.cdiv(rows, tile["ROWS"]) for rows in (queries, keys))
    of_energy = query.new_empty(items * blocks, width)  # of each program
    _gradients[(items * blocks,)](
        query, key, *_ready(key, blocks), energy, grad, of_query, of_energy, queries, keys, width, keys, 1,
        ENERGY=True, **tile,
    )  # fmt: skip
    _gradients[(items * key_blocks,)](
        key, query, *_ready(query, key_blocks), energy, grad, of_key, of_energy, keys, queries, width, 1, keys,
        ENERGY=False, **tile,
    )  # fmt: skip
    return of_query, of_key, of_energy.sum(0)


def backward_query(query: Tensor, key: Tensor, energy: Tensor, grad: Tensor) -> Tensor:
    """The first of those alone."""
    items, queries, width = query.shape
    keys = key.shape[1]
    of_query = torch.empty_like(query)
    tile = _tile(width)
    blocks = triton.cdiv(queries, tile["ROWS"])
    _gradients[(items * blocks,)](
        query, key, *_ready(key, blocks), energy, grad, of_query, of_query, queries, keys, width, keys, 1,
        ENERGY=False, **tile,
    )  # fmt: skip
    return of_query


def _tile(width: int) -> dict[str, Any]:
    columns = max(16, triton.next_power_of_2(width))
    rows = max(1, _TILE // columns)
    warps = max(1, min(8, rows * columns // 2048))
    return {"ROWS": rows, "COLUMNS": columns, "PTX": _PTX, "num_warps": warps}


def _ready(rows: Tensor, passes: int) -> tuple[Tensor | None, Tensor | None]:
    """What `_prepare` makes of each of the rows [N, S, A], and their reaches [N, S], where they pass often enough."""
    if passes < _OFTEN:
        return None, None
    items, count, width = rows.shape
    ready, reaches = torch.empty_like(rows), rows.new_empty(items, count)
    _each[(items * count,)](rows, ready, reaches, width, COLUMNS=_tile(width)["COLUMNS"], num_warps=1)
    return ready, reaches


@triton.jit
def _each(rows, ready, reaches, width, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    x = tl.load(rows + row * width + columns, mask=columns < width, other=0.0)
    prepared, reach = _prepare(x)
    tl.store(ready + row * width + columns, prepared, mask=columns < width)
    tl.store(reaches + row, reach)


@triton.jit
def _scores(query, key, ready, reaches, energy, scores, queries, keys, width, ROWS: tl.constexpr,
            COLUMNS: tl.constexpr, PASS: tl.constexpr, PTX: tl.constexpr):  # fmt: skip
    """Of ROWS queries and PASS keys of an item."""
    blocks = tl.cdiv(queries, ROWS)
    item = (tl.program_id(0) // blocks).to(tl.int64)
    rows = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    first = tl.program_id(1) * PASS
    held = query + item * queries * width + rows[:, None] * width + columns[None, :]
    inside = (rows < queries)[:, None] & (columns < width)[None, :]
    v = tl.load(energy + columns, mask=columns < width, other=0.0)
    prepared, reach = _prepare(tl.load(held, mask=inside, other=0.0))
    for row in range(first, min(first + PASS, keys)):
        above, e = _pair(prepared, reach, held, inside, key, ready, reaches, item * keys + row, columns, width)
        found = tl.sum(above * _reciprocal(e + 1.0, PTX) * v[None, :], 1)
        tl.store(scores + (item * queries + rows) * keys + row, found, mask=rows < queries)


@triton.jit
def _gradients(query, key, ready, reaches, energy, grad, of_query, of_energy, queries, keys, width, query_stride,
               key_stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ENERGY: tl.constexpr,
               PTX: tl.constexpr):  # fmt: skip
    """For ROWS queries of an item, from all its keys; with ENERGY also their share of the gradient for v. The sides may
    be exchanged, for tanh(q + k) does not tell them apart."""
    blocks = tl.cdiv(queries, ROWS)
    item = (tl.program_id(0) // blocks).to(tl.int64)
    rows = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    place = item * queries * width + rows[:, None] * width + columns[None, :]
    inside = (rows < queries)[:, None] & (columns < width)[None, :]
    prepared, reach = _prepare(tl.load(query + place, mask=inside, other=0.0))
    slopes = tl.zeros([ROWS, COLUMNS], tl.float32)
    hidden = tl.zeros([ROWS, COLUMNS], tl.float32)
    for row in range(keys):
        at = grad + item * queries * keys + rows * query_stride + row * key_stride
        g = tl.load(at, mask=rows < queries, other=0.0)[:, None]
        above, e = _pair(prepared, reach, query + place, inside, key, ready, reaches, item * keys + row, columns, width)
        r = _reciprocal(e + 1.0, PTX)
        slopes += g * (e * r * r)
        if ENERGY:
            hidden += g * (above * r)
    v = tl.load(energy + columns, mask=columns < width, other=0.0)
    tl.store(of_query + place, slopes * (4.0 * v)[None, :], mask=inside)
    if ENERGY:
        share = of_energy + tl.program_id(0).to(tl.int64) * width + columns
        tl.store(share, tl.sum(hidden, 0), mask=columns < width)


@triton.jit
def _pair(prepared, reach, held, inside, key, ready, reaches, row, columns, width):
    """E - 1 and E of the rows that are held, as `_prepare` made them (and as they lie in memory), and of a row that
    passes, made ready before or here."""
    k = key + row * width + columns
    if ready is None:
        x = tl.load(k, mask=columns < width, other=0.0)
        up, power = _exponential(2.0 * x)
        far = tl.max(tl.abs(x))  # NaN is passed over here, and comes through all forms
    else:
        x = tl.load(ready + row * width + columns, mask=columns < width, other=0.0)
        far = tl.load(reaches + row)
        up = tl.where(far <= _SMALL, x, x - 1.0)
        power = tl.where(far <= _SMALL, x + 1.0, x)
    if reach <= _USUAL and far <= _USUAL:
        small = reach <= _SMALL
        above = prepared * power[None, :] + tl.where(small, up, -1.0)[None, :]
        e = prepared * power[None, :] + tl.where(small, power, 0.0)[None, :]
    else:  # from q + k itself, held where tanh is 1 to the last bit and nothing overflows
        y = tl.load(held, mask=inside, other=0.0) + tl.load(k, mask=columns < width, other=0.0)[None, :]
        y = tl.where(y > 40.0, 40.0, y)
        y = tl.where(y < -40.0, -40.0, y)
        above, e = _exponential(2.0 * y)
    return above, e


@triton.jit
def _reciprocal(x, PTX: tl.constexpr):
    """1 / x for x from 1 to e^84; Triton's own quotient is scaled, for larger and smaller numbers, at five times the
    cost."""
    if PTX:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
    return 1.0 / x


@triton.jit
def _prepare(x):
    """e^2x - 1 of rows whose reach, the largest |x|, is small, else e^2x; and the reach."""
    reach = tl.max(tl.abs(x))
    held = tl.where(tl.abs(x) > _USUAL, 0.0, x)  # not used beyond
    above, e = _exponential(2.0 * held)
    return tl.where(reach <= _SMALL, above, e), reach


@triton.jit
def _exponential(x):
    """e^x - 1 and e^x for |x| <= 80: 2^n e^r with |r| <= log(2) / 2 and a Taylor polynomial; to the last bits, which
    the GPU's own is not."""
    n = tl.floor(x * 1.4426950408889634 + 0.5)
    r = x - n * 0.693145751953125 - n * 1.4286068203094172e-06  # log 2 in two parts; the first product is exact
    p = r * (1.0 / 5040) + 1.0 / 720
    p = p * r + 1.0 / 120
    p = p * r + 1.0 / 24
    p = p * r + 1.0 / 6
    p = p * r + 0.5
    p = p * r + 1.0
    up = p * r
    scale = ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    return scale * up + (scale - 1.0), scale * up + scale
