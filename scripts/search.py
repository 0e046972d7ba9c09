#!/usr/bin/env python
"""Searches for hyperparameters: `python scripts/search.py attention=dot,scaled 'model.dropout=interval(0,0.4)'`.

Overrides are those of train.py, for every trial. One whose value is a space, in Hydra's grammar of sweeps, is searched:

    key=choice(a,b)  key=a,b                 one of these, options of a group too
    key=interval(0,0.4)                      a number between these
    key=int(interval(1,4))  key=range(1,5)   a whole number from 1 to 4
    key=tag(log,interval(1e-4,1e-2))         evenly by order of magnitude

A trial is a run of train.py in a directory of its own, outputs/searches/NAME/trial=N, with its output in trial=N.log.
The search looks for the best value of task.monitor, a validation metric; a trial that falls behind is stopped.
The same command goes on with a search that was stopped; a greater --trials adds to it.

Exit codes: 0 finished, 1 all trials failed, 2 a mistake in the command, 130 interrupted by Ctrl-C.
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from _command import FAILED, add_numbers, run

from attnlab.errors import INTERRUPTED, UserError

if TYPE_CHECKING:
    from optuna import Study

    from attnlab.experiment.search.space import Goal, Plan

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
MISTAKE = 2


def parse() -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="overrides, and the spaces of those searched")
    add_numbers(
        parser,
        ("trials", 1, 20, "trials of the search, those of earlier calls included"),
        ("jobs", 1, 1, "trials at a time, which share the processor"),
        ("seed", 0, 1, "of the sampler; that of the runs is the override seed=N"),
        ("startup", 0, 5, "trials that finish before the median prunes any"),
    )
    parser.add_argument(
        "--pruner", choices=("median", "hyperband", "none"), default="median",
        help="which trials are stopped: those below the median of the others' after a quarter of the epochs, "
        "those that lose a round of Hyperband, or none (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the search's directory (default: outputs/searches/EXPERIMENT or TASK)"
    )
    return parser.parse_intermixed_args()


def read(overrides: list[str]) -> "Plan":
    """The overrides as fixed ones and spaces; UserError for one that Hydra cannot read."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from attnlab.experiment.search.space import FORMS, plan

    parsed, parser = [], OverridesParser.create()
    for override in overrides:
        try:
            parsed.append(parser.parse_override(override))
        except (HydraException, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{override} is neither key=value nor KEY={FORMS} ({reason}).") from error
    return plan(parsed)


def default_out(fixed: Mapping[str, str]) -> Path:
    """A directory named after the experiment, else the task."""
    named = [fixed[key].partition("=")[2] for key in ("experiment", "task") if key in fixed]
    return Path("outputs") / "searches" / next(iter(named), "translation")


def conclude(study: "Study", plan: "Plan", goal: "Goal", out: Path) -> int:
    """Prints and writes what was found; the exit code."""
    from rich.console import Console

    from attnlab.experiment.search.summary import as_csv, importances, rows, table
    from attnlab.files import write_bytes, write_text

    found = rows(study, goal)
    write_text(out / "trials.csv", as_csv(found, plan, goal))
    console = Console()
    console.print(table(found, plan, goal, f"Search {out}, the best of {len(found)} trials"))
    print(f"All are in {out / 'trials.csv'}.")
    finished = [row for row in found if row.state == "finished"]
    if not finished:
        reason = next((row.error for row in found if row.error), "")
        print(f"attnlab: no trial has finished. {reason}".rstrip(), file=sys.stderr)
        return FAILED if all(row.state == "failed" for row in found) else 0
    from attnlab.report.history import history

    points = {
        state: [(row.number, row.value) for row in found if row.state == state] for state in ("finished", "pruned")
    }
    write_bytes(out / "history.png", history(points["finished"], points["pruned"], goal.monitor, goal.mode).png)
    if shares := importances(study):
        print("Importance: " + ", ".join(f"{key} {share:.0%}" for key, share in shares.items()))
    print("The best again:")
    print(shlex.join(["python", "train.py", *plan.overrides(study.best_trial.params)]))
    return 0


def search(study: "Study", plan: "Plan", goal: "Goal", out: Path, options: argparse.Namespace) -> int:
    """Runs the trials and concludes; the exit code."""
    from attnlab.experiment.search import need_optuna
    from attnlab.experiment.search.loop import Search

    numbers: dict[str, int] = {name: getattr(options, name) for name in ("trials", "jobs", "seed")}
    command = [sys.executable, str(TRAIN)]
    try:
        Search(study, plan, goal, out, command, **numbers, say=partial(print, flush=True)).run()
    except KeyboardInterrupt:
        print(f"Interrupted. To go on: {shlex.join(['python', *sys.argv])}")
        return INTERRUPTED
    except need_optuna().exceptions.StorageInternalError as error:
        raise UserError(f"{out / 'study.db'} cannot be written: {error.__cause__ or error}") from error
    return conclude(study, plan, goal, out)


def main() -> int:
    options = parse()
    for name in (signal.SIGTERM, signal.SIGHUP):  # end like Ctrl-C: the running trials in order, too
        if signal.getsignal(name) == signal.SIG_DFL:
            signal.signal(name, signal.default_int_handler)

    from attnlab.cli import CONF
    from attnlab.experiment.search import need_optuna
    from attnlab.experiment.search.space import check
    from attnlab.experiment.search.study import alone, make_pruner, open_study

    with ExitStack() as held:
        try:
            need_optuna()
            plan = read(options.overrides)
            goal = check(CONF, plan)
            out = options.out or default_out(plan.fixed)
            held.enter_context(alone(out))
            study = open_study(out, plan, goal, make_pruner(options.pruner, goal.epochs, options.startup))
        except UserError as error:
            print(f"attnlab: {error}", file=sys.stderr)
            return MISTAKE
        return search(study, plan, goal, out, options)


if __name__ == "__main__":
    run(main)
