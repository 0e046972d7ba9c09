"""A sweep: one stable directory a point, and the table of how its points ended."""

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attnlab.experiment.launchers import LAUNCHERS, Point
from attnlab.experiment.record import RunRecord
from attnlab.experiment.search.process import log_of, why_it_failed

_STATES = {"finished": "green", "failed": "red", "interrupted": "yellow", "running": "yellow"}


class Sweep:
    """A sweep as it goes: the points that are left to a launcher, and what failed before it could be recorded.

    Args:
        directory: of the sweep.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.waiting: list[Point] = []
        self.launcher: str | None = None
        self.options: dict[str, Any] = {}
        self.failures: dict[str, str] = {}

    def fail(self, directory: Path, why: str) -> None:
        """Notes why the point of a run directory failed."""
        self.failures[self._name(directory)] = why

    def add(self, directory: Path, config: dict[str, Any], command: Sequence[str]) -> None:
        """Leaves a point to the launcher, unless it has finished before.

        Args:
            directory: its run directory.
            config: its resolved config.
            command: the words that run it there.

        Raises:
            UserError: if the directory holds a run of another config.
        """
        name = self._name(directory)
        if RunRecord(directory, config).finished:
            print(f"{name} has finished before.", flush=True)
            return
        self.waiting.append(Point(name, directory, tuple(command)))

    def launch(self) -> None:
        """Runs the points that wait, side by side, whatever becomes of each.

        Raises:
            UserError: if the launcher cannot be used.
            KeyboardInterrupt: after Ctrl-C or SIGTERM.
        """
        if not self.waiting or self.launcher is None:
            return
        count = len(self.waiting)
        print(f"{count} point{'s' * (count > 1)} to run; each writes to a .log beside its directory.", flush=True)
        with _stoppable():
            LAUNCHERS[self.launcher](self.waiting, self.options, self.directory, self._ended)

    def _ended(self, point: Point, code: int) -> None:
        status = _status(point.directory / "status.json")
        self.failures.pop(point.name, None)
        if status.get("state") == "finished":
            print(f"{point.name} has finished.", flush=True)
            return
        begun = log_of(point.directory).exists()
        why = status.get("error") or (why_it_failed(point.directory, code) if begun else "It was never begun.")
        print(f"{point.name} has not finished. {why}", flush=True)
        if not status:
            self.fail(point.directory, why)

    def _name(self, directory: Path) -> str:
        return Path(os.path.relpath(directory, self.directory)).as_posix()


def points(directory: Path) -> list[tuple[str, dict[str, Any]]]:
    """The points of a sweep by name, each with its status."""
    paths = sorted(directory.rglob("status.json"))
    return [(path.parent.relative_to(directory).as_posix(), _status(path)) for path in paths]


def _status(path: Path) -> dict[str, Any]:
    try:
        status = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        return {"state": "failed", "error": f"its status.json cannot be read ({error})"}
    return status if isinstance(status, dict) else {}


def summarize(directory: Path, failures: Mapping[str, str]) -> int:
    """Prints how the points of a sweep ended, and returns 0 if all of them finished, else 1.

    Args:
        directory: of the sweep.
        failures: by the names of points, what their own directories do not tell.
    """
    from rich.markup import escape
    from rich.table import Table

    from attnlab.terminal import Terminal

    ended = dict(points(directory)) | {name: {"state": "failed", "error": why} for name, why in failures.items()}
    table = Table(title=f"Sweep {escape(str(directory))}", title_justify="left")
    for heading in ("point", "state", "what"):
        table.add_column(heading, overflow="fold")
    for name, status in sorted(ended.items()):
        state = str(status.get("state"))
        table.add_row(escape(name), f"[{_STATES.get(state, 'red')}]{state}", escape(_what(directory / name, status)))
    Terminal().print(table)
    return int(any(status.get("state") != "finished" for status in ended.values()))


def _what(directory: Path, status: dict[str, Any]) -> str:
    """The selecting metric of a finished point, and the reason why another one stopped."""
    if status.get("state") != "finished":
        return str(status.get("error") or "")
    try:
        metrics = json.loads((directory / "metrics.json").read_text())
        if metrics["selected_by"] is None:
            return "no validation was reached"
        name = metrics["selected_by"].replace("val/", "test/")
        return f"{name} {metrics[name]:.2f}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its metrics.json cannot be read"


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends what is within as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
