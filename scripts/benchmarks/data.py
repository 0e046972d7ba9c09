"""The input pipeline: batches against the training step, the cost of the cache, and corpora of up to a million pairs.

Loading: target tokens per second that the training loader yields, and that the training step (forward, backward,
clipping, Adam; no loading) consumes in the same process. The model is the fastest of the published comparisons: one
bidirectional LSTM layer of 2 x 256, an LSTM decoder of 512 with multiplicative attention and no input feeding,
embeddings of 256, batches of 64 sentences. The ratio says how many times faster the loader is.

Preparing: seconds to read, tokenize and keep the corpus with an empty cache, and to find it in a filled one, each in a
process of its own, imports left out.

Growing: a corpus of so many pairs, made of the phrasebook's by permuting their words and written as Parquet, is given
to `train.py` with an empty cache. Seconds are those to its first step, from the start of the process. Memory is the
most that its two processes hold, the one that trains and the one that prepares the corpus meanwhile: resident memory,
and in brackets without the pages of mapped files that were touched, which the system can take back at any time.

`waited` is the share of the time in which some task waited for a processor; for growing, which has more processes than
one on purpose, that of the processors that others used just before or after.
"""

import argparse
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _command import add_numbers, whole

from benchmarks import _machine, startup

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from attnlab.data.batching import Batch
    from attnlab.data.translation import TranslationData

_MODEL = (
    "task=translation", "model=rnn", "model.cell=lstm", "model.layers=1", "model.embedding=256",
    "model.encoder_size=256", "model.decoder_size=512", "model.tie_output=false", "model.share_embeddings=false",
    "model/decoder=luong", "model.decoder.input_feeding=false", "attention=luong",
)  # fmt: skip
_LONGEST = 100  # tokens of a training sentence
_OTHERS = 8  # pairs of the validation and test splits of a grown corpus
_CHUNK = 10_000  # pairs of a grown corpus that are in memory together
_LOOK = 0.05  # seconds between two looks at the memory of processes
_PROCESSES = Path("/proc")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="FOLDER", help="a parallel corpus (default: the embedded phrasebook)")
    parser.add_argument("--source", default="en", metavar="COLUMN", help="of --data (default: en)")
    parser.add_argument("--target", default="de", metavar="COLUMN", help="of --data (default: de)")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), nargs="+", default=["fp32", "bf16"], metavar="NAME",
        help="of the training step: fp32, bf16 (default: both)",
    )  # fmt: skip
    parser.add_argument(
        "--sentences", type=whole(0), nargs="+", default=[10_000, 100_000, 1_000_000], metavar="N",
        help="pairs of the grown corpora, 0 for none (default: 10000 100000 1000000)",
    )  # fmt: skip
    add_numbers(
        parser,
        ("pairs", 1, 20_000, "training pairs of the phrasebook"),
        ("batch", 1, 64, "sentences of a batch"),
        ("warmup", 0, 1, "turns of loading and of training before the clock starts"),
        ("steps", 1, 20, "training steps of a turn"),
        ("repeats", 1, 5, "timed turns; of growing one"),
        ("retries", 0, 3, "more turns for such as are void"),
    )


def measure(options: argparse.Namespace, console: "Console") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Rows of loading, preparing and growing."""
    spec = _spec(options)
    rows = [*_loading(spec, options, console), *_preparing(spec, options, console)]
    with tempfile.TemporaryDirectory() as folder:
        rows += [_growing(Path(folder, str(count)), count, options, console) for count in options.sentences if count]
    names = ("pairs", "batch", "warmup", "steps", "repeats", "retries")
    settings = {"data": Path(options.data).name if options.data else "phrasebook", "model": list(_MODEL)}
    return settings | {name: getattr(options, name) for name in names}, rows


def _spec(options: argparse.Namespace) -> dict[str, Any]:
    from attnlab.cli import CONF
    from attnlab.experiment.build import compose

    spec = compose(CONF, ["data=parallel" if options.data else "data=phrasebook"])["data"] | {
        "max_sentences": options.batch, "max_tokens": options.batch * (_LONGEST + 1), "max_length": _LONGEST,
    }  # fmt: skip
    spec["tokenizer"] |= {"kind": "word", "min_frequency": 2}
    if options.data:
        return spec | {"path": options.data, "source": options.source, "target": options.target}
    return spec | {"train": options.pairs, "validation": 1, "test": 1}


def _loading(spec: dict[str, Any], options: argparse.Namespace, console: "Console") -> Iterator[dict[str, Any]]:
    from attnlab.experiment.build import build

    data = build(spec)
    data.prepare()
    split = data.splits["train"]
    tokens = int((split.target.lengths + 1).sum())

    def epoch() -> None:
        for _ in data.train_dataloader():
            pass

    loading = _machine.turns(epoch, options.repeats, options.retries, options.warmup)
    loaded = tokens / statistics.median(loading.seconds)
    for precision in options.precision:
        step, count = _training(data, precision, options.steps)
        training = _machine.turns(step, options.repeats, options.retries, options.warmup)
        rate = count / statistics.median(training.seconds)
        pressures = [turns.pressure for turns in (loading, training) if turns.pressure is not None]
        yield {
            "part": "loading", "precision": precision, "tokens_per_second": loaded,
            "tokens_per_second_min": tokens / max(loading.seconds),
            "tokens_per_second_max": tokens / min(loading.seconds),
            "step_tokens_per_second": rate, "ratio": loaded / rate, "pairs": len(split), "tokens": tokens,
            "cpu_pressure": max(pressures, default=None), "void": loading.void or training.void,
        }  # fmt: skip
        console.print(f"loading: {loaded:,.0f} tokens/s, {loaded / rate:,.0f} times the step's", highlight=False)


def _training(data: "TranslationData", precision: str, steps: int) -> tuple[Callable[[], None], int]:
    """Some training steps on batches that are there already, and the number of their target tokens."""
    from itertools import cycle, islice

    import torch

    from attnlab.cli import CONF
    from attnlab.data.tokenizers import PAD
    from attnlab.experiment.build import build, compose
    from attnlab.experiment.domains import DOMAINS

    torch.manual_seed(1)
    model = build(DOMAINS["translation"].spec(compose(CONF, _MODEL), data)).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    batches: list[Batch] = list(islice(cycle(data.train_dataloader()), steps))

    def train() -> None:
        for batch in batches:
            mask = batch.target_out != PAD
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                scored, candidates = model(batch.source, batch.target_in, batch.target_out)
                loss = model.objective(scored, candidates, mask).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return train, sum(int((batch.target_out != PAD).sum()) for batch in batches)


def _preparing(spec: dict[str, Any], options: argparse.Namespace, console: "Console") -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        caches = iter(range(options.repeats + options.retries))
        kinds: dict[str, Callable[[], float]] = {
            "empty": lambda: _alone(spec, Path(folder, str(next(caches)))),
            "filled": lambda: _alone(spec, Path(folder, "0")),  # by the first of those
        }
        for cache, turn in kinds.items():
            spread = _machine.turns(turn, options.repeats, options.retries).spread()
            yield {"part": "preparing", "cache": cache} | spread
            console.print(f"preparing, {cache} cache: {spread['seconds']:.2f} s", highlight=False)


def _alone(spec: dict[str, Any], cache: Path) -> float:
    """The seconds that preparing takes in a process of its own with its own cache."""
    with _machine.another_process() as pool:
        return pool.submit(_prepare, spec, startup.environment(cache)).result()


def _prepare(spec: dict[str, Any], environment: dict[str, str]) -> float:
    import os

    os.environ.update(environment)  # before what reads it is imported

    import datasets  # noqa: F401
    import tokenizers  # noqa: F401

    from attnlab.data.corpora import from_spec
    from attnlab.data.prepare import TOKENIZER_OPTIONS, encode_corpus

    begun = time.perf_counter()
    encode_corpus(from_spec(spec), TOKENIZER_OPTIONS | spec["tokenizer"])
    return time.perf_counter() - begun


def _growing(folder: Path, sentences: int, options: argparse.Namespace, console: "Console") -> dict[str, Any]:
    """One run of train.py on a corpus of so many pairs."""
    write_corpus(folder, sentences, options.pairs)
    overrides = (
        "data=parallel", f"data.path={folder}", f"data.max_sentences={options.batch}", "wandb.mode=disabled",
    )  # fmt: skip
    peaks: dict[str, list[Peak]] = {}

    def turn() -> float:
        with tempfile.TemporaryDirectory() as cache:

            @contextmanager
            def watch(process: int) -> Iterator[None]:
                with watching(process) as found:
                    yield
                trains, *prepares = sorted(found, key=lambda peak: peak.process != process)
                peaks.setdefault("training", []).append(trains)
                peaks.setdefault("preparing", []).extend(prepares)

            return startup.train(overrides, Path(cache), watch=watch).seconds

    spread = _machine.turns(turn, 1, options.retries, watch=_machine.Others).spread()
    row = {"part": "growing", "sentences": sentences} | spread
    for name, found in peaks.items():
        row[f"{name}_bytes"] = max((peak.resident for peak in found), default=None)
        row[f"{name}_own_bytes"] = max((peak.own for peak in found), default=None)
    console.print(f"{sentences:,} pairs: first step after {row['seconds']:.1f} s", highlight=False)
    return row


def write_corpus(folder: Path, sentences: int, pairs: int) -> None:
    """Writes a corpus in Hub layout, of the phrasebook's pairs with their words in another order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from attnlab.data.corpora import Phrasebook

    rows = Phrasebook(train=pairs, validation=1, test=1).load()["train"]
    words = [[text.split() for text in rows[side]] for side in ("source", "target")]
    numbers = random.Random(0)

    def permuted(count: int) -> pa.Table:
        chosen = [numbers.randrange(len(rows)) for _ in range(count)]
        return pa.table(
            {
                name: [" ".join(numbers.sample(texts[row], len(texts[row]))) for row in chosen]
                for name, texts in zip(("source", "target"), words, strict=True)
            }
        )

    folder.mkdir(parents=True)
    for split, count in {"train": sentences, "validation": _OTHERS, "test": _OTHERS}.items():
        with pq.ParquetWriter(
            folder / f"{split}.parquet", pa.schema({"source": pa.string(), "target": pa.string()})
        ) as file:
            for first in range(0, count, _CHUNK):
                file.write_table(permuted(min(_CHUNK, count - first)))


class Peak:
    """The most memory that a process was seen to hold, in bytes: resident, and without pages of mapped files."""

    def __init__(self, process: int) -> None:
        self.process = process
        self.resident = self.own = 0

    def look(self) -> None:
        sizes = _machine.status(self.process)
        if "VmHWM" not in sizes:  # it has ended
            return
        if sizes["VmHWM"] < self.resident / 2:  # that was the parent, before exec; the kernel's sums vary by far less
            self.resident = self.own = 0
        self.resident, self.own = max(self.resident, sizes["VmHWM"]), max(self.own, sizes["RssAnon"])


@contextmanager
def watching(process: int) -> Iterator[list[Peak]]:
    """Looks at a process and those that it starts, and gives their peaks, which are whole when the body is left."""
    peaks = {process: Peak(process)}
    found: list[Peak] = [peaks[process]]
    done = threading.Event()

    def look() -> None:
        while not done.wait(_LOOK):
            for child in _descendants(process):
                if child not in peaks:
                    peaks[child] = Peak(child)
                    found.append(peaks[child])
            for peak in peaks.values():
                peak.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def _descendants(process: int) -> Iterator[int]:
    for children in (_PROCESSES / str(process) / "task").glob("*/children"):
        try:
            numbers = children.read_text().split()
        except OSError:  # it has ended
            continue
        for number in map(int, numbers):
            yield number
            yield from _descendants(number)


def table(rows: list[dict[str, Any]]) -> "Table":
    """A line for each row: tokens per second and their ratio to the step's, or seconds and memory."""
    from rich import box
    from rich.table import Table

    shown = Table(title="The input pipeline", title_justify="left", box=box.SIMPLE, padding=0)
    shown.add_column("", no_wrap=True)
    for name in ("tokens/s", "ratio", "seconds", "train MiB", "prepare MiB", "waited"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        what = {
            "loading": "loading, {precision} step", "preparing": "preparing, {cache} cache",
            "growing": "first step, {sentences:,} pairs",
        }[row["part"]]  # fmt: skip
        numbers = [format(row[name], form) if name in row else "" for name, form in _NUMBERS.items()]
        memory = [_memory(row, name) for name in ("training", "preparing")]
        shown.add_row(what.format(**row), *numbers, *memory, _machine.waited(row))
    return shown


_NUMBERS = {"tokens_per_second": ",.0f", "ratio": ",.0f", "seconds": ".2f"}


def _memory(row: dict[str, Any], name: str) -> str:
    """MiB, and in brackets those that are no pages of files."""
    if not row.get(f"{name}_bytes"):
        return ""
    return f"{row[f'{name}_bytes'] / 2**20:,.0f} ({row[f'{name}_own_bytes'] / 2**20:,.0f})"
