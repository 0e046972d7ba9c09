"""The attention of several variants on the same sentence or image."""

import base64
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from attnlab.report.points import DataSet
from attnlab.report.read import Problem, Run

_MOST = 12  # examples in the page


@dataclass(frozen=True)
class Panel:
    """One variant's attention.

    Attributes:
        variant: its name.
        weights: [T][S] of a translation, [rows][columns] of an image.
        source: S tokens; none for an image.
        target: T tokens; none for an image.
    """

    variant: str
    weights: list[list[float]]
    source: tuple[str, ...] = ()
    target: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """The same sentence or image, as each variant attends to it.

    Attributes:
        title: the source, or which image.
        panels: one a variant.
        image: a `data:` address of the image; empty for a sentence.
        path: the image's file.
    """

    title: str
    panels: tuple[Panel, ...]
    image: str = ""
    path: Path | None = None


def examples(data: DataSet) -> tuple[list[Example], list[Problem]]:
    """The examples that the runs drew, each variant with its lowest seed that has any; the first twelve.

    Examples are the same where their `row` in the test set is; where none is recorded, their place in the file.
    """
    runs: dict[str, Run] = {}
    for variant in data.variants:
        drawn = [run for run in variant.runs.values() if run.attention]
        if drawn:
            runs[variant.name] = drawn[0]
    if not runs:
        return [], []
    by_row = {
        name: {row.get("row", place): row for place, row in enumerate(run.attention)} for name, run in runs.items()
    }
    found, problems = [], []
    for number in sorted({number for rows in by_row.values() for number in rows})[:_MOST]:
        rows = {name: its[number] for name, its in by_row.items() if number in its}
        kinds = {row["kind"] for row in rows.values()}
        if kinds == {"image"}:
            example, problem = _image(number, rows, runs)
            problems += problem
            found += example
        elif kinds == {"translation"}:
            found.append(_translation(rows))
    return found, problems


def _translation(rows: dict[str, dict[str, Any]]) -> Example:
    panels = tuple(
        Panel(name, row["weights"], tuple(row["source"]), tuple(row["target"])) for name, row in rows.items()
    )
    return Example(sentence(panels[0].source), panels)


def sentence(tokens: Sequence[str]) -> str:
    """Tokens as a person writes them; the end of the sentence goes without saying."""
    kept = [token for token in tokens if token not in ("<eos>", "</s>", "<s>", "<bos>")]
    single = [len(token) == 1 for token in kept]
    if sum(single) * 2 <= len(kept):  # words or pieces of them
        return " ".join(kept).replace(" ##", "")
    return " ".join("".join(its) if one else " ".join(its) for one, its in _stretches(kept)).replace("\u00b7", " ")


def _stretches(tokens: Sequence[str]) -> list[tuple[bool, list[str]]]:
    """Characters, and symbols between them (morphological tags), in stretches of one kind."""
    return [(one, list(its)) for one, its in groupby(tokens, key=lambda token: len(token) == 1)]


def _image(number: int, rows: dict[str, dict[str, Any]], runs: dict[str, Run]) -> tuple[list[Example], list[Problem]]:
    panels = tuple(Panel(name, row["map"]) for name, row in rows.items())
    for name, row in rows.items():  # it is the same image for all, so that any copy will do
        directory = runs[name].directory.resolve()
        path = (directory / row["image"]).resolve()
        kind = mimetypes.guess_type(path.name)[0] or ""
        if path.is_relative_to(directory) and path.is_file() and kind in ("image/png", "image/jpeg"):
            title = f"image {number + 1}" + (f": {row['label']}" if isinstance(row.get("label"), str) else "")
            address = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
            return [Example(title, panels, address, path)], []
    name = next(iter(rows))
    sentence = (
        f"Left out of the attention maps: its attention.jsonl names {rows[name]['image']}, which is no image of it."
    )
    return [], [Problem(runs[name].name, "damaged", sentence)]
