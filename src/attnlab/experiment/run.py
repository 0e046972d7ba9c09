"""One run, from a resolved config to its record.

What is slow starts side by side: a process that prepares the corpus, and the import of torch and Lightning
(`training`); then, when nothing is left to refuse before the data are read, a thread that opens the W&B run. A run of
several processes (`distributed`) runs this in each of them: the first one writes its files and speaks of it, any of
them records its failure.
"""

import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from attnlab import allocator
from attnlab.data.prepare import prefetch
from attnlab.errors import INTERRUPTED, UserError
from attnlab.experiment.distributed import (
    Ranks,
    find_ranks,
    interruptible,
    start,
    uninterruptible,
)
from attnlab.experiment.lean import import_lightning
from attnlab.experiment.record import RunRecord
from attnlab.experiment.tracking import Tracker
from attnlab.terminal import Terminal

_GIVES_WAY = 1.0
"""Seconds for which another process leaves it to the first one to say how their run has ended."""


def process_start() -> float:
    """When this process began, in seconds since the epoch (what a person waits for includes the imports)."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
        return float(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return time.time()


def run(config: dict[str, Any], overrides: list[str], choices: dict[str, Any], point: bool = False) -> int:
    """Trains, tests and records one run.

    Args:
        config: the composed and resolved config, primitives only.
        overrides: the command line's overrides, for the record.
        choices: the option chosen of each config group, for the record.
        point: whether the run is a point of a sweep in this process.

    Returns:
        the exit code: 0 if the run finished (now or before), 130 if it was interrupted.

    Raises:
        UserError: for what the user can mend; status.json then says `failed`, with the reason.
    """
    ranks = find_ranks(config["trainer"])
    if not config["run_dir"]:
        raise UserError(f"run_dir={config['run_dir'] or ''} names no folder; name one, or leave it out.")
    directory = Path(config["run_dir"])
    record = RunRecord(directory, config)
    console = Terminal(quiet=not ranks.first)
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)  # paths may hold brackets
    if record.finished:
        say(f"This run has finished before; its results are in {directory}.")
        from attnlab.experiment.view import metrics_table

        console.print(metrics_table(record.read_metrics()))
        return 0
    if ranks.rank is None:
        return start(run, (config, overrides, choices), ranks.world, record)
    if threading.current_thread() is threading.main_thread():
        interruptible()
    if ranks.first:
        record.claim()
        record.begin(overrides, choices)
        # beside an import that is over, as it is for a sweep's later points, a second process would only be waited for
        if record.last_checkpoint is None and "torch" not in sys.modules:
            prefetch(config["data"])
    with Tracker(record, config, silent=not ranks.first) as tracker:
        try:
            allocator.keep()
            import_lightning()
            from attnlab.experiment.training import train_and_test

            train_and_test(config, record, tracker, console, ranks, process_start())
        except KeyboardInterrupt as stop:
            tracker.exit_code = INTERRUPTED
            if not _end(record, ranks, "interrupted", stop):
                return 1
            again = "The same sweep" if point else f"The same command with run_dir={directory}"
            from_where = "begins anew" if record.last_checkpoint is None else "goes on from the last checkpoint"
            say(f"Interrupted. {again} {from_where}{' here' if point else ''}.")
            return INTERRUPTED
        except BaseException as error:
            tracker.exit_code = 1
            if not _end(record, ranks, "failed", error):
                return 1
            raise
    if ranks.first:
        _end(record, ranks, "finished")
    say(f"Results, predictions and attention maps are in {directory}.")
    return 0


def _end(record: RunRecord, ranks: Ranks, state: str, error: BaseException | None = None) -> bool:
    """Marks how a run ended, and returns True, unless another of its processes has said how."""
    if ranks.world == 1:
        record.end(state, error)
        return True
    uninterruptible()
    patience = time.monotonic() + (0 if ranks.first else _GIVES_WAY)
    while (before := record.state) == "running" and time.monotonic() < patience:
        time.sleep(0.05)
    if before == "running" and (ranks.first or state == "failed"):
        record.end(state, error)
    return before in ("running", record.before)
