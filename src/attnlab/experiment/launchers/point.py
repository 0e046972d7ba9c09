"""A point of a sweep as a launcher sees it: a directory and the command that runs it there."""

import fcntl
import importlib
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from attnlab.errors import UserError
from attnlab.experiment.search.process import TrialProcess, log_of, why_it_failed
from attnlab.files import write_json

LOOK = 0.2
"""Seconds between two looks at processes of this machine."""
_ASKED = (130, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes of a process that was asked to end."""


@dataclass(frozen=True)
class Point:
    """A point of a sweep.

    Args:
        name: what varies, `attention=bahdanau/seed=1`.
        directory: its run directory.
        command: the words that run it.
    """

    name: str
    directory: Path
    command: tuple[str, ...]


Ended = Callable[[Point, int], None]
"""Is told that a point has ended, and the exit code of its process (1 if that is not known)."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def divide(n_jobs: int, points: int) -> tuple[int, int]:
    """How many points run at a time, and the threads of each: they share the cores that this process may use.

    Raises:
        UserError: unless n_jobs is -1, for a point a core, or at least 1.
    """
    if not isinstance(n_jobs, int) or (n_jobs < 1 and n_jobs != -1):
        raise UserError(f"hydra.launcher.n_jobs={n_jobs} must be -1, for as many as there are cores, or 1 or more.")
    jobs = max(1, min(cores() if n_jobs == -1 else n_jobs, points))
    return jobs, max(1, cores() // jobs)


def threads(count: int) -> dict[str, str]:
    """The environment of a process that computes with so many threads, or with fewer if this one is to.

    torch takes the number of its own from it.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    given = {name: os.environ.get(name, "") for name in names}
    return {name: str(min(count, int(value)) if value.isdigit() else count) for name, value in given.items()}


def busy(directory: Path) -> bool:
    """Whether a process that a launcher has started is at work in a run directory: it holds its log while it lives."""
    try:
        with log_of(directory).open("rb") as log:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no log, or there are no locks on this disk
        return False
    return False


def wait_for_leftover(point: Point) -> None:
    """Waits while a process that a killed sweep has left behind goes on with a point."""
    if busy(point.directory):
        print(f"{point.name}: a process that was left behind is at work on it; waiting for that.", flush=True)
    while busy(point.directory):
        time.sleep(LOOK)


def finish(point: Point, process: TrialProcess) -> int:
    """Waits for the process of a point, and records its end if it was killed: the exit code."""
    while (code := process.poll()) is None:
        time.sleep(LOOK)
    if code:
        state = "interrupted" if code in _ASKED else "failed"
        mark(point.directory, state, why_it_failed(point.directory, code))
    return code


def mark(directory: Path, state: str, why: str) -> None:
    """Records how a run has ended that could not do so itself."""
    path = directory / "status.json"
    with suppress(OSError, ValueError):
        status = json.loads(path.read_text())
        if status["state"] == "running":
            write_json(path, status | {"state": state, "error": why})


def need(module: str, extra: str) -> ModuleType:
    """A module that a launcher cannot do without; UserError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UserError(f'This launcher needs {module}, which is not installed: pip install -e ".[{extra}]"') from error
