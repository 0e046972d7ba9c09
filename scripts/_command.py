"""The manners that all scripts share: mistakes are sentences, and a stopped script is quiet."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from attnlab import allocator
from attnlab.errors import INTERRUPTED, UserError

FAILED = 1
_PICTURES = (".png", ".svg", ".pdf")
CLOSED_PIPE = 141
"""What a shell reports for a program that wrote to a closed pipe."""


def run(main: Callable[[], int]) -> NoReturn:
    """Runs a script and leaves with its exit code.

    A `UserError` is printed as a sentence (code 1); Ctrl-C (130) and a reader that closed the pipe (141) end it
    without a word.
    """
    allocator.keep()
    try:
        code = main()
        sys.stdout.flush()
    except UserError as error:
        print(f"attnlab: {error}", file=sys.stderr)
        code = FAILED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # the interpreter flushes standard output once more when it leaves, and would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = CLOSED_PIPE
    sys.exit(code)


def whole(least: int = 1, most: int | None = None) -> Callable[[str], int]:
    """A type of argparse: a whole number of at least `least`, and at most `most`."""

    def number(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < least or (most is not None and int(text) > most):
            limits = f"of {least} or more" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {limits}")
        return int(text)

    return number


def add_numbers(parser: argparse.ArgumentParser, *numbers: tuple[str, int, int, str]) -> None:
    """Options that are whole numbers: (name, least, default, what it is) each."""
    for name, least, default, text in numbers:
        parser.add_argument(
            f"--{name}", type=whole(least), default=default, metavar="N", help=f"{text} (default: {default:,})"
        )


def penalty(text: str) -> float:
    """A type of argparse: a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def picture(text: str) -> Path:
    """A type of argparse: a file whose name says which kind of picture it is."""
    if Path(text).suffix not in _PICTURES:
        raise argparse.ArgumentTypeError(f"{text!r} ends in none of {', '.join(_PICTURES)}")
    return Path(text)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of every script that uses a trained run."""
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="directory of a trained run")
    parser.add_argument(
        "--checkpoint", default="best", metavar="best|last|PATH", help="which of its checkpoints (default: best)"
    )
    parser.add_argument(
        "--seed", type=whole(0, 2**32 - 1), metavar="N", help="of the test mode sample (default: the run's)"
    )
    add_device(parser, "where the model runs")


def add_device(parser: argparse.ArgumentParser, text: str) -> None:
    """The option that chooses a `device`."""
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda", help=f"{text} (default: auto)")


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """How a translator searches."""
    parser.add_argument("--beam", type=whole(), metavar="N", help="beam width, 1 is greedy (default: the run's)")
    parser.add_argument("--alpha", type=penalty, metavar="A", help="length penalty (default: the run's)")


def search_options(config: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """How to search: as the run of a config was tested, where nothing else is given."""
    given = {"beam": options.beam, "alpha": options.alpha}
    return dict(config.get("search") or {}) | {key: value for key, value in given.items() if value is not None}


def device(name: str) -> str:
    """The device of that name; UserError if this machine lacks it."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise UserError(f"--device {name} is not known; choose auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device here; choose auto or cpu.")
    return name
