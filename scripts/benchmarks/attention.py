"""Operators of attention against their eager formulation: seconds and memory of forward and backward.

additive and scaled are the package's kernels, as the models use them; a shape is batch x queries x keys x width, where
heads are items of the batch. feed-forward is the kernel of the layer behind attention; its shape is rows x width x
hidden width, and it is left out where --shapes says what to measure. Each is timed beside its formulation in torch's
plain operations, scaled also beside torch's fused kernel, in turns in one process, from inputs that want a gradient to
the gradients. MiB are what the resident memory of a process of its own grows by at its peak, inputs left out. Where the
eager formulation would need more than half of this machine's memory, it is not run.

On a GPU all is in fp32 without TF32. scaled is torch's fused kernel there, and not measured beside itself; feed-forward
is a kernel of the processor only. MiB are the memory of tensors at its peak, inputs left out, and the memory that
counts is the GPU's; a shape that is too large for it all the same is left out.
"""

import argparse
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from _command import add_device, add_numbers, whole

from attnlab.errors import UserError
from benchmarks import _machine

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Shape = tuple[int, ...]
_SHAPES = ("64x1x20x256", "64x20x20x256", "8x256x256x256", "8x1024x1024x256")
_HEADS = ("256x17x17x64", "384x65x65x32", "64x512x512x64")  # of a Transformer, of ViTs
_LAYERS = ("1088x256x512", "8320x96x384")
_LARGE = "32x1024x1024x256"  # of a GPU
_REPEATS = {"cpu": 15, "cuda": 100}
_EAGER_COPIES = 4  # of what it makes for all pairs of query and key, at the peak of the eager backward pass


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shapes", nargs="+", type=_shape, metavar="BxTxSxA",
        help=f"batch x queries x keys x width (default: {' '.join(_SHAPES)}; for scaled {' '.join(_HEADS)} too; on a "
        f"GPU {_LARGE} too); without feed-forward, whose shapes are others",
    )  # fmt: skip
    add_numbers(parser, ("warmup", 1, 3, "turns before the clock starts"))
    parser.add_argument(
        "--repeats", type=whole(), metavar="N",
        help=f"timed turns (default: {_REPEATS['cpu']}, on a GPU {_REPEATS['cuda']})",
    )  # fmt: skip
    add_numbers(parser, ("retries", 0, 4, "more measurements of a shape while they are void"))
    add_device(parser, "where the operators run")


def _shape(text: str) -> Shape:
    """A type of argparse."""
    sizes = text.split("x")
    if len(sizes) != 4 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape; write four whole numbers, as in 64x20x20x256")
    batch, queries, keys, width = map(int, sizes)
    return batch, queries, keys, width


def measure(options: argparse.Namespace, console: "Console") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One row for each operator and shape."""
    import torch

    from attnlab.kernels import load

    on_gpu = _machine.on_gpu()
    if not on_gpu and any(load(name) is None for name in ("additive", "dot_product", "feed_forward")):
        raise UserError("There are no kernels to measure here: install g++, or unset ATTNLAB_KERNELS if they are off.")
    if options.repeats is None:
        options.repeats = _REPEATS[_machine.device()]
    rows = []
    usual = (*_SHAPES, _LARGE) if on_gpu else _SHAPES
    chosen = {
        "additive": options.shapes or map(_shape, usual),
        "scaled": options.shapes or map(_shape, (*usual, *_HEADS)),
        "feed-forward": [] if on_gpu or options.shapes else [tuple(map(int, text.split("x"))) for text in _LAYERS],
    }
    for operator, shapes in chosen.items():
        for shape in shapes:
            try:
                rows.append(_row(operator, shape, options))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                console.print(f"{operator} {_text(shape)}: the GPU has too little memory for it", highlight=False)
                continue
            console.print(f"{operator} {rows[-1]['shape']}: done", highlight=False)
    if not rows:
        raise UserError("The GPU has too little memory for any of these shapes.")
    return {name: getattr(options, name) for name in ("warmup", "repeats", "retries")}, rows


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _row(operator: str, shape: Shape, options: argparse.Namespace) -> dict[str, Any]:
    on_gpu = _machine.on_gpu()
    made = {"additive": shape, "scaled": shape[:-1], "feed-forward": shape[::2]}[operator]  # for all pairs or rows
    fits = _EAGER_COPIES * 4 * math.prod(made) < _machine.memory() / 2
    beside = operator == "scaled" and not on_gpu
    names = ["kernel", *(["eager"] if fits else []), *(["torch"] if beside else [])]
    steps = {name: _step(operator, name, shape) for name in names}
    for _ in range(1 + options.retries):
        pressure = _machine.Pressure()
        seconds = _machine.medians(steps, options.repeats, options.warmup)
        waited = pressure.share()
        if not _machine.is_void(waited):
            break
    extra = {
        name: _machine.extra_bytes(steps[name]) if on_gpu else _alone(operator, name, shape)
        for name in names
        if name != "torch"
    }
    return {
        "operator": operator,
        "shape": _text(shape),
        "seconds": seconds["kernel"],
        "eager_seconds": seconds.get("eager"),
        "speedup": seconds["eager"] / seconds["kernel"] if fits else None,
        "torch_seconds": seconds.get("torch"),
        "extra_bytes": extra["kernel"],
        "eager_extra_bytes": extra.get("eager"),
        "cpu_pressure": waited,
        "void": _machine.is_void(waited),
    }


def _step(operator: str, name: str, shape: Shape) -> Callable[[], Any]:
    """Forward and backward on standard normal inputs, by `kernel`, `eager` or, for scaled, `torch`."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from attnlab.kernels.additive import additive_scores, naive_additive_scores
    from attnlab.kernels.dot_product import dot_product_attention, naive_dot_product_attention
    from attnlab.kernels.feed_forward import feed_forward, naive_feed_forward

    sizes: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    if operator == "feed-forward":
        rows, width, hidden = shape
        sizes, output = ((rows, width), (hidden, width), (hidden,), (width, hidden), (width,)), (rows, width)
    else:
        batch, queries, keys, width = shape
        query, key = (batch, 1, queries, width), (batch, 1, keys, width)  # one head
        sizes, output = {
            "additive": ((query, key, (width,)), (batch, 1, queries, keys)),
            "scaled": ((query, key, key), query),
        }[operator]
    function = {
        ("additive", "kernel"): additive_scores, ("additive", "eager"): naive_additive_scores,
        ("scaled", "kernel"): dot_product_attention, ("scaled", "eager"): naive_dot_product_attention,
        ("scaled", "torch"): scaled_dot_product_attention,
        ("feed-forward", "kernel"): feed_forward, ("feed-forward", "eager"): naive_feed_forward,
    }[operator, name]  # fmt: skip
    random = torch.Generator().manual_seed(0)
    inputs = [_machine.placed(torch.randn(size, generator=random)).requires_grad_() for size in sizes]
    grad = _machine.placed(torch.randn(output, generator=random))
    return lambda: torch.autograd.grad(function(*inputs), inputs, grad)


def _alone(operator: str, name: str, shape: Shape) -> int | None:
    """The extra bytes of a step in a process of its own."""
    with _machine.another_process() as pool:
        return pool.submit(_extra_bytes, operator, name, shape).result()


def _extra_bytes(operator: str, name: str, shape: Shape) -> int | None:
    _machine.use_threads()
    small = (512, 32, 32) if operator == "feed-forward" else (8, 32, 32, 64)
    _step(operator, name, small)()  # what a first call brings along
    return _machine.extra_bytes(_step(operator, name, shape))


def table(rows: list[dict[str, Any]]) -> "Table":
    """A line for each operator and shape."""
    from rich import box
    from rich.table import Table

    shown = Table(title="Attention operators, forward and backward", title_justify="left", box=box.SIMPLE, padding=0)
    shown.add_column("operator", no_wrap=True)
    beside = any(row["torch_seconds"] is not None for row in rows)
    for name in ("ms", "eager ms", "times", *(["torch ms"] if beside else []), "MiB", "eager MiB", "waited"):
        shown.add_column(name, justify="right", no_wrap=True, min_width=8)
    for row in rows:
        times = "" if row["speedup"] is None else f"{row['speedup']:.1f}"
        shown.add_row(
            f"{row['operator']} {row['shape']}",
            _scaled(row["seconds"], 1e3), _scaled(row["eager_seconds"], 1e3), times,
            *([_scaled(row["torch_seconds"], 1e3)] if beside else []),
            _scaled(row["extra_bytes"], 2**-20), _scaled(row["eager_extra_bytes"], 2**-20),
            _machine.waited(row),
        )  # fmt: skip
    return shown


def _scaled(value: float | None, by: float) -> str:
    return "" if value is None else f"{value * by:,.1f}"
