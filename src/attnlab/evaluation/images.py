"""Attention over images: as it flows through the layers, and as pictures.

Matplotlib is imported when a picture is drawn, and only its object interface is used: see plots.py. Every picture is
written whole or not at all, and returned as it stands in the file, [height, width, 3] uint8; without a path it is only
returned. Drawing raises ValueError where shapes or values do not fit, UserError where the file cannot be written.

An image is float [C, H, W] with values from 0 to 1 and one or three channels. A map is non-negative attention
[rows, cols] over the equal patches that the image is cut into.
"""

import io
import os
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from attnlab.evaluation.plots import _CHOICE, _DPI, _GRID, _INK, _array, _turn, _white_to_indigo
from attnlab.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Target = str | os.PathLike[str] | None

_MOST_HEADS, _MOST_LAYERS, _MOST_IMAGES = 8, 6, 40
_MOST_COUNTED = 20  # classes up to which a confusion matrix holds numbers
_LONGEST_NAME = 24  # characters
_GAP = 0.08  # inches between panels
_BOX, _WRONG, _RIGHT = "#00a6d6", "#c1121f", "#2d6a4f"
_FONT = {"family": "DejaVu Sans", "color": _INK, "parse_math": False, "usetex": False}
_BRIGHTNESS = (0.2126, 0.7152, 0.0722)  # of red, green and blue (Rec. 709)


def rollout(layers: Sequence[Tensor]) -> Tensor:
    """Attention rollout: what each output position receives from each input position through all layers.

    layers: the attention of each layer, the first one first: [B, H, T, T], query by key; the number of heads may
    differ, and the last one may have fewer queries, the first R. Returns [B, R, T] with rows that sum to 1, in single
    precision or better.

    Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", §3: Ã_l = A_l Ã_(l-1) with
    A_l = ½ W_l + ½ I. W_l is the mean over the heads, and ½ I the residual connection; the rows are normalised,
    lest dropout or masks change the total. Raises ValueError where there is no layer or the shapes do not fit.
    """
    if not layers:
        raise ValueError("A rollout goes through at least one layer; there is none.")
    shape = layers[0].shape
    fits = all(w.dim() == 4 and w.shape[0] == shape[0] and w.shape[-1] == shape[-1] for w in layers)
    if not fits or any(w.shape[2] != shape[-1] for w in layers[:-1]) or layers[-1].shape[2] > shape[-1]:
        raise ValueError(
            "A rollout goes through layers of self-attention [B, H, T, T] over the same positions; the last may "
            f"have fewer queries; the shapes are {', '.join(str(tuple(weights.shape)) for weights in layers)}."
        )
    flow = None
    for weights in layers:
        heads = weights.to(torch.promote_types(weights.dtype, torch.float32)).mean(dim=1)
        mixed = 0.5 * heads + 0.5 * torch.eye(*heads.shape[-2:], device=heads.device, dtype=heads.dtype)
        mixed = mixed / mixed.sum(dim=-1, keepdim=True)
        flow = mixed if flow is None else mixed @ flow
    return flow


def to_grid(weights: Tensor, rows: int, cols: int, leading: int = 0) -> Tensor:
    """Attention to patches as maps over the image: [..., S] -> [..., rows, cols].

    The first `leading` positions, which are no patches (a class token), are dropped, and what is left is divided by
    its sum; where nothing is left, it stays 0. The patches follow row by row, so S = leading + rows * cols.
    Raises ValueError otherwise.
    """
    if weights.shape[-1] != leading + rows * cols:
        raise ValueError(
            f"There is attention to {weights.shape[-1]} positions, but {leading} leading ones and {rows} by {cols} "
            f"patches make {leading + rows * cols}."
        )
    patches = weights[..., leading:].to(torch.promote_types(weights.dtype, torch.float32))
    total = patches.sum(dim=-1, keepdim=True)
    return (patches / total.where(total > 0, 1)).unflatten(-1, (rows, cols))


def draw_maps(
    path: Target,
    image: Tensor,
    maps: Mapping[str, Tensor],
    rollout: Tensor | None = None,
    title: str | None = None,
) -> np.ndarray:
    """Draw one image's attention: a row a layer, a column a head and one for their mean; above, the image and the
    rollout.

    maps: [heads, rows, cols] by the name of the layer, each map a share of mass. rollout: [rows, cols].

    The colour is a patch's share of the attention. Each row has one scale, written beside it; it ends at or above the
    row's heaviest patch and twice the uniform share, so that even attention looks even and not heavy. The first 8
    heads and 6 layers are drawn, and a note names the rest.
    """
    pixels = _pixels(image)
    layers = {name: _maps(table, f"maps of {name}") for name, table in maps.items()}
    if not layers:
        raise ValueError("There is no attention to draw: no layer is given.")
    overall = None if rollout is None else _maps(rollout[None], "rollout")[0]
    most = max(len(table) for table in layers.values())
    heads = min(most, _MOST_HEADS)
    columns = heads + (most > 1)
    width, height = _panel_size(pixels, float(np.clip(9 / columns, 1.15, 2)))

    page = _Page()
    y = _draw_overview(page, pixels, overall, max(1.6, width, height))
    for x, label in zip(_columns(heads, most, width), _headings(heads, most), strict=True):
        page.text(x + width / 2, y - 0.05, label, size=9, ha="center", va="bottom")
    for name, table in list(layers.items())[:_MOST_LAYERS]:
        _draw_layer(page, pixels, name, table, heads, _columns(heads, most, width), y, (width, height))
        y += height + _GAP

    across = max(columns * (width + _GAP) + 0.6, 4.5)
    notes = ["Colour: a patch's share of the attention, one scale a row. ▸ is uniform attention."]
    page.notes(0, y + 0.06, [*notes, *_not_drawn(list(layers), most)], across)
    page.title(title, across)
    return page.write(path)


def _draw_overview(page: "_Page", pixels: np.ndarray, overall: np.ndarray | None, side: float) -> float:
    """The image, and the rollout beside it. Returns where the rows of layers may begin."""
    width, height = _panel_size(pixels, side)
    page.text(width / 2, -0.05, "image", size=9, ha="center", va="bottom")
    _show(page.panel(0, 0, width, height), pixels)
    if overall is not None:
        x = width + 2 * _GAP
        page.text(x + width / 2, -0.05, "rollout", size=9, ha="center", va="bottom")
        end = _scale_end(overall)
        _show(page.panel(x, 0, width, height), _backdrop(pixels), overall, end)
        _bar(page, x + width + 0.16, 0, height, end, 1 / overall.size)
    return height + 0.36


def _draw_layer(
    page: "_Page",
    pixels: np.ndarray,
    name: str,
    table: np.ndarray,
    heads: int,
    columns: Sequence[float],
    y: float,
    size: tuple[float, float],
) -> None:
    width, height = size
    drawn = table[:heads]
    places = list(columns[: len(drawn)])
    if len(columns) > heads:
        drawn, places = np.concatenate((drawn, table.mean(axis=0, keepdims=True))), [*places, columns[-1]]
    end = _scale_end(drawn)
    backdrop = _backdrop(pixels)
    for x, weights in zip(places, drawn, strict=True):
        _show(page.panel(x, y, width, height), backdrop, weights, end)
    label = "\n".join(textwrap.wrap(_short(name), width=max(8, int(height * 13)))[:2])
    page.text(-0.1, y + height / 2, label, size=9, rotation=90, ha="right", va="center", multialignment="center")
    _bar(page, columns[-1] + width + 0.16, y, height, end, 1 / table[0].size)


def _columns(heads: int, most: int, width: float) -> list[float]:
    """Where the panels of a row begin; the mean stands a little apart."""
    places = [number * (width + _GAP) for number in range(heads)]
    return [*places, heads * (width + _GAP) + _GAP] if most > 1 else places


def _headings(heads: int, most: int) -> list[str]:
    names = [f"head {number + 1}" for number in range(heads)]
    return [*names, "mean" if most == heads else f"mean of {most}"] if most > 1 else names


def _not_drawn(layers: Sequence[str], heads: int) -> list[str]:
    rest = []
    if len(layers) > _MOST_LAYERS:
        rest.append(f"layers {_MOST_LAYERS + 1} to {len(layers)} ({_short(layers[_MOST_LAYERS])} …)")
    if heads > _MOST_HEADS:
        rest.append(f"heads {_MOST_HEADS + 1} to {heads}")
    return [f"Not drawn: {', '.join(rest)}."] if rest else []


def draw_glimpses(
    path: Target,
    image: Tensor,
    chosen: Tensor | Sequence[int],
    patch: int,
    cols: int,
    box: Tensor | Sequence[float] | None = None,
    title: str | None = None,
) -> np.ndarray:
    """Draw the patches that hard attention chose: they alone keep their brightness, outlined and numbered in order.

    chosen: long [k], counted row by row from the top left, in the order of the choices; a patch chosen again has
    several numbers. patch: its side in pixels. cols: patches in a row. box: left, top, right, bottom in pixels, the
    true place of the object, outlined.
    """
    pixels = _pixels(image)
    picked = _array(chosen).astype(int)
    if picked.ndim != 1 or len(picked) == 0 or (box is not None and len(box) != 4):
        raise ValueError(
            f"The chosen patches are a list of at least one, the box has four sides; the shape of the choices is "
            f"{picked.shape}, the box is {box}."
        )
    rows = len(pixels) // max(patch, 1)
    if patch < 1 or cols * patch > pixels.shape[1] or picked.min() < 0 or picked.max() >= rows * cols:
        raise ValueError(
            f"Patches {picked.min()} to {picked.max()} of {patch} by {patch} pixels, {cols} in a row, do not lie in an "
            f"image of {pixels.shape[0]} by {pixels.shape[1]} pixels."
        )
    orders: dict[int, list[int]] = defaultdict(list)
    for order, index in enumerate(picked.tolist(), 1):
        orders[index].append(order)

    seen = _dimmed(pixels)
    for index in orders:
        y, x = (index // cols) * patch, (index % cols) * patch
        seen[y : y + patch, x : x + patch] = pixels[y : y + patch, x : x + patch]
    page = _Page()
    width, height = _panel_size(pixels, 4.2)
    axes = page.panel(0, 0, width, height)
    _show(axes, seen)
    for index, numbers in orders.items():
        _outline_choice(axes, (index % cols) * patch, (index // cols) * patch, patch, ", ".join(map(str, numbers)))
    if box is not None:
        left, top, right, bottom = _array(box).astype(float)
        _outline(axes, left, top, right - left, bottom - top, _BOX, 2)
    _key(page, height + 0.12, box is not None)
    page.title(title, max(width, 4), y=-0.1)
    return page.write(path)


def _outline_choice(axes: "Axes", x: float, y: float, patch: int, label: str) -> None:
    from matplotlib.patheffects import withStroke

    points = 72 / _DPI * np.ptp(axes.transData.transform([(0, 0), (patch, 0)])[:, 0])
    _outline(axes, x, y, patch, patch, _CHOICE, 1.5)
    size = float(np.clip(min(0.4 * points, 0.85 * points / (0.62 * len(label))), 5, 13))
    axes.text(
        x + 0.06 * patch, y + 0.05 * patch, label,
        **{**_FONT, "color": _CHOICE}, size=size, weight="bold", ha="left", va="top", zorder=5,
        path_effects=[withStroke(linewidth=size / 4, foreground="black")],
    )  # fmt: skip


def _outline(axes: "Axes", x: float, y: float, width: float, height: float, colour: str, line: float) -> None:
    """A frame that stands out from any image: a coloured line on a wider dark one."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    frame = Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=line, clip_on=False, zorder=4)
    frame.set_path_effects([withStroke(linewidth=line + 1.2, foreground="#000000aa")])
    axes.add_patch(frame)


def _key(page: "_Page", y: float, with_box: bool) -> None:
    x = 0.0
    for colour, label in ((_CHOICE, "chosen patch, in order"), (_BOX, "true box"))[: 1 + with_box]:
        axes = page.panel(x, y, 0.14, 0.14)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        _outline(axes, 0, 0, 1, 1, colour, 1.5)
        page.text(x + 0.22, y + 0.07, label, size=9, va="center_baseline")
        x += 0.3 + 0.085 * len(label)


def draw_confusion(path: Target, confusion: Tensor, classes: Sequence[str], title: str | None = None) -> np.ndarray:
    """Draw a confusion matrix: true classes down the side, predicted ones across the top.

    confusion: long [C, C], counts of true (row) and predicted (column) classes. The colour is the share of the true
    class's examples, on a scale of square roots that shows rare mistakes; a class without examples has a reddish grey
    row. Up to 20 classes the counts stand in the cells,
    where they are not 0. Names of more than 24 characters are cut, and where there is no room for all of them (from
    about 250 classes) only every second, third, ... is written.
    """
    counts = _array(confusion)
    n = len(classes)
    if counts.shape != (n, n) or n == 0:
        raise ValueError(f"A confusion matrix [C, C] needs the names of C classes; {counts.shape} came with {n} names.")
    if counts.min() < 0:
        raise ValueError(f"A confusion matrix counts examples; found {counts.min():g}.")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)

    cell = min(float(np.clip(8 / n, 0.125, 0.6)), 30 / n)
    cell = max(round(cell * _DPI), 1) / _DPI
    side = cell * n
    page = _Page()
    axes = page.panel(0, 0, side, side)
    roots = np.ma.masked_invalid(np.sqrt(shares))
    axes.imshow(roots, cmap=_white_to_indigo(), vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    step = 1 if cell >= 0.08 else n  # thinner cells would vanish behind the lines
    lines = {"color": _GRID, "linewidth": 0.5, "clip_on": False}
    axes.vlines(np.arange(0, n + 1, step) - 0.5, -0.5, n - 0.5, **lines)
    axes.hlines(np.arange(0, n + 1, step) - 0.5, -0.5, n - 0.5, **lines)
    if n <= _MOST_COUNTED:
        _write_counts(axes, counts, shares, cell)
    _name_classes(page, axes, classes, cell)
    right = page.right_of(axes) + 0.2
    _confusion_bar(page, right, min(side, 3.0))
    page.title(title, max(side, 4), y=page.top_of(axes) - 0.38)
    return page.write(path)


def _write_counts(axes: "Axes", counts: np.ndarray, shares: np.ndarray, cell: float) -> None:
    longest = len(f"{counts.max():.0f}")
    size = float(np.clip(0.85 * 72 * cell / (0.64 * longest), 4, min(11, 0.45 * 72 * cell)))
    for i, j in np.argwhere(counts > 0):
        colour = "white" if shares[i, j] > 0.3 else _INK
        axes.text(
            j, i, f"{counts[i, j]:.0f}", **{**_FONT, "color": colour}, size=size, ha="center", va="center_baseline"
        )


def _name_classes(page: "_Page", axes: "Axes", classes: Sequence[str], cell: float) -> None:
    names = [_short(name) for name in classes]
    size = float(np.clip(0.55 * 72 * cell, 6, 10))
    every, gap = int(np.ceil(0.12 / cell)), 0.06 / cell
    turn = _turn(names, cell, size)
    for number in range(0, len(names), every):
        axes.text(number, -0.5 - gap, names[number], **_FONT, **turn, size=size, va="bottom")
        axes.text(-0.5 - gap, number, names[number], **_FONT, size=size, ha="right", va="center_baseline")
    side = cell * len(names)
    left, top = page.left_of(axes), page.top_of(axes)
    page.text(left - 0.12, side / 2, "true class", size=11, rotation=90, ha="right", va="center")
    page.text(side / 2, top - 0.08, "predicted class", size=11, ha="center", va="bottom")


def _confusion_bar(page: "_Page", x: float, height: float) -> None:
    axes = page.panel(x, 0, 0.14, height)
    axes.imshow(np.linspace(1, 0, 256)[:, None], cmap=_white_to_indigo(), extent=(0, 1, 0, 1), aspect="auto")
    _frame(axes, 1, 1)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for share in (0, 0.02, 0.1, 0.25, 0.5, 1):
        axes.hlines(np.sqrt(share), 1, 1.2, color=_INK, linewidth=0.6, clip_on=False)
        axes.text(1.4, np.sqrt(share), _percent(share), **_FONT, size=8, va="center_baseline")
    page.text(x + 0.62, height / 2, "share of the true class", size=9, rotation=90, ha="left", va="center")


def draw_montage(
    path: Target,
    images: Tensor,
    labels: Sequence[str],
    predictions: Sequence[str],
    probabilities: Tensor | Sequence[float],
    maps: Tensor | None = None,
    title: str | None = None,
) -> np.ndarray:
    """Draw a page of test images, each with its label, its prediction and how probable that is, and where the model
    looked.

    images: [N, C, H, W]. labels, predictions: the names of the true and the most probable class. probabilities: [N],
    of the predictions. maps: [N, rows, cols], each a share of mass, drawn beside the images on one common scale.
    The first 40 images are drawn.
    """
    shares = _array(probabilities).astype(float)
    lengths = {len(images), len(labels), len(predictions), len(shares)} | ({len(maps)} if maps is not None else set())
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"Every image needs its label, prediction, probability and map; there are {len(images)} images, "
            f"{len(labels)} labels, {len(predictions)} predictions, {len(shares)} probabilities and "
            f"{'no' if maps is None else len(maps)} maps."
        )
    count = min(len(images), _MOST_IMAGES)
    pictures = [_pixels(image) for image in images[:count]]
    tables = None if maps is None else _maps(maps[:count], "maps")
    width, height = _panel_size(pictures[0], 1.05)
    tile = width if tables is None else 2 * width + _GAP / 2
    per_row = min(count, max(1, int(12.2 / (tile + 0.25))))
    end = 1.0 if tables is None else _scale_end(tables)

    page = _Page()
    for number, pixels in enumerate(pictures):
        x, y = (number % per_row) * (tile + 0.25), (number // per_row) * (height + 0.52)
        _caption(page, x, y, tile, labels[number], predictions[number], shares[number])
        _show(page.panel(x, y, width, height), pixels)
        if tables is not None:
            _show(page.panel(x + width + _GAP / 2, y, width, height), _backdrop(pixels), tables[number], end)
    across = per_row * (tile + 0.25)
    notes = ["Above: the true class. Below: the predicted one, with its probability."]
    if tables is not None:
        _bar(page, across, 0, height, end, 1 / tables[0].size)
        notes.append("Colour: a patch's share of the attention. ▸ is uniform attention.")
    bottom = -(-count // per_row) * (height + 0.52) - 0.42
    page.notes(0, bottom, notes, max(across, 4))
    page.title(title, max(across, 4), y=-0.5)
    return page.write(path)


def _caption(page: "_Page", x: float, y: float, width: float, label: str, prediction: str, share: float) -> None:
    """The true class, and below it the predicted one, marked and coloured by whether it is right."""
    letters = int(width * 12.5)
    probability = f" ({_percent(round(share, 3 if share < 0.1 else 2))})"
    right = label == prediction
    answer = f"{'✓' if right else '✗'} {_short(prediction, max(3, letters - 2 - len(probability)))}{probability}"
    page.text(x, y - 0.2, _short(label, letters), size=9, va="bottom")
    page.text(x, y - 0.04, answer, size=9, va="bottom", color=_RIGHT if right else _WRONG)


class _Page:
    """A page on which things are placed in inches from the top left, and which is cut around all that is drawn."""

    def __init__(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        # An inch by an inch, so that what matplotlib takes for fractions of the figure are inches.
        self.figure = Figure(figsize=(1, 1), dpi=_DPI, facecolor="white")
        self.renderer = FigureCanvasAgg(self.figure).get_renderer()

    def panel(self, x: float, y: float, width: float, height: float) -> "Axes":
        left, top, wide, tall = (round(length * _DPI) / _DPI for length in (x, y, width, height))
        axes = self.figure.add_axes((left, 1 - top - tall, wide, tall))
        axes.set_axis_off()
        return axes

    def text(self, x: float, y: float, string: str, **options: Any) -> None:
        self.figure.text(x, 1 - y, string, **{**_FONT, **options})

    def notes(self, x: float, y: float, notes: Sequence[str], width: float) -> None:
        self.text(x, y, "\n".join(textwrap.fill(note, width=int(width * 15)) for note in notes), size=8, va="top")

    def title(self, string: str | None, width: float, y: float = -0.3) -> None:
        if string:
            self.text(0, y, textwrap.fill(string, width=int(width * 12)), size=11, va="bottom")

    def left_of(self, axes: "Axes") -> float:
        return axes.get_tightbbox(self.renderer).x0 / _DPI

    def right_of(self, axes: "Axes") -> float:
        return axes.get_tightbbox(self.renderer).x1 / _DPI

    def top_of(self, axes: "Axes") -> float:
        return 1 - axes.get_tightbbox(self.renderer).y1 / _DPI

    def write(self, path: Target) -> np.ndarray:
        from matplotlib.transforms import Bbox
        from PIL import Image

        tight = self.figure.get_tightbbox(self.renderer).padded(0.12)
        # Cut between pixels, or panels that begin on a pixel would no longer do so.
        page = Bbox((np.floor(tight.min * _DPI) / _DPI, np.ceil(tight.max * _DPI) / _DPI))
        png = io.BytesIO()
        # Without the version of matplotlib in it, the same attention gives the same file.
        self.figure.savefig(png, format="png", bbox_inches=page, metadata={"Software": None})
        if path is not None:
            write_bytes(path, png.getvalue())
        return np.asarray(Image.open(png).convert("RGB"))


def _panel_size(pixels: np.ndarray, side: float) -> tuple[float, float]:
    """Width and height in inches, the longer of about `side`; a small image's pixels become whole ones of the page."""
    height, width = pixels.shape[:2]
    enlarged = side * _DPI / max(height, width)
    scale = (round(enlarged) if enlarged >= 1 else enlarged) / _DPI
    return width * scale, height * scale


def _show(axes: "Axes", pixels: np.ndarray, weights: np.ndarray | None = None, end: float = 1.0) -> None:
    """An image in its own coordinates, under a translucent map where there is one."""
    height, width = pixels.shape[:2]
    extent = (0, width, height, 0)
    shrinks = axes.bbox.width < width
    axes.imshow(pixels, extent=extent, aspect="auto", interpolation="antialiased" if shrinks else "nearest")
    if weights is not None:
        axes.imshow(weights, extent=extent, aspect="auto", interpolation="nearest", cmap=_spotlight(), vmin=0, vmax=end)
    _frame(axes, width, height)


def _frame(axes: "Axes", width: float, height: float) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((0, 0), width, height, fill=False, edgecolor=_GRID, linewidth=0.6, clip_on=False))


def _bar(page: _Page, x: float, y: float, height: float, end: float, uniform: float) -> None:
    """The scale of a map from 0 to `end`, over the grey of a middling image."""
    axes = page.panel(x, y, 0.12, height)
    axes.imshow(np.full((1, 1, 3), _backdrop(np.full((1, 1, 3), 0.5))), extent=(0, 1, 0, end), aspect="auto")
    ramp = np.linspace(end, 0, 256)[:, None]
    axes.imshow(ramp, extent=(0, 1, 0, end), aspect="auto", cmap=_spotlight(), vmin=0, vmax=end)
    _frame(axes, 1, end)
    axes.plot([-0.45], [uniform], marker=">", markersize=3.5, color=_INK, markeredgewidth=0, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, end))
    for share, aligned in ((0, "bottom"), (end / 2, "center_baseline"), (end, "top")):
        axes.text(1.35, share, _percent(share), **_FONT, size=8, va=aligned)


def _scale_end(weights: np.ndarray) -> float:
    """Where the scale of maps [..., rows, cols] ends: a round number that no weight exceeds."""
    needed = max(float(weights.max()), 2 / (weights.shape[-1] * weights.shape[-2]))
    power = 10.0 ** np.floor(np.log10(needed))
    # A sum in single precision may exceed a round number by a rounding error.
    steps = [float(step * power) for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10)]
    end = next((step for step in steps if needed <= step * (1 + 1e-4)), needed)
    return end if end <= 1 else max(1.0, float(weights.max()))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _short(name: str, letters: int = _LONGEST_NAME) -> str:
    return name if len(name) <= letters else name[: letters - 1] + "…"


def _pixels(image: Tensor) -> np.ndarray:
    """[C, H, W] -> [H, W, 3]."""
    values = _array(image).astype(float)
    if values.ndim != 3 or values.shape[0] not in (1, 3) or values.size == 0:
        raise ValueError(f"An image is [C, H, W] with one or three channels; the shape is {values.shape}.")
    if not (values.min() >= -1e-3 and values.max() <= 1 + 1e-3):  # NaN fails, too
        raise ValueError(
            f"An image's values lie between 0 and 1; found {values.min():.3g} to {values.max():.3g}. "
            f"Where they were standardised, undo that first."
        )
    return np.broadcast_to(values.clip(0, 1).transpose(1, 2, 0), (*values.shape[1:], 3))


def _maps(maps: Tensor, what: str) -> np.ndarray:
    """[N, rows, cols], checked."""
    values = _array(maps).astype(float)
    if values.ndim != 3 or values.size == 0:
        raise ValueError(f"The shape of the {what} is {values.shape}; maps are [heads or images, rows, cols].")
    if not (values.min() >= 0 and np.isfinite(values.max())):
        raise ValueError(f"There are weights in the {what} that are negative, infinite or no numbers.")
    return values


def _backdrop(pixels: np.ndarray) -> np.ndarray:
    """The image in grey of little contrast, so that colours upon it can be compared: [H, W, 3]."""
    grey = 0.5 + 0.45 * (pixels @ np.array(_BRIGHTNESS))
    return np.repeat(grey[..., None], 3, axis=-1)


def _dimmed(pixels: np.ndarray) -> np.ndarray:
    """The image drawn towards a middling grey, which black dims into as well as white."""
    return 0.35 * pixels + 0.65 * 0.5


@cache
def _spotlight() -> Any:
    """A colour map from transparent by orange to a dense red: no attention leaves the image as it is."""
    from matplotlib.colors import ListedColormap

    share = np.linspace(0, 1, 256)
    anchors = np.array(((1.0, 0.8, 0.0), (1.0, 0.35, 0.0), (0.75, 0.0, 0.1)))
    colours = np.stack([np.interp(share, (0, 0.5, 1), anchors[:, channel]) for channel in range(3)], axis=-1)
    return ListedColormap(np.column_stack((colours, 0.85 * share**0.6)), name="spotlight")
