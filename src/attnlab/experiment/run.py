"""One run, from a resolved config to its record.

What is slow starts side by side: a process that prepares the corpus, a thread that opens the W&B run, and the import of
torch and Lightning (`training`).
"""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from attnlab.data.prepare import prefetch
from attnlab.experiment.record import RunRecord
from attnlab.experiment.tracking import Tracker

INTERRUPTED = 130
"""Exit code of a run that was stopped by Ctrl-C."""


def process_start() -> float:
    """When this process began, in seconds since the epoch (what a person waits for includes the imports)."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
        return float(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return time.time()


def run(config: dict[str, Any], overrides: list[str], choices: dict[str, Any]) -> int:
    """Trains, tests and records one run.

    Args:
        config: the composed and resolved config, primitives only.
        overrides: the command line's overrides, for the record.
        choices: the option chosen of each config group, for the record.

    Returns:
        the exit code: 0 if the run finished (now or before), 130 if it was interrupted.

    Raises:
        UserError: for what the user can mend; status.json then says `failed`, with the reason.
    """
    directory = Path(config["run_dir"])
    record = RunRecord(directory, config)
    console = Console()
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)  # paths may hold brackets
    if record.finished:
        say(f"This run has finished before; its results are in {directory}.")
        from attnlab.experiment.view import metrics_table

        console.print(metrics_table(record.read_metrics()))
        return 0
    record.begin(overrides, choices)
    if record.last_checkpoint is None:
        prefetch(config["data"])
    with Tracker(record, config) as tracker:
        try:
            from attnlab.experiment.training import train_and_test

            train_and_test(config, record, tracker, console, process_start())
        except KeyboardInterrupt as stop:
            record.end("interrupted", stop)
            tracker.exit_code = INTERRUPTED
            say(f"Interrupted. The same command with run_dir={directory} goes on from the last checkpoint.")
            return INTERRUPTED
        except BaseException as error:
            record.end("failed", error)
            tracker.exit_code = 1
            raise
    record.end("finished")
    say(f"Results, predictions and attention maps are in {directory}.")
    return 0
