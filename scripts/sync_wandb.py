#!/usr/bin/env python
"""Sends offline runs to Weights & Biases: `python scripts/sync_wandb.py outputs`.

Finds the offline runs of every run directory below the folders and sends them, oldest first, with `wandb sync`, so that
a run that was resumed arrives in order. What has been sent is marked, and left out the next time.

Exit codes: 0 all sent, 1 some not, 2 an argument that is not understood, 130 interrupted by Ctrl-C.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from _command import run

from attnlab.errors import UserError


def parse() -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run directories, or folders of them")
    parser.add_argument("--list", action="store_true", help="only say what would be sent")
    return parser.parse_args()


def pending(folders: list[Path]) -> list[Path]:
    """The offline runs below the folders that have not been sent, oldest first."""
    found = {
        path.parent.resolve()
        for folder in folders
        for path in folder.rglob("wandb/offline-run-*/*.wandb")
        if not path.with_name(f"{path.name}.synced").exists()  # wandb's own mark
    }
    return sorted(found, key=lambda path: path.name)  # offline-run-DATE_TIME-ID


def main() -> int:
    options = parse()
    if missing := [str(folder) for folder in options.folders if not folder.is_dir()]:
        raise UserError(f"There is no folder {', '.join(missing)}.")
    runs = pending(options.folders)
    failed = 0
    for path in runs:
        print(path, flush=True)
        if not options.list:
            failed += subprocess.run([sys.executable, "-m", "wandb", "sync", str(path)], check=False).returncode != 0
    print(f"{len(runs)} to send." if options.list else f"{len(runs) - failed} of {len(runs)} sent.")
    return 1 if failed else 0


if __name__ == "__main__":
    run(main)
