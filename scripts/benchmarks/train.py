"""Training speed: target tokens per second in steady state, and seconds to the first step.

The recurrent model is that of the published comparisons: one bidirectional LSTM layer of 2 x 256, an LSTM decoder of
512 with Luong's attention, an alignment layer of 512 where it is additive, features of 512, embeddings of 256, an
output layer of its own. The Transformer has 3 + 3 layers of width 256, 4 heads and feed-forward layers of 512. Words
are those seen at least twice, batches have 64 sentences, dropout is 0.1.

OpenNMT-py and JoeyNMT, where they are installed, train models of the same sizes on the same batches, in fp32, by
their own code; `ratio` is ours to each of theirs. Memory that is freed is kept in our turns, as `train.py` does, and
handled as glibc handles it in theirs. All take turns, `--rounds` times, lest a machine that slows down tell
for one of them.

A step is that of `python train.py`: Lightning's loop with loading, forward, backward, clipping to norm 1, fused Adam
and the check for a finite loss, on the processor. Left out are validation, logging and checkpoints. After the warm-up,
`--repeats` windows of `--steps` steps are timed in every turn; tokens per second counts target tokens with their end
symbol and without padding, and is the median over the windows that are not void, with the least and the greatest.

peak_share is the rate of the arithmetic in matrix products over that of a large square product on this machine, in the
same precision and with the same threads. The operations of forward and backward are counted by torch's
FlopCounterMode on some batches, with recurrences and attention spelled out in products (it cannot look into fused
kernels), padding included, and applied per target token.

Seconds to the first step are those of a whole `python train.py` on a few hundred sentences, from the start of the
process, imports and data included, to the end of the first optimizer step.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from _command import add_numbers

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
_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
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
        "--precision", choices=tuple(_PRECISIONS), default=list(_PRECISIONS), **many, help="fp32, bf16 (default: both)"
    )
    parser.add_argument(
        "--data", metavar="PATH", help="a parallel corpus, a folder or a Hub id (default: the embedded phrasebook)"
    )
    parser.add_argument("--source", default="en", metavar="COLUMN", help="of --data (default: en)")
    parser.add_argument("--target", default="de", metavar="COLUMN", help="of --data (default: de)")
    parser.add_argument("--no-peers", action="store_true", help="leave other toolkits out, even if they are installed")
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
    )


def measure(options: argparse.Namespace, console: "Console") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One row for each model and precision, and before these one for each other toolkit."""
    from attnlab.cli import CONF
    from attnlab.experiment.build import build, compose

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
    peaks = {precision: _machine.matmul_peak(precision) for precision in options.precision}
    rows: list[dict[str, Any]] = []
    for shape in _shapes(options):
        clocks: dict[tuple[str, str], Clock] = {}
        parameters, flops = {}, 0.0
        for _ in range(options.rounds):
            for toolkit, count, training in () if options.no_peers else _peers.available(shape, data):
                parameters[toolkit] = count
                clock = clocks.setdefault((toolkit, "fp32"), Clock(options))
                clock.turn()
                allocator.give_back()  # as their own commands leave it
                training(clock.watch(data.train_dataloader()))
                allocator.keep()
            for precision in options.precision:
                clock = clocks.setdefault((_OURS, precision), Clock(options))
                clock.turn()
                parameters[_OURS], flops = _train(compose(CONF, _words(shape, precision)), data, clock, options)
        peers: dict[str, float] = {}
        for (toolkit, precision), clock in clocks.items():
            speed = clock.speed()
            rate = speed["tokens_per_second"]
            named = {"toolkit": toolkit, "model": shape.model, "score": shape.score, "feeding": shape.feeding}
            rows.append(named | {"precision": precision, **speed, "parameters": parameters[toolkit]})
            console.print(f"{_name(rows[-1])}: {rate:,.0f} tokens/s", highlight=False)
            if toolkit != _OURS:
                peers[toolkit] = rate
                continue
            ratios = {other: rate / slower for other, slower in peers.items()}
            rows[-1] |= {"peak_share": flops * rate / peaks[precision], "ratios": ratios}
            try:
                starts = [_first_step(_words(shape, precision)) for _ in range(options.first_step_runs)]
            except UserError as error:  # what was measured so far is still worth having
                console.print(f"No time to the first step: {error}", highlight=False, markup=False, soft_wrap=True)
                starts = []
            rows[-1]["seconds_to_first_step"] = statistics.median(starts) if starts else None
    names = ("sentences", "warmup", "steps", "rounds", "repeats", "retries", "first_step_runs")
    settings = {
        "data": Path(options.data).name if options.data else "phrasebook", "pairs": len(data.splits["train"]),
        "vocabulary_source": len(data.tokenizers.source), "vocabulary_target": len(data.tokenizers.target),
        "models": {_name(vars(shape)): _peers.overrides(shape) for shape in _shapes(options)}, "peak_flops": peaks,
        "peers": _peers.versions(),
    }  # fmt: skip
    return settings | {name: getattr(options, name) for name in names}, rows


def _shapes(options: argparse.Namespace) -> "list[_peers.Shape]":
    """The models that are asked for."""
    recurrent = [
        _peers.Shape("rnn", score, feeding == "yes") for score, feeding in product(options.scores, options.feeding)
    ]
    transformer = [_peers.Shape("transformer", "scaled", False)]
    return (recurrent if "rnn" in options.models else []) + (transformer if "transformer" in options.models else [])


def _words(shape: "_peers.Shape", precision: str) -> list[str]:
    """The words of `train.py` that train such a model."""
    return [*_peers.overrides(shape), f"trainer.precision={_PRECISIONS[precision]}"]


def _name(row: dict[str, Any]) -> str:
    """What a row measured, in words."""
    words = [
        row.get("toolkit"),
        row["model"],
        row["score"],
        "feeding" if row["feeding"] else None,
        row.get("precision"),
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
    """Times windows of steps, in every turn until enough of them are not void or the retries are spent."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._windows: list[Window] = []
        self._real = self._cells = 0  # of both sides, padding left out and included
        self.turn()

    def turn(self) -> None:
        """Begins a turn, with a warm-up of its own."""
        self._step = self._tokens = 0
        self._before = len(self._windows)

    def stepped(self, batch: "Batch") -> bool:
        """To be called behind every step; whether it was the last."""
        from attnlab.data.tokenizers import PAD

        warmup, length = self._options.warmup, self._options.steps
        self._step += 1
        if self._step > warmup:
            target = int((batch.target_out != PAD).sum())
            self._tokens += target
            self._real += target + int((batch.source != PAD).sum())
            self._cells += batch.target_out.numel() + batch.source.numel()
        if self._step < warmup or (self._step - warmup) % length:
            return False
        if self._step > warmup:
            seconds = time.perf_counter() - self._begun
            self._windows.append(Window(self._tokens, seconds, self._pressure.share()))
        turn = self._windows[self._before :]
        good = sum(not _machine.is_void(window.pressure) for window in turn)
        self._tokens, self._pressure, self._begun = 0, _machine.Pressure(), time.perf_counter()
        return good == self._options.repeats or len(turn) == self._options.repeats + self._options.retries

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
    config: dict[str, Any], data: "TranslationData", clock: Clock, options: argparse.Namespace
) -> tuple[int, float]:
    """Trains until the clock has what it wants; the number of parameters, and the operations for a target token."""
    import pytorch_lightning as pl

    from attnlab.callbacks.guard import FiniteLoss
    from attnlab.experiment.training import make_task, quiet

    class Watch(pl.Callback):
        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: "Batch", batch_idx: int
        ) -> None:
            trainer.should_stop = clock.stepped(batch)

    quiet()
    pl.seed_everything(config["seed"], verbose=False)
    task = make_task(config, data)
    flops = _flops_per_token(task, islice(data.train_dataloader(), _COUNTED))
    trainer = pl.Trainer(
        **config["trainer"] | {"accelerator": "cpu", "devices": 1, "max_epochs": -1},
        max_steps=options.warmup + options.steps * (options.repeats + options.retries),
        callbacks=[FiniteLoss(), Watch()], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, train_dataloaders=data.train_dataloader())
    if trainer.interrupted:
        raise KeyboardInterrupt
    return task.model.parameter_count(), flops


def _flops_per_token(task: "TranslationTask", batches: "Iterable[Batch]") -> float:
    """Operations in matrix products of forward and backward, for each target token."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from attnlab.data.tokenizers import PAD
    from attnlab.kernels import dot_product, feed_forward

    task.train()
    flops = tokens = 0
    for batch in batches:
        counter = FlopCounterMode(display=False)
        with (
            mock.patch.object(feed_forward, "_is_served", return_value=False),
            mock.patch.object(dot_product, "_is_served", return_value=False),
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
    task.zero_grad()
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
        ratios = " ".join(f"{ratio:.2f}" for ratio in row.get("ratios", {}).values())
        peak, start = row.get("peak_share"), row.get("seconds_to_first_step")
        shown.add_row(
            row["toolkit"], _name(row | {"toolkit": None, "precision": None}), row["precision"],
            median, f"{least}-{most}", ratios, "" if peak is None else f"{peak:.1%}",
            f"{row['nonpadding']:.0%}", "" if start is None else f"{start:.1f} s", _machine.waited(row),
        )  # fmt: skip
    return shown
