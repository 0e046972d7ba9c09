#!/usr/bin/env python
"""Translates standard input with a trained run: `python scripts/translate.py RUN_DIR < in.txt > out.txt`.

One line of output for each line of input, in the same order. Where the run has a column of tags, a line is a text, a
tab and its tags, such as "Haus<TAB>N;DAT;PL". A line that cannot be translated (blank, longer than --max-length, not
UTF-8, or without tags where they are needed) is reported on standard error by its number, and its output is empty.

Exit codes: 0 every line was translated, 1 nothing could be done, 2 an argument that is not understood, 3 some lines
were not translated, 130 interrupted by Ctrl-C, 141 the reader of the output closed it.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from _command import add_run_options, add_search_options, device, run, search_options, whole

from attnlab.errors import UserError

if TYPE_CHECKING:
    from attnlab.decoding import Hypothesis
    from attnlab.experiment.use import TrainedRun

_WINDOW = 2000  # lines that are read, sorted by length and translated before any of them is written
_LONGEST_LINE = 1 << 16  # bytes, and at least 64 a token: a line without an end must not fill the memory
_UNTRANSLATED = 3


@dataclass
class Line:
    """One line of input and what became of it."""

    number: int  # from 1
    ids: list[int]
    problem: str = ""  # why it is not translated
    found: "Hypothesis | None" = None


def parse() -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_options(parser)
    add_search_options(parser)
    parser.add_argument("--mode", metavar="MODE", help="test mode of the model (default: its own)")
    parser.add_argument(
        "--batch-tokens", type=whole(), default=2048, metavar="N",
        help="source tokens of a batch, padding included (default: 2048)",
    )  # fmt: skip
    parser.add_argument(
        "--max-length", type=whole(), default=512, metavar="N",
        help="source tokens beyond which a line is not translated (default: 512)",
    )  # fmt: skip
    parser.add_argument(
        "--alignments", type=Path, metavar="FILE",
        help="also write, as JSON Lines, each line's source and target tokens and attention weights [target][source]",
    )  # fmt: skip
    parser.add_argument(
        "--plot", type=Path, metavar="DIR", help="also draw each line's attention, line 1 as DIR/0001.png"
    )
    return parser.parse_args()


def main() -> int:
    options = parse()

    from attnlab.experiment.use import load_translator
    from attnlab.files import check_file, check_folder, write_jsonl

    if options.alignments is not None:
        check_file(options.alignments)
    if options.plot is not None:
        check_folder(options.plot)
    trained = load_translator(options.run, options.checkpoint)

    import torch

    trained.task.to(device(options.device))
    mode = trained.check_mode(options.mode or trained.modes[0])
    search = {key: value for key, value in search_options(trained.config, options).items() if key in ("beam", "alpha")}
    torch.manual_seed(trained.config.get("seed", 0) if options.seed is None else options.seed)

    problems: list[int] = []
    limit = max(_LONGEST_LINE, 64 * options.max_length)
    lines = encoded(trained, raw_lines(sys.stdin.buffer, limit), options.max_length)
    done = translated(trained, lines, mode=mode, batch_tokens=options.batch_tokens, **search)
    written = write(trained, done, problems, options.plot)
    if options.alignments is None:
        for _ in written:
            pass
    else:
        write_jsonl(options.alignments, (alignment(trained, line) for line in written))
    if problems:
        print(f"attnlab: {len(problems)} lines were not translated.", file=sys.stderr)
    return _UNTRANSLATED if problems else 0


def raw_lines(stream: IO[bytes], limit: int) -> Iterator[bytes | None]:
    """Lines without their ends, only \\n being one; None for a line of more than `limit` bytes, which is skipped."""
    while line := stream.readline(limit):
        if line.endswith(b"\n") or len(line) < limit:
            yield line.removesuffix(b"\n")
            continue
        while (rest := stream.readline(limit)) and not rest.endswith(b"\n"):
            pass
        yield None


def encoded(trained: "TrainedRun", lines: Iterable[bytes | None], longest: int) -> Iterator[Line]:
    """The lines as ids, or with what is wrong with them."""
    for number, raw in enumerate(lines, start=1):
        line = Line(number, [])
        try:
            if raw is None:
                raise UserError(f"it is far longer than --max-length {longest} tokens")
            text, tags = fields(raw.decode("utf-8-sig" if number == 1 else "utf-8"), trained.tagged)
            (line.ids,) = trained.tokenizers.encode_sources([text], tags)
            if len(line.ids) > longest:
                raise UserError(f"it has {len(line.ids)} tokens, more than --max-length {longest}")
        except UnicodeDecodeError as error:
            line.problem = f"it is not UTF-8 (byte {error.start + 1})"
        except UserError as error:
            line.problem = str(error)
        yield line


def fields(text: str, tagged: bool) -> tuple[str, list[str] | None]:
    """The text of a line, and its tags where the run has them."""
    parts = text.split("\t") if tagged else [text]
    if not "".join(parts).strip() or not parts[0].strip():
        raise UserError("it is empty")
    if not tagged:
        return text, None
    if len(parts) != 2:
        raise UserError(f"it must be a text, a tab and its tags, and it has {len(parts)} columns")
    return parts[0], [parts[1]]


def translated(trained: "TrainedRun", lines: Iterator[Line], **options: Any) -> Iterator[list[Line]]:
    """The lines in windows, in order, each line with its translation."""
    from attnlab.experiment.use import translate

    while window := list(islice(lines, _WINDOW)):
        good = [line for line in window if not line.problem]
        for row, found in translate(trained, [line.ids for line in good], **options):
            good[row].found = found
        yield window


def write(
    trained: "TrainedRun", windows: Iterable[list[Line]], problems: list[int], pictures: Path | None
) -> Iterator[Line]:
    """Writes each window to standard output, its problems to standard error, and passes its lines on."""
    for window in windows:
        texts = []
        for line in window:
            if line.problem:
                problems.append(line.number)
                print(f"attnlab: line {line.number} is not translated: {line.problem}.", file=sys.stderr)
            texts.append(trained.tokenizers.target.decode(line.found.tokens) if line.found else "")
        try:
            sys.stdout.buffer.write("".join(f"{text}\n" for text in texts).encode("utf-8", "replace"))
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(f"The translations cannot be written: {os.strerror(error.errno or 0)}.") from error
        for line in window:
            if pictures is not None and line.found:
                draw(trained, line, pictures / f"{line.number:04d}.png")
            yield line


def labels(trained: "TrainedRun", line: Line) -> tuple[list[str], list[str]]:
    """Source and target tokens of a translated line, as many as its weights have columns and rows."""
    from attnlab.data.tokenizers import EOS

    assert line.found is not None
    source = trained.tokenizers.source.tokens([*line.ids, EOS])
    target = trained.tokenizers.target.tokens([*line.found.tokens, EOS])
    return source, target[: len(line.found.weights)]  # without <eos> where the search reached its limit


def draw(trained: "TrainedRun", line: Line, path: Path) -> None:
    from attnlab.evaluation.plots import attention_heatmap

    assert line.found is not None
    attention_heatmap(line.found.weights, *labels(trained, line), path)


def alignment(trained: "TrainedRun", line: Line) -> dict[str, Any]:
    """One row of the alignments; a line that was not translated has empty lists and says why."""
    if line.found is None:
        return {"line": line.number, "source": [], "target": [], "weights": [], "problem": line.problem}
    source, target = labels(trained, line)
    weights = [[round(weight, 4) for weight in row] for row in line.found.weights.tolist()]
    return {"line": line.number, "source": source, "target": target, "weights": weights}


if __name__ == "__main__":
    run(main)
