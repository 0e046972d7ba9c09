"""Seconds until something happens: `train.py --help`, and the first optimizer step of the main job.

The main job is `python train.py` as it is, but ended after two steps; it is timed from the start of its process,
imports and data included. With an empty cache it generates its corpus, tokenizes it and compiles the kernel of its
attention; with a filled one it finds all three. `offline` and `disabled` are what Weights & Biases does meanwhile.

`composed` is when the config has been read and checked and the run directory begun, `data` when torch is imported and
the tokenized corpus is there; from there to the step it is the model, the W&B run, Lightning and the step itself. These
come from the times of files. What a package takes to import is the time in its own modules during such a run
(`python -X importtime`, which itself costs some), also of those that are imported after the step.

`busy` is the share of the processors that other processes used just before or just after, since a run has more
processes than one on purpose.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _command import add_numbers

from attnlab.errors import UserError
from benchmarks import _machine

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_ROOT = Path(__file__).resolve().parents[2]
_PARTS = ("help", "empty", "filled", "disabled", "imports")
_SHORT = ("trainer.max_epochs=1", "++trainer.limit_train_batches=2", "search.beam=1", "maps=0")
_SHOWN = 10  # packages
_IMPORT = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Started:
    """A run of train.py that made two steps.

    Attributes:
        seconds: to its first step.
        composed: seconds until the run directory was begun.
        data: seconds until the data were ready.
        said: what it wrote to standard error.
    """

    seconds: float
    composed: float
    data: float
    said: str


def train(
    overrides: Sequence[str],
    cache: Path,
    *,
    python: Sequence[str] = (),
    watch: Callable[[int], AbstractContextManager[Any]] = nullcontext,
) -> Started:
    """Runs train.py for two steps, with validation and test.

    Args:
        overrides: of its config; a run_dir is added.
        cache: where it keeps what can be made anew, instead of in the user's cache.
        python: options of the interpreter.
        watch: is entered with the number of the process while it runs.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        command = [sys.executable, *python, str(_ROOT / "train.py"), *_SHORT, *overrides, f"run_dir={run}"]
        begun = time.time()
        with (
            subprocess.Popen(
                command, cwd=_ROOT, env=environment(cache), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            ) as process,
            watch(process.pid),
        ):
            _, said = process.communicate()
        try:
            metrics = json.loads((run / "metrics.json").read_text())
            marks = (run / name for name in (".hydra/overrides.yaml", "tokenizer.json"))
            composed, data = (mark.stat().st_mtime - begun for mark in marks)
            return Started(float(metrics["train/seconds_to_first_step"]), composed, data, said)
        except (OSError, ValueError, KeyError, TypeError) as error:
            last = (said.strip().splitlines() or ["it said nothing"])[-1]
            raise UserError(f"train.py did not finish (code {process.returncode}): {last}") from error


def environment(cache: Path) -> dict[str, str]:
    """The environment of a process whose caches are in a folder of their own."""
    own = {"XDG_CACHE_HOME": cache, "HF_HOME": cache / "huggingface", "HF_DATASETS_CACHE": cache / "datasets"}
    return os.environ | {name: str(path) for name, path in own.items()}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--parts", choices=_PARTS, nargs="+", default=list(_PARTS), metavar="NAME",
        help=f"of {', '.join(_PARTS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--overrides",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="of the job (default: none, the main job as it is)",
    )
    add_numbers(
        parser,
        ("repeats", 1, 3, "timed runs of each kind"),
        ("retries", 0, 2, "more runs for such as are void"),
    )


def measure(options: argparse.Namespace, console: "Console") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One row for each part, and one for each package that takes long to import."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        parts = {
            "help": partial(_help, options),
            "empty": partial(_empty, options),
            "filled": partial(_filled, options, Path(folder), "offline"),
            "disabled": partial(_filled, options, Path(folder), "disabled"),
            "imports": partial(_imports, options, Path(folder)),
        }
        for name in options.parts:
            found = parts[name]()
            rows += found
            console.print(f"{found[0]['what']}: {found[0]['seconds']:.2f} s", highlight=False, markup=False)
    return {name: getattr(options, name) for name in ("overrides", "repeats", "retries")}, rows


def _help(options: argparse.Namespace) -> list[dict[str, Any]]:
    command = [sys.executable, str(_ROOT / "train.py"), "--help"]

    def turn() -> None:
        subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.DEVNULL)

    return [{"what": "--help"} | _row(options, turn, [])]


def _empty(options: argparse.Namespace) -> list[dict[str, Any]]:
    runs: list[Started] = []

    def turn() -> float:
        with tempfile.TemporaryDirectory() as cache:
            runs.append(train(["wandb.mode=offline", *options.overrides], Path(cache)))
        return runs[-1].seconds

    return [{"what": "first step, empty cache, W&B offline"} | _row(options, turn, runs)]


def _filled(options: argparse.Namespace, cache: Path, mode: str) -> list[dict[str, Any]]:
    runs: list[Started] = []
    overrides = [f"wandb.mode={mode}", *options.overrides]

    def turn() -> float:
        runs.append(train(overrides, cache))
        return runs[-1].seconds

    _fill(overrides, cache)
    return [{"what": f"first step, filled cache, W&B {mode}"} | _row(options, turn, runs)]


def _fill(overrides: Sequence[str], cache: Path) -> None:
    if not any(cache.iterdir()):
        train(overrides, cache)


def _row(options: argparse.Namespace, turn: Callable[[], float | None], runs: list[Started]) -> dict[str, Any]:
    spread = _machine.turns(turn, options.repeats, options.retries, watch=_machine.Others).spread()
    marks = {f"{mark}_seconds": [getattr(run, mark) for run in runs] for mark in ("composed", "data")}
    return spread | {name: statistics.median(found) if found else None for name, found in marks.items()}


def _imports(options: argparse.Namespace, cache: Path) -> list[dict[str, Any]]:
    overrides = ["wandb.mode=offline", *options.overrides]
    _fill(overrides, cache)
    others = _machine.Others()
    packages = import_seconds(train(overrides, cache, python=("-X", "importtime")).said)
    busy = others.share()
    empty: dict[str, Any] = {"composed_seconds": None, "data_seconds": None}
    measured = empty | {"repeats": 1, "cpu_pressure": busy, "void": _machine.is_void(busy)}
    named = {f"import of {name}": seconds for name, seconds in packages.most_common(_SHOWN)}
    rows = {"all imports": packages.total()} | named
    return [
        {"what": what, "seconds": seconds, "seconds_min": seconds, "seconds_max": seconds} | measured
        for what, seconds in rows.items()
    ]


def import_seconds(said: str) -> Counter[str]:
    """The seconds in the modules of each package, from what `python -X importtime` says."""
    packages: Counter[str] = Counter()
    for microseconds, name in _IMPORT.findall(said):
        top = name.split(".")[0]
        packages["the standard library" if top in sys.stdlib_module_names else top] += int(microseconds) / 1e6
    return packages


def table(rows: list[dict[str, Any]]) -> "Table":
    """A line for each row."""
    from rich import box
    from rich.table import Table

    shown = Table(title="Seconds from the start of the process", title_justify="left", box=box.SIMPLE, padding=0)
    shown.add_column("", no_wrap=True, min_width=38)
    for name in ("median", "least", "most", "composed", "data", "busy"):
        shown.add_column(name, justify="right", no_wrap=True, min_width=5)
    for row in rows:
        marks = [row[f"{mark}_seconds"] for mark in ("composed", "data")]
        shown.add_row(
            row["what"], *[f"{row[f'seconds{suffix}']:.2f}" for suffix in ("", "_min", "_max")],
            *["" if mark is None else f"{mark:.2f}" for mark in marks], _machine.waited(row),
        )  # fmt: skip
    return shown
