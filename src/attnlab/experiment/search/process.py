"""The process of a trial: started, followed by the curve that it writes, and stopped in order."""

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attnlab.errors import UserError

PATIENCE = 30.0
"""Seconds that a process has to end in order before it is told so more sternly."""


class TrialProcess:
    """A run in a session of its own, so that Ctrl-C reaches it only through the search.

    It holds a lock on its log as long as it lives, so that a search knows whether an earlier one left it behind.

    Args:
        command: its words.
        directory: the run directory; the log is beside it.
        environment: its variables.
    """

    def __init__(self, command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        log = log_of(directory)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            fcntl.flock(output, fcntl.LOCK_EX)
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=dict(environment),
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code; None while it lives."""
        return self._process.poll()

    def interrupt(self) -> None:
        """Asks it to end in order: a run then records itself as interrupted."""
        self._process.send_signal(signal.SIGINT)

    def wait(self, patience: float = PATIENCE) -> None:
        """Waits until it has ended; one that does not in so many seconds is told more sternly."""
        for sterner in (signal.SIGTERM, signal.SIGKILL):  # one that was started in the background may ignore SIGINT
            try:
                self._process.wait(patience)
                return
            except subprocess.TimeoutExpired:
                self.kill(sterner)
        self._process.wait()

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to it and its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, how)


def log_of(directory: Path) -> Path:
    """Where the output of the run of a directory goes."""
    return directory.with_name(f"{directory.name}.log")


def end_leftover(directory: Path, pid: int | None, patience: float = PATIENCE) -> None:
    """Ends in order a run that a search which was killed has left behind, if it still lives.

    Args:
        directory: the run directory.
        pid: of its process.
        patience: seconds to wait, after each of two signals.

    Raises:
        UserError: if it goes on all the same.
    """
    for how in (signal.SIGINT, signal.SIGTERM):
        if _free(log_of(directory), 0):
            return
        if pid is not None:  # what holds the lock is this process, or a child of it
            with suppress(OSError):
                os.kill(pid, how)
        if _free(log_of(directory), patience):
            return
    raise UserError(
        f"The run in {directory} is still going (process {pid}), left behind by a search that was killed; wait for it "
        "or stop it, then search on."
    )


def _free(log: Path, patience: float) -> bool:
    """Whether nobody writes a log any more, within so many seconds."""
    until = time.monotonic() + patience
    while _locked(log):
        if time.monotonic() >= until:
            return False
        time.sleep(0.1)
    return True


def _locked(log: Path) -> bool:
    try:
        with log.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def curve(directory: Path, metric: str) -> dict[int, float]:
    """A metric by epoch as a run has written it so far; epochs without a finite value are left out."""
    rows = _lines(directory / "curves.jsonl")
    return {int(row["epoch"]): float(row[metric]) for row in rows if isinstance(row.get(metric), int | float)}


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError):
        return []


def why_it_failed(directory: Path, code: int) -> str:
    """Why a run ended with an exit code that is not 0, in a sentence: its own, or the last that it said."""
    if code < 0:
        return f"It was ended by {signal.Signals(-code).name}."
    with suppress(OSError, ValueError):
        status = json.loads((directory / "status.json").read_text())
        if status["state"] == "failed" and status.get("error"):
            return str(status["error"])
    with suppress(OSError):
        said = [line for line in log_of(directory).read_text(errors="replace").splitlines() if line.strip()]
        if said:
            return said[-1].removeprefix("attnlab: ")
    return f"It ended with exit code {code}."
