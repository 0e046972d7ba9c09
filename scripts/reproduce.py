#!/usr/bin/env python
"""Runs a published table from nothing and writes its results file: `python scripts/reproduce.py main_job`.

Every row is a plain `train.py` command in a run directory of its own under outputs/reproduce/, so that a table which
was stopped goes on where it was. The results file holds the commands, seeds, seconds and versions. A part of a table,
or one with overrides other than data.path, is written only where --json says, lest it take the place of the whole.

Exit codes: 0 all finished, 1 a run failed, 2 a mistake in the command, 130 interrupted by Ctrl-C.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

from _command import run as main_program
from _command import whole

from attnlab.errors import INTERRUPTED, UserError
from attnlab.files import check_file, write_json

ROOT = Path(__file__).resolve().parents[1]

# the control of the glimpses: every patch as likely as another, nothing learned about where to look
_RANDOM = (
    "attention.normalizer.temperature=1e6", "attention.estimator.score_function=false",
    "attention.estimator.entropy_bonus=0",
)  # fmt: skip

TABLES = {
    "main_job": {
        "rows": {name: [f"attention={name}"] for name in ("bahdanau", "luong", "dot", "scaled", "hard", "none")},
        "metrics": ("bleu", "chrf", "accuracy", "aer", "entropy"),
    },
    "multi30k": {
        "rows": {"bahdanau": ["experiment=multi30k_bahdanau"], "transformer": ["experiment=multi30k_transformer"]},
        "metrics": ("bleu", "chrf", "entropy"),
    },
    "multi30k_words": {
        "rows": {"bahdanau": ["experiment=multi30k_words"]},
        "metrics": ("bleu", "chrf", "entropy"),
    },
    "digits": {
        "rows": {name: ["experiment=digits", f"attention={name}"] for name in ("scaled", "bahdanau", "luong", "dot")}
        | {
            "hard": ["experiment=digits_hard"],
            "hard_uncredited": ["experiment=digits_hard", "attention.estimator.score_function=false"],
            "hard_pooling": ["experiment=digits_hard_pooling"],
        },
        "metrics": ("accuracy", "loss", "calibration_error", "entropy"),
        "seeds": [1, 2, 3],
    },
    "cluttered_digits": {
        "rows": {
            "every_patch": ["experiment=cluttered_digits"],
            "glimpses": ["experiment=cluttered_digits_glimpses"],
            "random_glimpses": ["experiment=cluttered_digits_glimpses", *_RANDOM],
        },
        # only draws can be random: an argmax is always the same
        "metrics": ("accuracy", "sample/accuracy", "inside", "calibration_error"),
    },
}
_LABELS = {
    "bleu": "BLEU", "chrf": "chrF", "accuracy": "accuracy, %", "aer": "AER", "entropy": "entropy", "loss": "loss",
    "calibration_error": "calibration error, %", "sample/accuracy": "accuracy of draws, %",
    "inside": "attention in the box, %",
}  # fmt: skip
_FORMS = {"aer": "{:.3f}", "entropy": "{:.2f}", "loss": "{:.3f}"}


def run(table: str, row: str, seed: int, overrides: list[str]) -> dict[str, object]:
    """Trains one row with one seed, or reads it if it is there; its command, status and metrics."""
    run_dir = Path("outputs") / "reproduce" / table / row / f"seed={seed}"
    arguments = [*TABLES[table]["rows"][row], *overrides, f"seed={seed}", f"run_dir={run_dir}"]
    command = ["python", "train.py", *arguments]
    print("$", shlex.join(command), flush=True)
    with subprocess.Popen([sys.executable, *command[1:]], cwd=ROOT) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:  # which the run has got, too: it ends in order and says how to go on
            process.wait()
            raise
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise UserError(f"The row {row} with seed {seed} ended with exit code {code}; mend it and run this again.")
    status, metrics = (json.loads((ROOT / run_dir / name).read_text()) for name in ("status.json", "metrics.json"))
    epochs = [json.loads(line) for line in (ROOT / run_dir / "curves.jsonl").read_text().splitlines()]
    return {
        "row": row,
        "seed": seed,
        "command": published(command),
        "metrics": metrics,
        "curve": [{name: epoch.get(name) for name in ("seconds", metrics["selected_by"])} for epoch in epochs],
        "versions": status["versions"],
    }


def published(command: list[str]) -> str:
    """A command as it is published: of a path to data on this machine only the folder's name."""
    pairs = [(part, *part.partition("=")) for part in command]
    return shlex.join(f"{key}={Path(value).name}" if key == "data.path" else part for part, key, _, value in pairs)


def markdown(table: str, results: list[dict]) -> str:
    """The table for the docs: a row a variant, mean over seeds, ± standard deviation where there are several."""
    names = TABLES[table]["metrics"]
    lines = [
        "| variant | " + " | ".join(_LABELS[name] for name in names) + " | training seconds |",
        "|---|" + "---:|" * (len(names) + 1),
    ]
    for row in TABLES[table]["rows"]:
        runs = [result["metrics"] for result in results if result["row"] == row]
        if not runs:
            continue
        cells = [cell([m.get(f"test/{name}") for m in runs], _FORMS.get(name, "{:.1f}")) for name in names]
        cells.append(cell([m["train/seconds"] for m in runs], "{:.0f}"))
        lines.append(f"| `{row}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(values: list[float | None], form: str) -> str:
    """The mean of the known values, ± their standard deviation where there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return form.format(mean(known)) + (f" ± {form.format(stdev(known))}" if len(known) > 1 else "")


def seeds(text: str) -> list[int]:
    """A type of argparse: seeds separated by commas, each once."""
    found = [whole(0)(seed) for seed in text.split(",")]
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text} has a seed twice, which is no second run")
    return found


def kept(table: str) -> Path:
    """The results file of a whole table."""
    return ROOT / "docs" / "results" / f"{table}.json"


def changed(overrides: list[str]) -> bool:
    """Whether overrides make another table: all do but those that say where the data are."""
    return any(override.partition("=")[0] != "data.path" for override in overrides)


def write(table: str, results: list[dict], path: Path | None, whole: bool) -> None:
    """Writes the results file where `path` says; without it to docs/results, if the table is whole, and says so."""
    from benchmarks._machine import describe

    if path is None and not whole:
        print(f"\nNot written to {kept(table)}, which is for whole tables; --json FILE writes this part.")
        return
    path = path or kept(table)
    write_json(path, {"table": table, "machine": describe(), "runs": results})
    print(f"\nwritten to {path}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--rows", help="only these rows, separated by commas")
    parser.add_argument("--seeds", type=seeds, help="separated by commas (default: those of the published table)")
    parser.add_argument("--json", type=Path, help="the results file (default: docs/results/TABLE.json)")
    parser.add_argument("overrides", nargs="*", help="more key=value for every run, such as data.path=FOLDER")
    options = parser.parse_intermixed_args()
    rows = options.rows.split(",") if options.rows else list(TABLES[options.table]["rows"])
    if unknown := sorted(set(rows) - set(TABLES[options.table]["rows"])):
        parser.error(f"there is no row {', '.join(unknown)}; the rows are {', '.join(TABLES[options.table]['rows'])}")
    own = TABLES[options.table].get("seeds", [1])
    complete = not options.rows and not changed(options.overrides) and options.seeds in (None, own)
    if options.json or complete:
        check_file(options.json or kept(options.table))
    results = [run(options.table, row, seed, options.overrides) for row in rows for seed in options.seeds or own]
    print("\n" + markdown(options.table, results))
    write(options.table, results, options.json, whole=complete)
    return 0


if __name__ == "__main__":
    main_program(main)
