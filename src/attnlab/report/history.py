"""The course of a search as a figure."""

from collections.abc import Sequence
from itertools import accumulate

from attnlab.report.figures import _COLOURS, _MUTED, Drawn, _axes, _legend, draw


def history(
    finished: Sequence[tuple[int, float]], pruned: Sequence[tuple[int, float]], metric: str, mode: str
) -> Drawn:
    """The value of every trial by its number, and the best so far.

    Args:
        finished: number and value of each finished trial, at least one.
        pruned: those of the pruned ones, by their best value before they were stopped.
        metric: what the value is.
        mode: max or min.
    """
    caption = f"{metric} of each trial of the search, and the best so far"
    with _axes() as (figure, axes):
        numbers, values = zip(*sorted(finished), strict=True)
        best = list(accumulate(values, max if mode == "max" else min))
        last = max(number for number, _ in [*finished, *pruned])
        axes.plot([*numbers, last], [*best, best[-1]], drawstyle="steps-post", color=_COLOURS[0], label="best so far")
        axes.plot(numbers, values, "o", color=_COLOURS[0], markersize=4, label="finished")
        if pruned:
            axes.plot(*zip(*pruned, strict=True), "x", color=_MUTED, markersize=4, label="pruned")
        axes.set(xlabel="trial", title=metric)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _legend(figure, axes)
    return draw("history", caption, figure)
