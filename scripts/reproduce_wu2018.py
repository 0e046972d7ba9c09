#!/usr/bin/env python
"""Reproduces Wu, Shapiro and Cotterell 2018, the small models of Tables 8 and 9: `scripts/reproduce_wu2018.py FOLDER`.

FOLDER holds SIGMORPHON 2017's languages, one folder each (german, latin). Every point of the grid is a plain `train.py`
command in a run directory of its own under outputs/reproduce/wu2018/: a stopped grid goes on where it was, and with
`--jobs 2` two runs share the processor, a thread each. The table prints ours beside the paper's.

Exit codes: 0 all finished, 1 a run failed (the others went on), 2 a mistake in the command, 130 interrupted by Ctrl-C.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

from _command import run as main_program
from _command import whole
from reproduce import cell, changed, kept, published, write

from attnlab.files import check_file

ROOT = Path(__file__).resolve().parents[1]
OVERRIDES = {
    "soft": ["attention=luong"],
    "exact": ["attention=exact"],
    # less than the default bonus, which the likelihood of so easy a task soon falls below: weights would stay flat
    "reinforce": ["attention=hard", "attention.estimator.entropy_bonus=0.02"],
    "gumbel": ["attention=gumbel"],
    "variational": ["attention=variational"],
}
SEEDS = {
    ("german", "soft"): (1, 2, 3), ("german", "exact"): (1, 2, 3), ("german", "reinforce"): (1, 2, 3),
    ("german", "gumbel"): (1,), ("german", "variational"): (1,),
    ("latin", "soft"): (1,), ("latin", "exact"): (1,), ("latin", "reinforce"): (1,),
}  # fmt: skip
PAPER = {
    ("german", "soft"): (89.6, 0.257), ("german", "exact"): (89.3, 0.179), ("german", "reinforce"): (83.7, 0.381),
    ("latin", "soft"): (70.1, 0.476), ("latin", "exact"): (72.1, 0.458), ("latin", "reinforce"): (68.6, 0.503),
}  # fmt: skip
"""Test accuracy in percent and mean Levenshtein distance: columns 3, 4 and R of the paper's tables."""


def train(options: argparse.Namespace, point: tuple[str, str, int], threads: int) -> dict[str, Any] | None:
    """Trains one point, or reads it if it is there; None if it failed."""
    language, row, seed = point
    run_dir = options.out / language / row / f"seed={seed}"
    words = [
        "python", "train.py", "experiment=wu2018_inflection", f"data.path={options.folder / language}", *OVERRIDES[row],
        *options.overrides, f"seed={seed}", f"run_dir={run_dir}",
    ]  # fmt: skip
    log = ROOT / run_dir.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    print("$", shlex.join(words), flush=True)
    with log.open("ab") as output:
        code = subprocess.run(
            [sys.executable, *words[1:]], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdout=output, stderr=subprocess.STDOUT, check=False,
        ).returncode  # fmt: skip
    if code:
        print(f"attnlab: {' '.join(map(str, point))} ended with exit code {code}; see {log}.", file=sys.stderr)
        return None
    status, metrics = (json.loads((ROOT / run_dir / name).read_text()) for name in ("status.json", "metrics.json"))
    accuracy = metrics["test/accuracy"]
    print(f"{language} {row} seed {seed}: {accuracy:.1f} in {metrics['train/seconds']:.0f} s", flush=True)
    return {
        "language": language, "row": row, "seed": seed, "command": published(words), "threads": threads,
        "metrics": metrics, "versions": status["versions"],
    }  # fmt: skip


def markdown(results: list[dict[str, Any]]) -> str:
    """Ours beside the paper's: mean over seeds, ± standard deviation where there are several."""
    lines = [
        "| language | attention | seeds | accuracy, % | paper | distance | paper | seconds |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for language, row in SEEDS:
        runs = [r["metrics"] for r in results if (r["language"], r["row"]) == (language, row)]
        if not runs:
            continue
        accuracy, distance = PAPER.get((language, row), ("", ""))
        cells = [
            cell([m["test/accuracy"] for m in runs], "{:.1f}"), str(accuracy),
            cell([m["test/edit_distance"] for m in runs], "{:.3f}"), str(distance),
            f"{mean(m['train/seconds'] for m in runs):.0f}",
        ]  # fmt: skip
        lines.append(f"| {language} | `{row}` | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with a folder for each language")
    parser.add_argument("--languages", nargs="+", choices=sorted({language for language, _ in SEEDS}), metavar="NAME")
    parser.add_argument("--rows", nargs="+", choices=list(OVERRIDES), metavar="NAME", help=", ".join(OVERRIDES))
    parser.add_argument("--jobs", type=whole(), default=1, metavar="N", help="runs at a time (default: 1)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="the results file (default: docs/results/wu2018.json)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/reproduce/wu2018"), metavar="DIR",
        help="holds the run directories (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="for every run, such as trainer.max_epochs=20"
    )
    options = parser.parse_intermixed_args()
    options.folder = options.folder.resolve()
    if missing := [name for name in options.languages or ("german", "latin") if not (options.folder / name).is_dir()]:
        parser.error(f"{options.folder} has no folder {missing[0]}")
    points = [
        (language, row, seed)
        for index in range(max(map(len, SEEDS.values())))  # the first seed of every row before the second of any
        for (language, row), seeds in SEEDS.items()
        for seed in seeds[index : index + 1]
        if language in (options.languages or (language,)) and row in (options.rows or (row,))
    ]
    complete = len(points) == sum(map(len, SEEDS.values())) and not changed(options.overrides)
    if options.json or complete:
        check_file(options.json or kept("wu2018"))
    threads = max(1, len(os.sched_getaffinity(0)) // options.jobs)
    with ThreadPoolExecutor(options.jobs) as pool:
        found = list(pool.map(lambda point: train(options, point, threads), points))
    results = [result for result in found if result is not None]
    if results:
        print("\n" + markdown(results))
        write("wu2018", results, options.json, whole=complete and len(results) == len(points))
    return 0 if len(results) == len(points) else 1


if __name__ == "__main__":
    main_program(main)
