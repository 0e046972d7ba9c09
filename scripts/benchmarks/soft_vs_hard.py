"""Soft against hard attention as the source grows: time, memory, gradient flow and determinism.

One query at a time reads sources of n positions, in evaluation. Choosing is common to both, and O(n): scores and their
normalisation, and for hard attention the largest weight. Reading is what differs: soft attention sums n weighted
values, hard attention gathers one. bytes are those that each of the two allocates, by torch's profiler.

values is the number of positions whose value receives a gradient, and scores that of those whose score does (for hard
attention through the log-probability of the draw); repeated is the share of equal outcomes when the same input is read
twice: 1 is deterministic.
"""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from _command import add_numbers

from benchmarks import _machine

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def add_options(parser: argparse.ArgumentParser) -> None:
    add_numbers(
        parser,
        ("shortest", 1, 64, "positions of the shortest source"),
        ("longest", 1, 16_384, "positions of the longest source; it doubles twice from row to row"),
        ("width", 1, 256, "width of queries, keys and values"),
        ("repeats", 1, 200, "timed queries of each kind"),
    )


def measure(options: argparse.Namespace, console: "Console") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One row for each length and each of soft, argmax and sample."""
    rows, length = [], options.shortest
    while length <= options.longest:
        rows += _rows(length, options.width, options.repeats)
        length *= 4
    return {name: getattr(options, name) for name in ("shortest", "longest", "width", "repeats")}, rows


def _rows(length: int, width: int, repeats: int) -> list[dict[str, Any]]:
    import torch

    from attnlab.attention import MODES, ScaledDotScore, Softmax
    from attnlab.attention.baselines import NoBaseline
    from attnlab.attention.estimators import Expectation
    from attnlab.attention.reinforce import Reinforce
    from attnlab.attention.selection import gather

    torch.manual_seed(0)
    query, values = torch.randn(1, 1, width), torch.randn(1, length, width)
    score, normalizer = ScaledDotScore(width, width), Softmax()
    weights = normalizer(score(query, values))
    chosen = weights.argmax(-1).unsqueeze(0)
    # choosing and reading apart, as the modes do them together
    parts: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "soft": (lambda: normalizer(score(query, values)), lambda: weights @ values),
        "argmax": (lambda: normalizer(score(query, values)).argmax(-1), lambda: gather(values, chosen)),
        "sample": (
            lambda: torch.multinomial(normalizer(score(query, values))[0], 1),
            lambda: gather(values, chosen),
        ),
    }
    with torch.inference_mode():
        halves = {f"{mode}/{half}": part for mode, two in parts.items() for half, part in enumerate(two)}
        seconds = _machine.medians(halves, repeats, warmup=10)
    rows = []
    for mode in parts:
        first, second = (MODES[mode](weights, values) for _ in range(2))
        estimator = Expectation() if mode == "soft" else Reinforce(NoBaseline, samples=1)
        reached_values, reached_scores = _reached(estimator, score, normalizer, query, values)
        rows.append(
            {
                "length": length,
                "mode": mode,
                "choose_seconds": seconds[f"{mode}/0"],
                "read_seconds": seconds[f"{mode}/1"],
                "choose_bytes": _allocated(parts[mode][0]),
                "read_bytes": _allocated(parts[mode][1]),
                "values_read": length if mode == "soft" else 1,
                "gradient_values": reached_values,
                "gradient_scores": reached_scores,
                "repeated": float((first.contexts == second.contexts).all(-1).float().mean())
                if mode != "sample"
                else _agreement(weights, values),
            }
        )
    return rows


def _allocated(part: Callable[[], Any]) -> int:
    """The bytes that a call allocates, whether or not it frees them again."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        part()
    return sum(max(0, event.self_cpu_memory_usage) for event in found.events())


def _agreement(weights: Any, values: Any) -> float:
    """Share of equal positions in many pairs of draws."""
    from attnlab.attention.selection import sampled

    first, second = (sampled(weights, values, 1000).positions for _ in range(2))
    return float((first == second).float().mean())


def _reached(estimator: Any, score: Any, normalizer: Any, query: Any, values: Any) -> tuple[int, int]:
    """How many positions a training step's gradient reaches, through the values and through the scores."""
    import torch

    values = values.clone().requires_grad_()
    scores = score(query, values.detach()).requires_grad_()
    candidates = estimator.select(normalizer(scores), values)
    log_likelihood = -(candidates.contexts - 1).square().mean(-1)
    mask = torch.ones(log_likelihood.shape[1:], dtype=torch.bool)
    estimator.objective(log_likelihood, candidates, mask).loss.backward()
    return int((values.grad.abs().sum(-1) > 0).sum()), int((scores.grad != 0).sum())


def table(rows: list[dict[str, Any]]) -> "Table":
    """A line for each length and mode."""
    from rich import box
    from rich.table import Table

    shown = Table(title="Soft and hard attention, one query", title_justify="left", box=box.SIMPLE, padding=0)
    headings = (
        "n", "mode", "choose µs", "read µs", "choose KiB", "read KiB", "values", "scores", "repeated",
    )  # fmt: skip
    for name in headings:
        shown.add_column(name, justify="left" if name == "mode" else "right", min_width=6)
    for row in rows:
        if row["mode"] == "soft" and shown.rows:
            shown.add_section()
        shown.add_row(
            f"{row['length']:,}", row["mode"], f"{1e6 * row['choose_seconds']:.1f}", f"{1e6 * row['read_seconds']:.1f}",
            f"{row['choose_bytes'] / 1024:,.1f}", f"{row['read_bytes'] / 1024:,.1f}", f"{row['gradient_values']:,}",
            f"{row['gradient_scores']:,}", f"{row['repeated']:.2f}",
        )  # fmt: skip
    return shown
