#!/usr/bin/env python
"""Scores a trained run on any corpus: `python scripts/evaluate.py RUN_DIR data.test=200 --split test`.

Prints the metrics of the run's metrics.json as JSON: SPLIT/bleu, SPLIT/accuracy, ... in the test mode that selected
the checkpoint, and SPLIT/MODE/... for each mode where the model has several.

The corpus is the run's own, changed by data.KEY=VALUE, or that of a group:

    python scripts/evaluate.py RUN_DIR data=parallel data.path=FOLDER data.source=en data.target=de --split validation

A corpus of texts needs no split but the one that is scored. The tokenizers (of a classifier, the classes and the
normalisation) are always the run's. Where the run's own corpus is cut into splits of other sizes, a warning says how
many examples it was trained on.

Exit codes: 0 scored, 1 failed or refused, 2 an argument that is not understood, 130 interrupted by Ctrl-C.
"""

import argparse
import json
import math
import sys

from _command import add_run_options, add_search_options, device, run, search_options

from attnlab.errors import UserError


def parse() -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_options(parser)
    add_search_options(parser)
    parser.add_argument("overrides", nargs="*", metavar="data...=...", help="another corpus, in Hydra's grammar")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"), help="default: test")
    parser.add_argument(
        "--mode", default="all", metavar="all|MODE", help="test mode of the model (default: all that it has)"
    )
    return parser.parse_intermixed_args()


def main() -> int:
    options = parse()

    from attnlab.experiment.use import load_config, load_run, trained_on

    config = load_config(options.run)  # before the slow imports
    task = (config.get("task") or {}).get("name")
    for name in ("beam", "alpha"):
        if task != "translation" and getattr(options, name) is not None:
            raise UserError(f"The run {options.run} is one of task={task}, which has no search: leave --{name} out.")

    from attnlab.cli import CONF
    from attnlab.experiment.build import build, compose_data

    spec = compose_data(CONF, config["data"], options.overrides)
    trained = load_run(options.run, options.checkpoint)

    from attnlab.experiment.domains import DOMAINS
    from attnlab.tasks.scoring import named_metrics

    modes = trained.modes if options.mode == "all" else (trained.check_mode(options.mode),)
    domain = DOMAINS[trained.task.name]
    if not domain.takes(spec):
        raise UserError(f"The data chosen are of another task than {options.run}, which is of task={domain.task.name}.")
    data = build(spec)
    domain.restore(data, options.run)
    data.prepare_split(options.split)
    if not len(data.splits[options.split]):
        raise UserError(f"The split {options.split} is empty: there is nothing to score.")
    if options.overrides and (known := trained_on(trained, data, options.split)):
        print(
            f"attnlab: warning: {known:,} of the {len(data.splits[options.split]):,} examples of this {options.split} "
            f"split are among those that {options.run} was trained on; give the splits the sizes that they had there, "
            "or a smaller one to this.",
            file=sys.stderr,
        )
    trained.task.to(device(options.device))
    seed = trained.config.get("seed", 0) if options.seed is None else options.seed
    searched = trained.config | {"search": search_options(trained.config, options)}
    outcomes = domain.outcomes(trained.task, data, searched, options.split, modes, seed)
    metrics = named_metrics(outcomes, options.split, trained.modes) | {"test_mode": next(iter(outcomes))}
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metrics.items()
    }
    json.dump(finite, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    run(main)
