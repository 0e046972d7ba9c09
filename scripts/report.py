#!/usr/bin/env python
"""Compares the runs of a folder: `python scripts/report.py outputs/sweeps/soft_vs_hard`.

Writes report.html (one file, opens offline, with an attention explorer), report.md, tables.tex, summary.csv, tests.csv
and figures/ (PNG and SVG), by default beside the folder, in NAME-report. A run is any directory with a status.json;
runs that differ in nothing but the seed are one variant. What failed or is damaged, and what a sweep asked for and is
missing, is listed, never dropped.

    python scripts/report.py outputs/sweeps/soft_vs_hard --out DIR
    python scripts/report.py --example             # the worked example of attention, as a map

Exit codes: 0 written, 1 failed or refused, 2 an argument that is not understood, 130 interrupted by Ctrl-C.
"""

import argparse
from itertools import product
from pathlib import Path

from _command import run

EXAMPLE_OUT = Path("outputs") / "example"


def parse() -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="a sweep, or any folder with runs in it")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: beside FOLDER)")
    parser.add_argument("--example", action="store_true", help="draw the worked example instead")
    options = parser.parse_args()
    if (options.folder is None) != options.example:
        parser.error("give either a FOLDER or --example")
    return options


def asked(folder: Path) -> dict[Path, list[tuple[str, ...]]]:
    """The points that each sweep at or below a folder asked for, by the sweep's folder."""
    return {path.parent: points(path) for path in sorted(folder.rglob("multirun.yaml"))}


def points(path: Path) -> list[tuple[str, ...]]:
    """The overrides that tell the points of a sweep apart, from Hydra's record of it; none if it cannot be read."""
    import hydra
    import yaml
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from attnlab.cli import CONF

    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]
        words = [f"{key}={values}" for key, values in (record["sweeper"].get("params") or {}).items()]
        words += record["overrides"]["task"]
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):  # for key=glob(*)
            parsed = OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(words)
            last = {override.get_key_element(): override for override in parsed}
            swept = {key: override for key, override in last.items() if override.is_sweep_override()}
            choices = [[f"{key}={value}" for value in o.sweep_string_iterator()] for key, o in swept.items()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError, HydraException):
        return []
    return list(product(*choices))


def main() -> int:
    options = parse()
    if options.example:
        from attnlab.report.example import write_example

        print(f"The worked example is in {write_example(options.out or EXAMPLE_OUT)}.")
        return 0

    from attnlab.report.assemble import write_report

    written = write_report(options.folder, options.out, asked(options.folder))
    for problem in written.problems:
        print(f"{problem.point}: {problem.sentence}")
    print(f"{written.finished} of {written.points} points are in the report: {written.out / 'report.html'}")
    return 0


if __name__ == "__main__":
    run(main)
