"""Training speed: target tokens per second in steady state, and seconds to the first step.

The recurrent model is that of the published comparisons: one bidirectional LSTM layer of 2 x 256, an LSTM decoder of
512 with Luong's attention, an alignment layer of 512 where it is additive, features of 512, embeddings of 256, an
output layer of its own. The Transformer has 3 + 3 layers of width 256, 4 heads and feed-forward layers of 512. Words
are those seen at least twice, batches have 64 sentences, dropout is 0.1.

OpenNMT-py and JoeyNMT, where they are installed, train models of the same sizes on the same batches, in fp32, by
their own code, on the same device; `ratio` is ours to each of theirs. Memory that is freed is kept in our turns, as
`train.py` does, and handled as glibc handles it in theirs. Ours prefer operations that repeat, as `train.py` does;
theirs do not, as their own commands leave it. All take turns, `--rounds` times, lest a machine that slows down tell
for one of them. A toolkit that fails is left out, and a sentence says so.

On a GPU fp32 is without TF32, in products as in cuDNN, and tf32 is fp32 with it. There OpenNMT-py also trains in tf32,
and our tf32 is compared with that alone; our bf16 is compared with their fp32, as on a processor.

A step is that of `python train.py`: Lightning's loop with loading, forward, backward, clipping to norm 1, fused Adam
and the check for a finite loss. Left out are validation, logging and checkpoints. After the warm-up,
`--repeats` windows of `--steps` steps are timed in every turn; tokens per second counts target tokens with their end
symbol and without padding, and is the median over the windows that are not void, with the least and the greatest.

With `--compile` ours train also by torch.compile, with sizes that may change, after a warm-up of `--compile-warmup`
steps. A model that it cannot compile, or that it would have to compile for each of more than `--compile-limit` sizes,
is left out of these rows, and a sentence says so.

peak_share is the rate of the arithmetic in matrix products over that of a large square product on this machine, in the
same precision and with the same threads. The operations of forward and backward are counted by torch's
FlopCounterMode on some batches, with recurrences and attention spelled out in products (it cannot look into fused
kernels), padding included, and applied per target token.

Seconds to the first step are those of a whole `python train.py` on a few hundred sentences, from the start of the
process, imports and data included, to the end of the first optimizer step, except in tf32 and by torch.compile.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

from _command import add_device, add_numbers

from attnlab import allocator
from attnlab.errors import UserError
from benchmarks import _machine, _peers

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from attnlab.data.batching import Batch
    from attnlab.data.translation import TranslationData
    from attnlab.tasks.translation import TranslationTask

_ROOT = Path(__file__).resolve().parents[2]
_SCORES = ("additive", "general", "scaled", "dot")
_OURS = "attnlab"
_PRECISIONS = {"fp32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed"}
_LONGEST = 100  # tokens of a training sentence
_COUNTED = 4  # batches whose operations are counted


def add_options(parser: argparse.ArgumentParser) -> None:
    many = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument(
        "--models", choices=("rnn", "transformer"), default=["rnn", "transformer"], **many,
        help="rnn, transformer (default: both)",
    )  # fmt: skip
    parser.add_argument(
        "--scores", choices=_SCORES, default=["additive", "general"], **many,
        help=f"attention scores of the rnn, of {', '.join(_SCORES)} (default: additive general)",
    )  # fmt: skip
    parser.add_argument(
        "--feeding", choices=("yes", "no"), default=["no", "yes"], **many,
        help="input feeding of the rnn: yes, no (default: both)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=tuple(_PRECISIONS), **many,
        help="fp32, bf16, on a GPU also tf32 (default: all of the device)",
    )  # fmt: skip
    parser.add_argument(
        "--data", metavar="PATH", help="a parallel corpus, a folder or a Hub id (default: the embedded phrasebook)"
    )
    parser.add_argument("--source", default="en", metavar="COLUMN", help="of --data (default: en)")
    parser.add_argument("--target", default="de", metavar="COLUMN", help="of --data (default: de)")
    parser.add_argument("--no-peers", action="store_true", help="leave other toolkits out, even if they are installed")
    parser.add_argument("--compile", action="store_true", help="measure ours by torch.compile too")
    add_device(parser, "where all train")
    add_numbers(
        parser,
        ("pairs", 1, 20_000, "training pairs of the phrasebook"),
        ("sentences", 1, 64, "sentences of a batch"),
        ("warmup", 1, 10, "steps before the clock starts"),
        ("steps", 1, 20, "steps of a timed window"),
        ("rounds", 1, 2, "turns of every toolkit and precision"),
        ("repeats", 1, 3, "timed windows of a turn"),
        ("retries", 0, 3, "more of them for such as are void"),
        ("first-step-runs", 0, 1, "runs of train.py that are timed to their first step"),
        ("compile-warmup", 1, 60, "steps of a compiled model before the clock starts"),
        ("compile-limit", 1, 8, "sizes for which one function may be compiled"),
    )


def measure(options: argparse.Namespace, console: "Console") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One row for each model and precision, and before these one for each other toolkit."""
    from attnlab.cli import CONF
    from attnlab.experiment.build import build, compose
    from attnlab.experiment.training import make_task

    corpus = compose(CONF, ["data=parallel" if options.data else "data=phrasebook"])["data"] | {
        "max_sentences": options.sentences, "max_tokens": options.sentences * (_LONGEST + 1), "max_length": _LONGEST,
    }  # fmt: skip
    corpus["tokenizer"] |= {"kind": "word", "min_frequency": 2}
    if options.data:
        corpus |= {"path": options.data, "source": options.source, "target": options.target}
    else:
        corpus |= {"train": options.pairs, "validation": 1, "test": 1}
    data = build(corpus)
    console.print("Preparing the corpus and measuring the peak of matrix products ...")
    data.prepare()
    peaks = dict.fromkeys(options.precision, 0.0)
    rows: list[dict[str, Any]] = []
    for shape in _shapes(options):
        # the largest that is found in all that time, for the machine's speed changes
        peaks = {precision: max(peak, _machine.matmul_peak(precision)) for precision, peak in peaks.items()}
        clocks, parameters = _clocks(shape, data, options, console)
        flops = _flops_per_token(make_task(compose(CONF, _words(shape, "fp32")), data), data)
        rates = {of: clock.speed()["tokens_per_second"] for of, clock in clocks.items()}
        for of, clock in clocks.items():
            named = {"toolkit": of.toolkit, "model": shape.model, "score": shape.score, "feeding": shape.feeding}
            named |= {"precision": of.precision, "compiled": of.compiled}
            rows.append(named | clock.speed() | {"parameters": parameters[of.toolkit]})
            console.print(f"{_name(rows[-1])}: {rates[of]:,.0f} tokens/s", highlight=False)
            if of.toolkit != _OURS:
                continue
            like = "tf32" if of.precision == "tf32" else "fp32"
            ratios = {
                other.toolkit: rates[of] / rate
                for other, rate in rates.items()
                if other.toolkit != _OURS and other.precision == like
            }
            rows[-1] |= {"peak_share": flops * rates[of], "ratios": ratios}
            starts: list[float] = []
            try:
                if of.precision != "tf32" and not of.compiled:
                    starts = [_first_step(_words(shape, of.precision)) for _ in range(options.first_step_runs)]
            except UserError as error:  # what was measured so far is still worth having
                console.print(f"No time to the first step: {error}", highlight=False, markup=False, soft_wrap=True)
            rows[-1]["seconds_to_first_step"] = statistics.median(starts) if starts else None
    for row in rows:
        if "peak_share" in row:
            row["peak_share"] /= peaks[row["precision"]]
    names = ("sentences", "warmup", "steps", "rounds", "repeats", "retries", "first_step_runs")
    settings = {
        "data": Path(options.data).name if options.data else "phrasebook", "pairs": len(data.splits["train"]),
        "vocabulary_source": len(data.tokenizers.source), "vocabulary_target": len(data.tokenizers.target),
        "models": {_name(vars(shape)): _peers.overrides(shape) for shape in _shapes(options)}, "peak_flops": peaks,
        "peers": _peers.versions(),
    }  # fmt: skip
    return settings | {name: getattr(options, name) for name in names}, rows


class Contender(NamedTuple):
    """Whose training is timed, and how."""

    toolkit: str
    precision: str
    compiled: bool = False


def _clocks(
    shape: "_peers.Shape", data: "TranslationData", options: argparse.Namespace, console: "Console"
) -> "tuple[dict[Contender, Clock], dict[str, int]]":
    """The clock of each contender, the other toolkits' before ours, and the parameters of each toolkit's model."""
    from attnlab.cli import CONF
    from attnlab.experiment.build import compose

    clocks: dict[Contender, Clock] = {}
    parameters: dict[str, int] = {}
    failed: set[Contender] = set()

    def turn(of: Contender, part: Callable[[Clock], int]) -> None:
        if of in failed:
            return
        clock = clocks.setdefault(of, Clock(options, options.compile_warmup if of.compiled else options.warmup))
        clock.turn()
        try:
            with _machine.arithmetic(of.precision):
                parameters[of.toolkit] = part(clock)
        except Exception as error:  # from others' code anything may come; the other rows are still worth having
            if of.toolkit == _OURS and not of.compiled:
                raise
            failed.add(of)
            del clocks[of]
            said = next(iter(str(error).strip().splitlines()), "")
            name = _name(vars(shape) | of._asdict())
            console.print(
                f"{name} is left out: {type(error).__name__}: {said}", highlight=False, markup=False, soft_wrap=True
            )

    for _ in range(options.rounds):
        for toolkit in [] if options.no_peers else _peers.available(shape):
            for precision in _peers.PRECISIONS[toolkit]:
                if precision == "fp32" or precision in options.precision:
                    turn(Contender(toolkit, precision), partial(_theirs, toolkit, shape, data))
        for compiled in (False, True) if options.compile else (False,):
            for precision in options.precision:
                config = compose(CONF, _words(shape, precision))
                turn(Contender(_OURS, precision, compiled), partial(_train, config, data, options, compiled))
    return clocks, parameters


def _theirs(toolkit: str, shape: "_peers.Shape", data: "TranslationData", clock: "Clock") -> int:
    """A turn of another toolkit, with memory and operations as its own command leaves them; the number of
    parameters."""
    import torch

    count, training = _peers.training(toolkit, shape, data)
    repeating = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    allocator.give_back()
    try:
        training(clock.watch(data.train_dataloader()))
        return count
    finally:
        allocator.keep()
        torch.use_deterministic_algorithms(repeating, warn_only=True)


def _shapes(options: argparse.Namespace) -> "list[_peers.Shape]":
    """The models that are asked for."""
    recurrent = [
        _peers.Shape("rnn", score, feeding == "yes") for score, feeding in product(options.scores, options.feeding)
    ]
    transformer = [_peers.Shape("transformer", "scaled", False)]
    return (recurrent if "rnn" in options.models else []) + (transformer if "transformer" in options.models else [])


def _words(shape: "_peers.Shape", precision: str) -> list[str]:
    """The words of `train.py` that train such a model."""
    accelerator = "gpu" if _machine.on_gpu() else "cpu"
    return [
        *_peers.overrides(shape), f"trainer.precision={_PRECISIONS[precision]}", f"trainer.accelerator={accelerator}",
    ]  # fmt: skip


def _name(row: dict[str, Any]) -> str:
    """What a row measured, in words."""
    words = [
        row.get("toolkit"),
        row["model"],
        row["score"],
        "feeding" if row["feeding"] else None,
        row.get("precision"),
        "compiled" if row.get("compiled") else None,
    ]
    return " ".join(word for word in words if word)


@dataclass
class Window:
    """A stretch of timed steps."""

    tokens: int
    seconds: float
    pressure: float | None

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


class Clock:
    """Times windows of steps, in every turn until enough of them are not void or the retries are spent.

    Args:
        options: how many windows, and of how many steps.
        warmup: steps of a turn before its first window.
    """

    def __init__(self, options: argparse.Namespace, warmup: int) -> None:
        self._options = options
        self.warmup = warmup
        self._windows: list[Window] = []
        self._real = self._cells = 0  # of both sides, padding left out and included
        self.turn()

    @property
    def most(self) -> int:
        """The most steps that a turn takes."""
        return self.warmup + self._options.steps * (self._options.repeats + self._options.retries)

    def turn(self) -> None:
        """Begins a turn, with a warm-up of its own."""
        self._step = 0
        self._batches: list[Batch] = []  # of the window; counted behind it, for on a GPU to count is to wait
        self._before = len(self._windows)

    def stepped(self, batch: "Batch") -> bool:
        """To be called behind every step; whether it was the last."""
        length = self._options.steps
        self._step += 1
        if self._step > self.warmup:
            self._batches.append(batch)
        if self._step < self.warmup or (self._step - self.warmup) % length:
            return False
        _machine.synchronize()
        if self._step > self.warmup:
            seconds, pressure = time.perf_counter() - self._begun, self._pressure.share()
            self._windows.append(Window(self._count(), seconds, pressure))
        turn = self._windows[self._before :]
        good = sum(not _machine.is_void(window.pressure) for window in turn)
        self._batches, self._pressure, self._begun = [], _machine.Pressure(), time.perf_counter()
        return good == self._options.repeats or len(turn) == self._options.repeats + self._options.retries

    def _count(self) -> int:
        """The target tokens of the window."""
        from attnlab.data.tokenizers import PAD

        tokens = 0
        for batch in self._batches:
            target = int((batch.target_out != PAD).sum())
            tokens += target
            self._real += target + int((batch.source != PAD).sum())
            self._cells += batch.target_out.numel() + batch.source.numel()
        return tokens

    def watch(self, batches: Iterable["Batch"]) -> Iterator["Batch"]:
        """The batches, over and over, for a loop that steps before it asks for the next one."""
        while True:
            for batch in batches:
                yield batch
                if self.stepped(batch):
                    return

    def speed(self) -> dict[str, Any]:
        """The entries of a row."""
        good = [window for window in self._windows if not _machine.is_void(window.pressure)]
        rates = [window.rate for window in good or self._windows]
        pressures = [window.pressure for window in good or self._windows if window.pressure is not None]
        return {
            "tokens_per_second": statistics.median(rates), "tokens_per_second_min": min(rates),
            "tokens_per_second_max": max(rates), "repeats": len(rates), "nonpadding": self._real / self._cells,
            "cpu_pressure": max(pressures, default=None), "void": not good,
        }  # fmt: skip


def _train(
    config: dict[str, Any], data: "TranslationData", options: argparse.Namespace, compiled: bool, clock: Clock
) -> int:
    """Trains until the clock has what it wants; the number of parameters."""
    import pytorch_lightning as pl

    from attnlab.callbacks.guard import FiniteLoss
    from attnlab.experiment.training import make_task, set_up_libraries

    class Watch(pl.Callback):
        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: "Batch", batch_idx: int
        ) -> None:
            trainer.should_stop = clock.stepped(batch)

    set_up_libraries()
    pl.seed_everything(config["seed"], verbose=False)
    task = make_task(config, data)
    trainer = pl.Trainer(
        **config["trainer"] | {"devices": 1, "max_epochs": -1}, max_steps=clock.most,
        callbacks=[FiniteLoss(), Watch()], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    with _compiling(task, options.compile_limit) if compiled else nullcontext():
        trainer.fit(task, train_dataloaders=data.train_dataloader())
    if trainer.interrupted:
        raise KeyboardInterrupt
    return task.model.parameter_count()


@contextmanager
def _compiling(task: "TranslationTask", limit: int) -> Iterator[None]:
    """Within it the task's model runs by torch.compile, and fails where a function has to be compiled again more often
    than `limit` says, which torch would run as it is written."""
    import torch

    torch._dynamo.reset()
    task.model.compile(dynamic=True)
    try:
        with torch._dynamo.config.patch(recompile_limit=limit, fail_on_recompile_limit_hit=True):
            yield
    finally:
        torch._dynamo.reset()


def _flops_per_token(task: "TranslationTask", data: "TranslationData") -> float:
    """Operations in matrix products of forward and backward, for each target token; counted on the processor."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from attnlab.data.tokenizers import PAD
    from attnlab.kernels import dot_product, feed_forward, steps

    task.train()
    flops = tokens = 0
    for batch in islice(data.train_dataloader(), _COUNTED):
        counter = FlopCounterMode(display=False)
        with (
            mock.patch.object(feed_forward, "_is_served", return_value=False),
            mock.patch.object(dot_product, "_is_served", return_value=False),
            mock.patch.object(steps, "_kernel", return_value=None),
            mock.patch.object(dot_product, "torch_dot_product_attention", dot_product.naive_dot_product_attention),
            warnings.catch_warnings(action="ignore"),
            torch.backends.mkldnn.flags(enabled=False),
            counter,
        ):
            scored, candidates = task.model(batch.source, batch.target_in, batch.target_out)
            mask = batch.target_out != PAD
            task.model.objective(scored, candidates, mask)[0].backward()
        flops += counter.get_total_flops()
        tokens += int(mask.sum())
    return flops / tokens


def _first_step(overrides: list[str]) -> float:
    """Seconds to the first step of a run of its own process."""
    import json

    with tempfile.TemporaryDirectory() as folder:
        small = (
            "data.train=256 data.validation=8 data.test=8 trainer.max_epochs=1 search.beam=1 maps=0 wandb.mode=disabled"
        )
        ended = subprocess.run(
            [sys.executable, str(_ROOT / "train.py"), *overrides, *small.split(), f"run_dir={folder}/run"],
            cwd=_ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        try:
            seconds = json.loads(Path(folder, "run", "metrics.json").read_text())["train/seconds_to_first_step"]
        except (OSError, ValueError, KeyError) as error:
            said = ended.stderr.strip().splitlines() or ["it said nothing"]
            raise UserError(f"train.py did not finish (code {ended.returncode}): {said[-1]}") from error
    return float(seconds)


def table(rows: list[dict[str, Any]]) -> "Table":
    """A line for each row; a void one says so.

    `ratio` is ours to each other toolkit's, `real` the share of cells that are no padding, `start` the time to the
    first step, `waited` the share of the time in which some task of the machine waited for a processor.
    """
    from rich import box
    from rich.table import Table

    shown = Table(title="Training speed: target tokens per second", title_justify="left", box=box.SIMPLE)
    for name in ("toolkit", "model", "type"):
        shown.add_column(name, no_wrap=True)
    for name in ("median", "range", "ratio", "peak", "real", "start", "waited"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        median, least, most = (f"{row[f'tokens_per_second{suffix}']:,.0f}" for suffix in ("", "_min", "_max"))
        peak, start = row.get("peak_share"), row.get("seconds_to_first_step")
        shown.add_row(
            row["toolkit"], _name(row | {"toolkit": None, "precision": None}), row["precision"],
            median, f"{least}-{most}", _machine.ratios(row), "" if peak is None else f"{peak:.1%}",
            f"{row['nonpadding']:.0%}", "" if start is None else f"{start:.1f} s", _machine.waited(row),
        )  # fmt: skip
    return shown
