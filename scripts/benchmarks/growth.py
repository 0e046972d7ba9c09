"""How seconds and memory grow with the length of the source, the vocabulary and the width, for every variant.

source: the attention operator of a variant, from queries and values to the gradient of its objective, for a fixed
number of queries. vocabulary and width: a whole training step (forward and backward) of a recurrent encoder-decoder
with the variant; the width is that of its embeddings, its encoder (both directions together) and its decoder.

An exponent is the slope of a line fitted by least squares to the logarithms of seconds or memory over those of the
sizes, for the upper sizes, from an eighth of the largest on. Beside it stands the largest that the mathematics allows:
1 for the source, since the queries are fixed, and for the vocabulary, and 2 for the width, that of the products of
matrices. Fixed costs make an exponent smaller; one that is greater by more than 0.15 is marked with an exclamation
mark. Memory is what the resident memory of a process grows by at the peak of a step, inputs and parameters left out.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from _command import add_numbers, whole

from attnlab.cli import CONF
from attnlab.errors import UserError
from benchmarks import _machine

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from rich.console import Console
    from rich.table import Table

Step = Callable[[], Any]

MATHEMATICS = {"source": 1, "vocabulary": 1, "width": 2}
"""The largest exponent of each axis."""

_TOLERANCE = 0.15
_FITTED = 8  # sizes from the largest over this on
_SIZES = {
    "source": ("lengths", tuple(64 * 2**power for power in range(7))),
    "vocabulary": ("vocabularies", tuple(1_000 * 2**power for power in range(7))),
    "width": ("widths", tuple(64 * 2**power for power in range(5))),
}
_BATCH, _LENGTH, _VOCABULARY, _WIDTH = 8, 12, 1_000, 128  # of a training step, where they are held fixed


def variants() -> list[str]:
    """The options of attention=."""
    return sorted(path.stem for path in (CONF / "attention").glob("*.yaml"))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--axes", choices=tuple(MATHEMATICS), nargs="+", default=list(MATHEMATICS), metavar="NAME",
        help=f"of {', '.join(MATHEMATICS)} (default: all)",
    )  # fmt: skip
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="options of attention= (default: all)")
    for axis, (name, sizes) in _SIZES.items():
        parser.add_argument(
            f"--{name}", type=whole(), nargs="+", default=list(sizes), metavar="N",
            help=f"sizes of the {axis} (default: {sizes[0]} to {sizes[-1]}, doubling)",
        )  # fmt: skip
    add_numbers(
        parser,
        ("queries", 1, 32, "queries, where the source grows"),
        ("key-width", 1, 256, "width of queries and keys, where the source grows"),
        ("warmup", 0, 1, "steps before the clock starts"),
        ("repeats", 1, 3, "timed steps of each size"),
        ("retries", 0, 3, "more steps for such as are void"),
    )


def measure(options: argparse.Namespace, console: "Console") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One row for each axis, variant and size; the rows of a series share its exponents."""
    chosen = options.variants or variants()
    if unknown := sorted(set(chosen) - set(variants())):
        raise UserError(f"There is no variant {', '.join(unknown)}; choose among {', '.join(variants())}.")
    rows: list[dict[str, Any]] = []
    with _machine.another_process() as alone:
        for axis in options.axes:
            for variant in chosen:
                series = [
                    {"axis": axis, "variant": variant, "size": size} | _point(axis, variant, size, options, alone)
                    for size in sorted(set(getattr(options, _SIZES[axis][0])))
                ]
                found = _exponents(axis, series)
                rows += [row | found for row in series]
                console.print(f"{axis}, {variant}: {_exponent(rows[-1], 'seconds')}", highlight=False)
    names = ("queries", "key_width", "warmup", "repeats", "retries")
    fixed = {"batch": _BATCH, "length": _LENGTH, "vocabulary": _VOCABULARY, "width": _WIDTH}
    return {"training_step": fixed} | {name: getattr(options, name) for name in names}, rows


def _point(axis: str, variant: str, size: int, options: argparse.Namespace, alone: "Executor") -> dict[str, Any]:
    step = _step(axis, variant, size, options)
    measured = _machine.turns(step, options.repeats, options.retries, options.warmup).spread()
    return measured | {"extra_bytes": alone.submit(_extra_bytes, axis, variant, size, options).result()}


def _extra_bytes(axis: str, variant: str, size: int, options: argparse.Namespace) -> int | None:
    """The memory of a step; in a process that does nothing else."""
    _machine.use_threads()
    step = _step(axis, variant, size, options)
    step()  # what a first call brings along
    return _machine.extra_bytes(step)


def _step(axis: str, variant: str, size: int, options: argparse.Namespace) -> Step:
    if axis == "source":
        return _operator(variant, size, options.queries, options.key_width)
    return _training(variant, **{axis: size})


def _operator(variant: str, length: int, queries: int, width: int) -> Step:
    """Attention with one source, from standard normal queries and values to all gradients of its objective."""
    import torch

    from attnlab.experiment.build import build, compose

    torch.manual_seed(0)
    attention = build(compose(CONF, [f"attention={variant}"])["attention"])(query_size=width, key_size=width).train()
    query, values = (torch.randn(1, number, width).requires_grad_() for number in (queries, length))
    aims = torch.randn(1, queries, width)  # of each query another, so that each reads every candidate anew
    guide = torch.randn(1, queries, length).requires_grad_()  # scores of an inference network
    mask = torch.ones(1, queries, dtype=torch.bool)
    inputs = [query, values, *([guide] if attention.estimator.guided else []), *attention.parameters()]

    def step() -> None:
        posterior = guide.softmax(-1) if attention.estimator.guided else None
        candidates = attention(query, attention.prepare(values), posterior=posterior)
        log_likelihoods = -(candidates.contexts - aims).square().mean(-1)
        loss = attention.estimator.objective(log_likelihoods, candidates, mask).loss
        torch.autograd.grad(loss, inputs, allow_unused=True)

    return step


def _training(variant: str, vocabulary: int = _VOCABULARY, width: int = _WIDTH) -> Step:
    """Forward and backward of a recurrent encoder-decoder on random sentences."""
    import torch

    from attnlab.experiment.build import build, compose

    torch.manual_seed(0)
    sizes = (f"model.embedding={width}", f"model.encoder_size={width // 2}", f"model.decoder_size={width}")
    config = compose(CONF, ["task=translation", "model=rnn", f"attention={variant}", *sizes])
    types = {"source_vocabulary": vocabulary, "target_vocabulary": vocabulary}
    model = build(config["model"] | {"attention": config["attention"]} | types).train()
    # 0 is padding, of which there is none
    source, target_in, target_out = (torch.randint(1, vocabulary, (_BATCH, _LENGTH)) for _ in range(3))
    mask = torch.ones(_BATCH, _LENGTH, dtype=torch.bool)
    parameters = list(model.parameters())

    def step() -> None:
        scored, candidates = model(source, target_in, target_out)
        torch.autograd.grad(model.objective(scored, candidates, mask).loss, parameters, allow_unused=True)

    return step


def _exponents(axis: str, series: list[dict[str, Any]]) -> dict[str, Any]:
    found = {
        name: exponent([row["size"] for row in series], [row[key] for row in series])
        for name, key in (("seconds_exponent", "seconds"), ("bytes_exponent", "extra_bytes"))
    }
    most = MATHEMATICS[axis]
    exceeds = any(value is not None and value > most + _TOLERANCE for value in found.values())
    return found | {"mathematics": most, "exceeds": exceeds}


def exponent(sizes: Sequence[int], values: Sequence[float | None]) -> float | None:
    """The slope of log values over log sizes, fitted to the upper sizes; None where there are too few of them."""
    pairs = [
        (math.log(size), math.log(value))
        for size, value in zip(sizes, values, strict=True)
        if size * _FITTED >= max(sizes) and value is not None and value > 0
    ]
    return statistics.linear_regression(*zip(*pairs, strict=True)).slope if len(pairs) > 1 else None


def table(rows: list[dict[str, Any]]) -> "Table":
    """Two lines for each series, ms and MiB at each size, with the fitted exponent and the mathematical one."""
    from rich import box
    from rich.table import Table

    columns = max(len({row["size"] for row in rows if row["axis"] == axis}) for axis in MATHEMATICS)
    shown = Table(title="Growth", title_justify="left", box=box.SIMPLE, padding=0, show_header=False)
    for _ in range(2):
        shown.add_column(no_wrap=True)
    for _ in range(columns + 2):
        shown.add_column(justify="right", no_wrap=True, min_width=5)
    for axis, of_axis in groupby(rows, key=lambda row: row["axis"]):
        series = {name: list(found) for name, found in groupby(of_axis, key=lambda row: row["variant"])}
        first = next(iter(series.values()))
        blank = [""] * (columns - len(first))
        shown.add_section()
        shown.add_row(axis, "", *[f"{row['size']:,}" for row in first], *blank, "exponent", "most", style="bold")
        for name, found in series.items():
            void = " void" if any(row["void"] for row in found) else ""
            seconds = [f"{1e3 * row['seconds']:,.1f}" for row in found]
            sizes = [row["extra_bytes"] for row in found]
            memory = ["" if size is None else f"{size / 2**20:,.1f}" for size in sizes]
            most = str(first[0]["mathematics"])
            shown.add_row(name, "ms", *seconds, *blank, _exponent(found[0], "seconds") + void, most)
            shown.add_row("", "MiB", *memory, *blank, _exponent(found[0], "bytes"), most)
    return shown


def _exponent(row: dict[str, Any], name: str) -> str:
    value = row[f"{name}_exponent"]
    if value is None:
        return ""
    return f"{value:.2f}" + ("!" if value > row["mathematics"] + _TOLERANCE else "")
