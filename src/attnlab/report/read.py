"""Run directories as plain records. What cannot be read becomes a sentence, never a gap."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from attnlab.errors import UserError

_NOT_BELOW = {"wandb", "checkpoints", "attention", ".hydra"}
"""Folders of a run directory in which no other run directory lies."""
_LONGEST = 300  # characters of an error that are quoted


@dataclass(frozen=True)
class Problem:
    """A point of the comparison, or a part of one, that the report leaves out.

    Attributes:
        point: its run directory below the folder, or its choices where there is none.
        kind: failed, interrupted, running, missing, damaged or repeated.
        sentence: what happened.
    """

    point: str
    kind: str
    sentence: str


@dataclass(frozen=True)
class Run:
    """What a run directory holds.

    Attributes:
        directory: the run directory.
        name: the same as a path below the folder that was searched.
        config: the resolved config.
        overrides: those of its command line, as given.
        choices: option by config group (`attention/score`), where the run recorded them.
        ended: when it ended, ISO 8601; empty where unknown.
        metrics: its metrics.json; empty unless the run finished and the file is sound.
        predictions: an object a test sentence or image; empty where they are missing or damaged.
        curves: an object an epoch; may be empty.
        attention: an object an example drawn; may be empty.
    """

    directory: Path
    name: str
    config: dict[str, Any]
    overrides: tuple[str, ...] = ()
    choices: dict[str, str] = field(default_factory=dict)
    ended: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    predictions: tuple[dict[str, Any], ...] = ()
    curves: tuple[dict[str, Any], ...] = ()
    attention: tuple[dict[str, Any], ...] = ()

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.config["seed"])

    @property
    def usable(self) -> bool:
        """Whether it has metrics."""
        return bool(self.metrics)


class _Unreadable(Exception):
    """A file is missing or damaged; the message says which and how."""


def read_runs(folder: Path) -> tuple[list[Run], list[Problem]]:
    """Reads every run directory at or below a folder, in the order of their paths.

    Returns:
        the runs whose config can be read, finished or not, and what is wrong with any of them.

    Raises:
        UserError: if there is no such folder, or no run directory in it.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; give the folder of a sweep, or of several runs.")
    directories = list(_find(folder))
    if not directories:
        raise UserError(
            f"There is no run in {folder}: neither it nor any folder below it has a status.json. "
            "Give the folder of a sweep, such as outputs/sweeps/NAME."
        )
    problems: list[Problem] = []
    runs = [_read_run(directory, folder, problems) for directory in directories]
    return [run for run in runs if run is not None], problems


def missing(folder: Path, asked: Mapping[Path, Sequence[Sequence[str]]]) -> Iterator[Problem]:
    """A problem for each point that a sweep asked for and that none of its run directories is.

    Args:
        folder: that is searched.
        asked: by the folder of each sweep in it, its points: the overrides that tell them apart.
    """
    for sweep, points in asked.items():
        within = "" if sweep == folder else f"{sweep.relative_to(folder).as_posix()}: "
        begun = [set(_overrides(directory)) for directory in _find(sweep)]
        for point in points:
            if not any(overrides.issuperset(point) for overrides in begun):
                sentence = "Missing: the sweep asked for it, and no run directory of it can be read."
                yield Problem(within + ", ".join(point), "missing", sentence)


def _find(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real, is_run = os.path.realpath(where), "status.json" in files
        folders[:] = [] if real in seen else sorted(set(folders) - (_NOT_BELOW if is_run else set()), key=_natural)
        if is_run and real not in seen:
            yield Path(where)
        seen.add(real)


def _natural(name: str) -> list[tuple[int, str]]:
    """Orders names so that 10 comes after 2."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _read_run(directory: Path, folder: Path, problems: list[Problem]) -> Run | None:
    """The run of a directory, None without a sound status and config; adds what is wrong to `problems`."""
    name = directory.relative_to(folder).as_posix()
    name = directory.resolve().name if name == "." else name
    try:
        status = _object(directory / "status.json")
        config = _config(directory / ".hydra" / "config.yaml")
    except _Unreadable as error:
        problems.append(Problem(name, "damaged", f"Left out: {error}."))
        return None
    run = Run(
        directory,
        name,
        config,
        overrides=_overrides(directory),
        choices=_choices(directory),
        ended=str(status.get("ended", "")),
    )
    state = status.get("state")
    if state != "finished":
        problems.append(_unfinished(name, state, status))
        return run
    try:
        metrics = _object(directory / "metrics.json")
    except _Unreadable as error:
        problems.append(Problem(name, "damaged", f"Left out: {error}."))
        return run

    def lines(file: str, check: Callable[[Any], bool], without: str) -> tuple[dict[str, Any], ...]:
        try:
            return tuple(_lines(directory / file, check))
        except _Unreadable as error:
            problems.append(Problem(name, "damaged", f"Left out of {without}: {error}."))
            return ()

    predictions = lines("predictions.jsonl", _is_prediction, "the tests and samples")
    optional = {
        part: lines(f"{part}.jsonl", check, without)
        for part, check, without in (
            ("curves", _is_epoch, "the learning curves"),
            ("attention", _is_map, "the attention maps"),
        )
        if _is_there(directory / f"{part}.jsonl")
    }
    return replace(run, metrics=metrics, predictions=predictions, **optional)


def _is_there(path: Path) -> bool:
    """Whether an optional file exists and holds anything."""
    return path.exists() and (not path.is_file() or path.stat().st_size > 0)


def _unfinished(name: str, state: Any, status: dict[str, Any]) -> Problem:
    if state == "failed":
        error = " ".join(str(status.get("error") or "no reason is recorded").split())
        cut = error if len(error) <= _LONGEST else error[: _LONGEST - 1] + "…"
        return Problem(name, "failed", f"Failed: {cut}")
    if state == "interrupted":
        return Problem(name, "interrupted", "Interrupted; the same command goes on from its last checkpoint.")
    if state == "running":
        return Problem(name, "running", "Still running, or stopped without a word: its status says `running`.")
    return Problem(name, "damaged", f"Left out: its status.json gives the unknown state {state!r}.")


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _Unreadable(_reason(path, error)) from error
    if not isinstance(value, dict) or not value:
        raise _Unreadable(f"{path.name} holds no JSON object")
    return value


def _lines(path: Path, check: Callable[[Any], bool]) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, each of which passes the check."""
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise _Unreadable(_reason(path, error)) from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _Unreadable(f"line {number} of {path.name} is not JSON ({error})") from error
        if not check(row):
            raise _Unreadable(f"line {number} of {path.name} is not what such a file holds")
        yield row


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path.name} is missing"
    return f"{path.name} cannot be read ({' '.join(str(error).split())})"


def _config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise _Unreadable(_reason(path, error)) from error
    if not isinstance(config, dict) or isinstance(config.get("seed"), bool) or not isinstance(config.get("seed"), int):
        raise _Unreadable(f"{path.name} is not the config of a run: it has no seed")
    return config


def _overrides(directory: Path) -> tuple[str, ...]:
    """For names and for what is missing alone, so that what is wrong with the file does not matter."""
    listed = _yaml(directory / ".hydra" / "overrides.yaml")
    return tuple(str(item) for item in listed) if isinstance(listed, list) else ()


def _choices(directory: Path) -> dict[str, str]:
    """What Hydra writes into hydra.yaml: the option that was chosen of each group."""
    value = _yaml(directory / ".hydra" / "hydra.yaml")
    for key in ("hydra", "runtime", "choices"):
        value = value.get(key) if isinstance(value, dict) else None
    chosen = value if isinstance(value, dict) else {}
    return {str(group): str(option) for group, option in chosen.items() if not str(group).startswith("hydra/")}


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None


def _is_prediction(row: Any) -> bool:
    names = (
        ("label", "prediction") if isinstance(row, dict) and "label" in row else ("source", "reference", "prediction")
    )
    return isinstance(row, dict) and all(isinstance(row.get(name), str) for name in names)


def _is_epoch(row: Any) -> bool:
    return isinstance(row, dict) and _is_number(row.get("epoch"))


def _is_map(row: Any) -> bool:
    if not isinstance(row, dict) or type(row.get("row", 0)) is not int:
        return False
    if row.get("kind") == "image":
        grid = row.get("map")
        rows = grid if isinstance(grid, list) and grid and isinstance(grid[0], list) else [[]]
        return isinstance(row.get("image"), str) and _is_grid(grid, len(rows), len(rows[0]))
    source, target = row.get("source"), row.get("target")
    texts = all(isinstance(side, list) and side and all(isinstance(t, str) for t in side) for side in (source, target))
    return row.get("kind") == "translation" and texts and _is_grid(row.get("weights"), len(target), len(source))


def _is_grid(grid: Any, rows: int, columns: int) -> bool:
    return (
        isinstance(grid, list)
        and len(grid) == rows
        and columns > 0
        and all(isinstance(row, list) and len(row) == columns and all(map(_is_number, row)) for row in grid)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
