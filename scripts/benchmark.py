#!/usr/bin/env python
"""Measures attnlab on this machine: `python scripts/benchmark.py train --json train.json`.

Each section is a subcommand with options of its own; `python scripts/benchmark.py SECTION --help` lists them.

A measurement during which other processes kept this one from the processor for more than 3 % of the time (Linux's
/proc/pressure/cpu) is void, and says so in its row; sections that measure in turns take it again first.

Sections with --device measure on an NVIDIA GPU where torch finds one; the others on the processor.

Exit codes: 0 measured, 1 failed or refused, 2 an argument that is not understood, 130 interrupted by Ctrl-C.
"""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import benchmarks
from _command import device, run

from attnlab.errors import INTERRUPTED, UserError


def main() -> int:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="section", required=True, metavar="SECTION")
    sections = {
        module.name: importlib.import_module(f"benchmarks.{module.name}")
        for module in pkgutil.iter_modules(benchmarks.__path__)
        if not module.name.startswith("_")
    }
    for name, section in sections.items():
        first, _, rest = (section.__doc__ or "").partition("\n\n")
        command = commands.add_parser(
            name, help=first, description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("--json", type=Path, metavar="FILE", help="also write machine, versions and rows there")
        section.add_options(command)
    options = parser.parse_args()
    try:
        _measure(sections[options.section], options)
    except KeyboardInterrupt:
        print("attnlab: Interrupted before all rows were measured and written.", file=sys.stderr)
        return INTERRUPTED
    return 0


def _measure(section: ModuleType, options: argparse.Namespace) -> None:
    """Prints the table of a section, and writes its rows where --json says."""
    from benchmarks import _machine
    from rich.console import Console
    from rich.measure import Measurement

    from attnlab.files import check_file, write_json

    for path in (options.json, getattr(options, "plot", None)):
        if path is not None:
            check_file(path)
    if hasattr(options, "device"):
        options.device = device(options.device)
        _machine.use_device(options.device)
    if hasattr(options, "precision"):
        options.precision = _known(options.precision)
    _machine.use_threads()
    machine, versions = _machine.describe(_machine.device()), _machine.versions()
    console = Console()
    settings, rows = section.measure(options, console)
    if hasattr(options, "device"):
        settings["device"] = options.device
    table = section.table(rows)
    table.caption = _machine.caption(machine, versions)
    table.caption_justify = "left"
    needed = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.width = max(console.width, needed)  # a line that wraps can be read, a number cut short cannot
    console.print(table)
    if options.json is not None:
        outcome = {"section": options.section, "machine": machine, "versions": versions, "settings": settings}
        write_json(options.json, outcome | {"rows": rows})
        console.print(f"Written to {options.json}.", highlight=False, soft_wrap=True)


def _known(precision: str | list[str] | None) -> str | list[str]:
    """The precisions asked for, by default all of the device; without bf16 where this processor has no instructions for
    it: a single product takes a minute there. UserError if nothing is left, or one is not of this device."""
    from benchmarks import _machine

    from attnlab.experiment.precision import processor_knows_bf16

    if precision is None:
        precision = list(_machine.PRECISIONS[_machine.device()])
    if _machine.on_gpu():
        return precision
    if "tf32" in precision:
        raise UserError("There is no tf32 on a processor; give --precision fp32 or bf16, or --device cuda.")
    if "bf16" not in precision or processor_knows_bf16():
        return precision
    if isinstance(precision, str) or set(precision) == {"bf16"}:
        raise UserError("This processor has no instructions for bf16; give --precision fp32.")
    print("This processor has no instructions for bf16: measuring without it.", flush=True)
    return [name for name in precision if name != "bf16"]


if __name__ == "__main__":
    run(main)
