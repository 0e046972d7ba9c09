"""Pictures of attention.

Matplotlib is imported when a picture is drawn, and only its object interface is used: no backend to choose,
no figures that stay open in a global list while a training run goes on.
"""

import io
import os
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from attnlab.files import write_bytes

_DPI = 120
_CELL = (0.2, 0.55)  # inches: the least and the greatest side of a cell
_COMFORTABLE = 9.0  # inches: the map's longer side, as long as the cells are between those two
_LARGEST = 30.0  # inches: the longer side is never more; the cells of a longer sequence shrink instead
_LABEL_PITCH = 0.12  # inches: labels any closer would overlap, so only every k-th is written
_LONG = 40  # cells across which the labels are repeated on the far side
_LONGEST_LABEL = 24  # characters
_SCALE_ENDS = (0.05, 0.1, 0.2, 0.5, 1.0)
_GOLD, _CHOICE, _INK, _GRID, _MISSING = "#e6550d", "#ffd60a", "#333333", "#d9d9d9", "#c9b8b8"


def attention_heatmap(
    weights: Any,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
    gold: Iterable[tuple[int, int]] | None = None,
    choices: Any = None,
    vmax: float | None = None,
) -> np.ndarray:
    """Draw attention as a table of cells: source tokens across the top, target tokens down the side, dark is
    heavy.

    weights: [T, S], a torch tensor or an array, in [0, 1]. A NaN is shown as a reddish grey cell.
    path: where the PNG goes, whole or not at all; None writes nothing.
    gold: links (i, j) between source token i and target token j, outlined.
    choices: [T] or [T, K], the source positions that hard attention chose for each target token, dotted; -1
    for none.
    vmax: the weight of the darkest colour. By default the first of 0.05, 0.1, 0.2, 0.5 and 1 that no weight
    exceeds: diffuse attention stays visible, and pictures share few scales; the colour bar names it.

    Returns the picture, [height, width, 3] uint8, the same that the file holds. Cells shrink as the sequences
    grow, to a map of at most 3,600 pixels a side; from about 250 tokens only every second, third, ...
    label is written. Labels of more than 24 characters are cut. Control characters, spaces and empty tokens
    are written visibly.

    Raises ValueError where shapes, links or choices do not fit, UserError where the file cannot be written.
    """
    table = _array(weights).astype(np.float64)
    if table.shape != (len(target_tokens), len(source_tokens)):
        raise ValueError(
            f"The weights have the shape {table.shape}, but there are {len(target_tokens)} target and "
            f"{len(source_tokens)} source tokens."
        )
    if table.size == 0:
        raise ValueError("There is no attention to draw: the source or the target has no tokens.")
    n_target, n_source = table.shape
    outlined = sorted({(int(i), int(j)) for i, j in gold or ()})
    if any(not (0 <= i < n_source and 0 <= j < n_target) for i, j in outlined):
        raise ValueError(f"A gold link lies outside the {n_source} source and {n_target} target tokens.")
    dotted = _chosen(choices, n_target, n_source)

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle
    from PIL import Image

    longer = max(table.shape)
    cell = float(np.clip(_COMFORTABLE / longer, *_CELL))
    cell = min(cell, _LARGEST / longer)
    cell = max(round(cell * _DPI), 1) / _DPI if cell * _DPI >= 3 else cell  # whole pixels: even grid lines
    width, height = cell * n_source, cell * n_target
    font = {"family": "DejaVu Sans", "color": _INK, "parse_math": False, "usetex": False}
    label_font = {**font, "size": float(np.clip(0.5 * 72 * cell, 6.5, 11))}

    # Positions are in inches throughout, as fractions of a figure of the map's size. Labels stick out of it;
    # the picture is cut around everything drawn.
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    scale_end = vmax if vmax is not None else _scale_end(table)
    image = axes.imshow(np.ma.masked_invalid(table), cmap=_white_to_indigo(), vmin=0, vmax=scale_end, aspect="auto")

    # Text and lines rather than ticks and a grid: matplotlib spends most of a large picture on its ticks.
    axes.set_axis_off()
    axes.set(xlim=(-0.5, n_source - 0.5), ylim=(n_target - 0.5, -0.5))
    lines = {"color": _GRID, "linewidth": 0.5, "clip_on": False}
    inner = cell * _DPI >= 6  # thinner cells would vanish behind the lines
    axes.vlines(np.arange(n_source + 1)[:: 1 if inner else n_source] - 0.5, -0.5, n_target - 0.5, **lines)
    axes.hlines(np.arange(n_target + 1)[:: 1 if inner else n_target] - 0.5, -0.5, n_source - 0.5, **lines)
    every, gap = int(np.ceil(_LABEL_PITCH / cell)), 0.06 / cell
    source_labels = [_visible(token) for token in source_tokens]
    turn = _turn(source_labels, cell, label_font["size"])
    for i in range(0, n_source, every):
        axes.text(i, -0.5 - gap, source_labels[i], **label_font, **turn, va="bottom")
        if n_target >= _LONG:
            axes.text(i, n_target - 0.5 + gap, source_labels[i], **label_font, rotation=90, ha="center", va="top")
    for j in range(0, n_target, every):
        label = _visible(target_tokens[j])
        axes.text(-0.5 - gap, j, label, **label_font, ha="right", va="center_baseline")
        if n_source >= _LONG:
            axes.text(n_source - 0.5 + gap, j, label, **label_font, ha="left", va="center_baseline")

    points = 72 * cell
    for i, j in outlined:
        box = Rectangle((i - 0.5, j - 0.5), 1, 1, fill=False, edgecolor=_GOLD, clip_on=False, zorder=3)
        box.set_linewidth(float(np.clip(points / 14, 0.8, 2)))
        axes.add_patch(box)
    dot = {"marker": "o", "linestyle": "", "markerfacecolor": _CHOICE, "markeredgecolor": _INK}
    if dotted:
        at_rows, at_columns = zip(*dotted, strict=True)
        size = float(np.clip(points / 4, 1.5, 7))
        axes.plot(at_columns, at_rows, **dot, markersize=size, markeredgewidth=size / 9, zorder=4)

    # The colour bar stands to the right of whatever the labels take up, the title above it.
    renderer = figure.canvas.get_renderer()
    drawn = axes.get_tightbbox(renderer)
    if title:
        rows = textwrap.wrap(title, width=max(32, int(width * 10)))
        figure.text(0, drawn.y1 / _DPI / height + 0.12 / height, "\n".join(rows), **font, size=11, va="bottom")
    right = drawn.x1 / _DPI + 0.2
    tall = float(np.clip(height, 1.2, 4))
    bar_axes = figure.add_axes((right / width, 1 - tall / height, 0.14 / width, tall / height))
    bar = figure.colorbar(image, cax=bar_axes, ticks=np.linspace(0, scale_end, 6 if tall > 1.5 else 3))
    bar.outline.set(edgecolor=_GRID, linewidth=0.6)
    bar_axes.tick_params(length=2, width=0.6, labelsize=8, color=_GRID, labelcolor=_INK, pad=2)
    bar.set_label("attention weight", **font, size=9)

    keys = []
    if outlined:
        keys.append(Rectangle((0, 0), 1, 1, fill=False, edgecolor=_GOLD, linewidth=1.5, label="gold link"))
    if dotted:
        keys.append(Line2D([], [], **dot, markersize=5, markeredgewidth=0.6, label="chosen position"))
    if keys:
        # Below the bar, where no label can be.
        bar_axes.legend(
            handles=keys, loc="upper left", bbox_to_anchor=(0, -0.08 / tall), borderaxespad=0, frameon=False,
            prop={"family": "DejaVu Sans", "size": 8}, labelcolor=_INK, handlelength=1.2, handleheight=1.2,
        )  # fmt: skip
    # Cut around everything drawn. "tight" would come to the same after drawing it all once more.
    page = figure.get_tightbbox(renderer).padded(0.12)
    png = io.BytesIO()
    # Without the version of matplotlib in it, the same weights give the same file.
    figure.savefig(png, format="png", bbox_inches=page, metadata={"Software": None})
    if path is not None:
        write_bytes(path, png.getvalue())
    return np.asarray(Image.open(png).convert("RGB"))


def _array(values: Any) -> np.ndarray:
    # A tensor may require gradients, live on a GPU, or be in bfloat16, which numpy lacks.
    return values.detach().cpu().double().numpy() if hasattr(values, "detach") else np.asarray(values)


def _scale_end(table: np.ndarray) -> float:
    finite = table[np.isfinite(table)]
    heaviest = float(finite.max()) if finite.size else 0.0
    if heaviest <= 0:
        return 1.0
    # A softmax in single precision may exceed 1 by a rounding error.
    return next((end for end in _SCALE_ENDS if heaviest <= end + 1e-4), heaviest)


def _chosen(choices: Any, n_target: int, n_source: int) -> list[tuple[int, int]]:
    """(row, column) of every chosen position, each once."""
    if choices is None:
        return []
    rows = _array(choices)
    if rows.ndim not in (1, 2) or len(rows) != n_target:
        raise ValueError(f"There must be choices for each of {n_target} target tokens: {rows.shape}.")
    if rows.min(initial=-1) < -1 or rows.max(initial=-1) >= n_source:
        raise ValueError(f"A choice lies outside the {n_source} source tokens.")
    table = rows.reshape(n_target, -1).astype(int)
    return sorted({(j, int(i)) for j, row in enumerate(table) for i in row if i >= 0})


def _visible(token: str) -> str:
    """`token` as a label on which every character can be seen."""
    if not token:
        return "⟨empty⟩"
    label = "".join(_visible_character(character) for character in token)
    if unicodedata.combining(label[0]):
        label = "◌" + label  # an accent needs something to sit on
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"


def _visible_character(character: str) -> str:
    if character == " ":
        return "␣"
    # Other (control, format, surrogate, private, unassigned) and separators: nothing that a font would draw.
    if unicodedata.category(character)[0] in "CZ":
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")
    return character


def _turn(labels: Sequence[str], cell: float, size: float) -> dict[str, Any]:
    """How labels of `size` points stand above cells of `cell` inches: upright only where all of them fit."""
    longest = max(map(len, labels)) * 0.62 * size  # points; a letter of DejaVu Sans is about 0.62 em wide
    if longest < 0.9 * 72 * cell:
        return {"rotation": 0, "ha": "center"}
    if cell >= 0.3:
        return {"rotation": 45, "ha": "left", "rotation_mode": "anchor"}
    return {"rotation": 90, "ha": "center"}


@cache
def _white_to_indigo() -> Any:
    """A colour map on a straight line in CIELAB from white to a dark indigo.

    Equal steps of weight are equal steps of lightness, so the map is perceptually uniform, survives grey
    print and colour blindness, and a weight of 0 is the page itself; matplotlib's uniform maps start yellow.
    """
    from matplotlib.colors import ListedColormap

    lab = np.linspace((100, 0, 0), (22, 18, -46), 256)
    f = (lab[:, :1] + 16) / 116 + np.stack((lab[:, 1] / 500, 0 * lab[:, 1], -lab[:, 2] / 200), axis=1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.95047, 1.0, 1.08883)  # white D65
    linear = xyz @ np.array(((3.2406, -0.9689, 0.0557), (-1.5372, 1.8758, -0.2040), (-0.4986, 0.0415, 1.0570)))
    linear = linear.clip(0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    srgb[0] = 1.0  # white is exactly white
    return ListedColormap(srgb.clip(0, 1), name="white_to_indigo").with_extremes(bad=_MISSING)
