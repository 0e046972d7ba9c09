"""The figures of a report, each as PNG, as SVG, and as SVG for a page that may be dark.

Only matplotlib's object interface is used: no backend to choose, no figure that stays open.
"""

import io
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from attnlab.report.maps import Example, Panel
from attnlab.report.metrics import Metric
from attnlab.report.points import DataSet
from attnlab.report.stats import summarise
from attnlab.report.texts import Lengths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that can be told apart in print, on the screen, light or dark, and by the colour-blind (Okabe and Ito 2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_LINES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_INK, _MUTED, _RULE, _HEAT = "#1c1c21", "#66666f", "#dedee3", "#2f2b86"
_FOR_THE_PAGE = {_INK: "var(--ink)", _MUTED: "var(--muted)", _RULE: "var(--rule)"}
_WIDTH = 4.3  # inches: at a phone's width its letters are still legible
_DPI = 200
_LONGEST_LABEL = 20  # characters
_CELL, _IMAGE, _GAP, _PAGE = 0.22, 1.8, 0.35, 11.0  # inches: a cell of a map, an image, between maps, all of them
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": _INK,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _MUTED,
    "axes.titlecolor": _INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "attnlab",  # the same data give the same file
}


@dataclass(frozen=True)
class Drawn:
    """A figure in all its forms.

    Attributes:
        name: of its files, without the ending.
        caption: what it shows, in words.
        png, svg: the files.
        inline: an `<svg>` element whose text and lines take the page's colours.
    """

    name: str
    caption: str
    png: bytes
    svg: bytes
    inline: str


def draw(name: str, caption: str, figure: "Figure") -> Drawn:
    """Renders a figure in all forms. What is slow, to lay it out and to measure it, is done once for all of them."""
    from matplotlib import rc_context

    with rc_context(_STYLE), _boxes_for_what_no_font_has():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        page = figure.get_tightbbox().padded(0.05)
        form = partial(_saved, figure, page)
        inline = _for_the_page(form("svg", transparent=True, fonttype="none").decode(), name, caption)
        return Drawn(name, caption, form("png"), form("svg"), inline)


@contextmanager
def _boxes_for_what_no_font_has() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def _saved(figure: "Figure", page: Any, form: str, *, transparent: bool = False, fonttype: str = "path") -> bytes:
    from matplotlib import rc_context

    data = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None} if form == "svg" else {"Software": None}
    with rc_context({"svg.fonttype": fonttype}):
        figure.savefig(data, format=form, dpi=_DPI, bbox_inches=page, metadata=nothing, transparent=transparent)
    return data.getvalue()


def _for_the_page(svg: str, name: str, caption: str) -> str:
    """An SVG file as an element of a page: no header, no ids but those that are referred to, the page's colours."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    used = set(re.findall(r"#(\w+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in _FOR_THE_PAGE.items():
        svg = svg.replace(colour, variable)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', head)
    assert box is not None
    return f'<svg {box[0]} width="{float(box[1]):.0f}pt" role="img" aria-label="{escape(caption)}">{body}'


@contextmanager
def _axes(height: float = 2.9, width: float = _WIDTH) -> "Iterator[tuple[Figure, Axes]]":
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How each variant is drawn, the same in all figures: after six colours come other lines and markers."""
    return {
        name: {
            "color": _COLOURS[i % len(_COLOURS)],
            "linestyle": _LINES[i // len(_COLOURS) % len(_LINES)],
            "marker": _MARKERS[(i + i // len(_COLOURS)) % len(_MARKERS)],
        }
        for i, name in enumerate(names)
    }


def curves(data: DataSet, key: str, label: str, look: Mapping[str, Any]) -> "Figure | None":
    """A metric by epoch: the mean over seeds and a band of one standard deviation; None where no run recorded it.

    Where seeds stopped at different epochs, the mean is that of the seeds that were still training.
    """
    series = {variant.name: _by_epoch([run.curves for run in variant.runs.values()], key) for variant in data.variants}
    series = {name: epochs for name, epochs in series.items() if epochs}
    if not series:
        return None
    with _axes() as (figure, axes):
        longest = max(max(epochs) for epochs in series.values())
        for name, epochs in series.items():
            x = sorted(epochs)
            style = {**look[name], "marker": look[name]["marker"] if longest <= 15 else ""}
            _band(axes, x, [epochs[epoch] for epoch in x], name, style)
        axes.set(xlabel="epoch", title=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if all(set(epochs) == {longest} for epochs in series.values()):
            axes.set_xlim(longest - 1, longest + 1)
        _legend(figure, axes)
    return figure


def _by_epoch(runs: Sequence[Sequence[dict[str, Any]]], key: str) -> dict[float, list[float]]:
    found: dict[float, list[float]] = {}
    for rows in runs:
        for row in rows:
            if isinstance(row.get(key), int | float):
                found.setdefault(row["epoch"], []).append(float(row[key]))
    return found


def _band(axes: "Axes", x: Sequence[Any], values: Sequence[Sequence[float]], name: str, style: dict[str, Any]) -> None:
    """A line of means, and around it one standard deviation where there are two values or more."""
    middle = [mean(several) for several in values]
    spread = [stdev(several) if len(several) > 1 else 0.0 for several in values]
    axes.plot(x, middle, label=name, linewidth=1.6, markersize=4, **style)
    if any(spread):
        low, high = ([m + sign * s for m, s in zip(middle, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _legend(figure: "Figure", axes: "Axes") -> None:
    """Below the axes, in as many columns as the names allow."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(len(labels), 4, int(62 / (6 + max(map(len, labels))))))
    figure.legend(handles, labels, loc="outside lower left", ncols=columns, handlelength=2.2, columnspacing=1.2)


def by_variant(data: DataSet, metric: Metric, look: Mapping[str, Any]) -> "Figure | None":
    """A metric of each variant: every seed a dot, the mean, and its 95 % interval; None where no run has it."""
    values = {variant.name: list(variant.values(metric.key).values()) for variant in data.variants}
    values = {name: its for name, its in values.items() if its}
    if not values:
        return None
    with _axes(height=0.75 + 0.3 * len(values)) as (figure, axes):
        for row, (name, its) in enumerate(values.items()):
            summary, colour = summarise(its), look[name]["color"]
            if summary.low is not None:
                axes.plot([summary.low, summary.high], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
            axes.plot(its, [row + 0.25] * len(its), "o", color=colour, alpha=0.6, markersize=3.5, markeredgewidth=0)
            axes.plot([summary.mean], [row], look[name]["marker"], color=colour, markersize=6.5)
        axes.set_yticks(range(len(values)), list(values))
        axes.set(ylim=(len(values) - 0.5, -0.5), title=_title(metric))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    return figure


def _title(metric: Metric) -> str:
    return metric.label + (f", {metric.unit}" if metric.unit else "")


def trade(data: DataSet, quality: Metric, cost: Metric, look: Mapping[str, Any]) -> "Figure | None":
    """Quality against cost: a point a variant, with a standard deviation each way; None where either is missing."""
    points = {}
    for variant in data.variants:
        both = list(variant.values(cost.key).values()), list(variant.values(quality.key).values())
        if all(both):
            points[variant.name] = both
    if not points:
        return None
    with _axes() as (figure, axes):
        for name, (costs, qualities) in points.items():
            spread = [stdev(its) if len(its) > 1 else None for its in (costs, qualities)]
            axes.errorbar(
                mean(costs), mean(qualities), xerr=spread[0], yerr=spread[1], color=look[name]["color"],
                marker=look[name]["marker"], markersize=6.5, linewidth=0, elinewidth=1.2, label=name,
            )  # fmt: skip
        axes.set(xlabel=_title(cost), title=_title(quality))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="x", nbins=5)
        _legend(figure, axes)
    return figure


def lengths(found: Lengths, which: str, label: str, look: Mapping[str, Any]) -> "Figure":
    """Quality by the length of the source, a line a variant with a band of one standard deviation over seeds."""
    with _axes() as (figure, axes):
        x = range(len(found.labels))
        for name, by_seed in getattr(found, which).items():
            values = [[its[place] for its in by_seed.values()] for place in x]
            _band(axes, list(x), values, name, look[name])
        axes.set_xticks(list(x), [f"{label}\n{n:,}" for label, n in zip(found.labels, found.counts, strict=True)])
        axes.set(xlabel=f"length of the source in {found.unit}; below it, sentences", title=label)
        _legend(figure, axes)
    return figure


def maps(example: Example) -> "Figure":
    """The attention of every variant on one sentence or image, side by side; white is none, and dark is all.

    Placed by hand, in inches: cells are of one size in all panels, and labels have the room that the longest one needs.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = example.panels
    left, above = (max(_inches(panel, side) for panel in panels) for side in ("target", "source"))
    cell = _CELL if example.path is None else _IMAGE / max(len(panel.weights[0]) for panel in panels)
    widths, heights = (max(map(size, panels)) * cell for size in (_columns, _rows))
    wide, high = left + widths + _GAP, above + heights + _GAP
    across = max(1, min(len(panels), int(_PAGE // wide)))
    down = -(-len(panels) // across)
    across = -(-len(panels) // down)  # rows as even as can be
    with rc_context(_STYLE):
        figure = Figure(figsize=(across * wide, down * high))
        for place, panel in enumerate(panels):
            x = place % across * wide + left
            y = (down - place // across) * high - above
            width, height = _columns(panel) * cell, _rows(panel) * cell
            axes = figure.add_axes(
                (x / (across * wide), (y - height) / (down * high), width / (across * wide), height / (down * high))
            )
            axes.set_axis_off()
            if example.path is None:
                _map_of_words(axes, panel)
            else:
                _map_of_image(axes, panel, example.path)
            figure.text((x - left) / (across * wide), (y + above - 0.2) / (down * high), panel.variant, size=9.5)
    return figure


def _columns(panel: Panel) -> int:
    return len(panel.weights[0])


def _rows(panel: Panel) -> int:
    return len(panel.weights)


def _inches(panel: Panel, side: str) -> float:
    """How long the longest label of a side is, and the title's line above the source."""
    longest = max((len(_drawable(token)) for token in getattr(panel, side)), default=0)
    return longest * 0.07 + (0.35 if side == "source" else 0.1 * bool(longest))


def _map_of_words(axes: "Axes", panel: Panel) -> None:
    """Text and lines rather than ticks and a grid, on which matplotlib would spend most of its time."""
    n_target, n_source = len(panel.target), len(panel.source)
    axes.imshow(panel.weights, cmap=_heat(), vmin=0, vmax=1, aspect="equal")
    axes.set_axis_off()
    lines = {"color": _RULE, "linewidth": 0.5, "clip_on": False}
    axes.vlines([i - 0.5 for i in range(n_source + 1)], -0.5, n_target - 0.5, **lines)
    axes.hlines([j - 0.5 for j in range(n_target + 1)], -0.5, n_source - 0.5, **lines)
    for i, token in enumerate(panel.source):
        axes.text(i, -0.75, _drawable(token), rotation=90, ha="center", va="bottom", size=8)
    for j, token in enumerate(panel.target):
        axes.text(-0.75, j, _drawable(token), ha="right", va="center", size=8)
    if n_target == 1:
        for i, weight in enumerate(panel.weights[0]):
            axes.text(i, 0.7, f"{weight:.2f}".removeprefix("0"), ha="center", va="top", size=7, color=_MUTED)


def _drawable(token: str) -> str:
    """A token as a label: not too long, and without what XML forbids."""
    shown = "".join("\ufffd" if unicodedata.category(sign) in ("Cc", "Cs") else sign for sign in token)
    return shown if len(shown) <= _LONGEST_LABEL else shown[: _LONGEST_LABEL - 1] + "…"


def _map_of_image(axes: "Axes", panel: Panel, path: Path) -> None:
    """The image with its weights over it, as bright as they are heavy, and the heaviest fully so."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as opened:
        picture = np.asarray(opened.convert("RGB"))
    height, width = picture.shape[:2]
    weights = np.asarray(panel.weights, dtype=float)
    veil = 1 - weights / max(weights.max(), 1e-12)
    extent = (0, width, height, 0)
    axes.imshow(picture, extent=extent, interpolation="nearest")
    axes.imshow(np.zeros((*veil.shape, 3)), alpha=0.8 * veil, extent=extent, interpolation="nearest")
    axes.set_axis_off()


def _heat() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("heat", ["#ffffff", _HEAT])
