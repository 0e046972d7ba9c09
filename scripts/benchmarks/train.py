"""Training speed: target tokens per second in steady state, and seconds to the first step.

The model is that of the published comparisons: one bidirectional LSTM layer of 2 x 256, an LSTM decoder of 512 with
Luong's attention, an alignment layer of 256 where it is additive, embeddings of 256, an output layer of its own, words
seen at least twice, batches of 64 sentences.

A step is that of `python train.py`: Lightning's loop with loading, forward, backward, clipping to norm 1, fused Adam
and the check for a finite loss, on the processor. Left out are validation, logging and checkpoints. After the warm-up,
`--repeats` windows of `--steps` steps are timed; tokens per second counts target tokens with their end symbol and
without padding, and is the median over the windows that are not void, with the least and the greatest.

peak_share is the rate of the arithmetic in matrix products over that of a large square product on this machine, in the
same precision and with the same threads. The operations of forward and backward are counted by torch's
FlopCounterMode on some batches, with the recurrences spelled out in products (it cannot look into the fused kernel),
padding included, and applied per target token.

Seconds to the first step are those of a whole `python train.py` on a few hundred sentences, from the start of the
process, imports and data included, to the end of the first optimizer step.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _command import add_numbers

from attnlab.errors import UserError
from benchmarks import _machine

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from attnlab.data.batching import Batch
    from attnlab.data.translation import TranslationData
    from attnlab.tasks.translation import TranslationTask

_ROOT = Path(__file__).resolve().parents[2]
_SCORES = ("additive", "general", "scaled", "dot")
_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
_CLIP = 1.0  # norm of the gradient
_MODEL = (
    "task=translation", "model=rnn", "model.cell=lstm", "model.layers=1", "model.embedding=256",
    "model.encoder_size=256", "model.decoder_size=512", "model.tie_output=false", "model.share_embeddings=false",
    "model/decoder=luong", "attention=luong", "optimizer=adam", "optimizer.fused=true",
    f"trainer.gradient_clip_val={_CLIP}",
)  # fmt: skip
_LONGEST = 100  # tokens of a training sentence
_COUNTED = 4  # batches whose operations are counted


def add_options(parser: argparse.ArgumentParser) -> None:
    many = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument(
        "--scores", choices=_SCORES, default=["additive", "general"], **many,
        help=f"attention scores, of {', '.join(_SCORES)} (default: additive general)",
    )  # fmt: skip
    parser.add_argument(
        "--feeding", choices=("yes", "no"), default=["no", "yes"], **many, help="input feeding: yes, no (default: both)"
    )
    parser.add_argument(
        "--precision", choices=tuple(_PRECISIONS), default=list(_PRECISIONS), **many, help="fp32, bf16 (default: both)"
    )
    parser.add_argument(
        "--data", metavar="PATH", help="a parallel corpus, a folder or a Hub id (default: the embedded phrasebook)"
    )
    parser.add_argument("--source", default="en", metavar="COLUMN", help="of --data (default: en)")
    parser.add_argument("--target", default="de", metavar="COLUMN", help="of --data (default: de)")
    add_numbers(
        parser,
        ("pairs", 1, 20_000, "training pairs of the phrasebook"),
        ("sentences", 1, 64, "sentences of a batch"),
        ("warmup", 1, 10, "steps before the clock starts"),
        ("steps", 1, 20, "steps of a timed window"),
        ("repeats", 1, 5, "timed windows"),
        ("retries", 0, 4, "more windows for such as are void"),
        ("first-step-runs", 0, 1, "runs of train.py that are timed to their first step"),
    )


def measure(options: argparse.Namespace, console: "Console") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One row for each score, feeding and precision.

    Another toolkit that is installed is measured by one more function that yields rows of the same keys, its name
    under `model`.
    """
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
    rows = []
    for score, feeding, precision in product(options.scores, options.feeding, options.precision):
        overrides = [
            *_MODEL,
            f"attention/score={score}",
            *(["attention.score.size=256"] if score == "additive" else []),
            f"model.decoder.input_feeding={'true' if feeding == 'yes' else 'false'}",
            f"trainer.precision={_PRECISIONS[precision]}",
        ]
        speed = _speed(compose(CONF, overrides), data, options)
        console.print(
            f"rnn {score}, feeding {feeding}, {precision}: {speed['tokens_per_second']:,.0f} tokens/s", highlight=False
        )
        flops = speed.pop("flops_per_token") * speed["tokens_per_second"]
        try:
            starts = [_first_step(overrides) for _ in range(options.first_step_runs)]
        except UserError as error:  # what was measured so far is still worth having
            console.print(f"No time to the first step: {error}", highlight=False, markup=False, soft_wrap=True)
            starts = []
        rows.append(
            {"model": "rnn", "score": score, "feeding": feeding == "yes", "precision": precision}
            | speed
            | {
                "peak_share": flops / peaks[precision],
                "seconds_to_first_step": statistics.median(starts) if starts else None,
            }
        )
    names = ("sentences", "warmup", "steps", "repeats", "retries", "first_step_runs")
    settings = {
        "data": Path(options.data).name if options.data else "phrasebook", "pairs": len(data.splits["train"]),
        "vocabulary_source": len(data.tokenizers.source), "vocabulary_target": len(data.tokenizers.target),
        "model": list(_MODEL), "peak_flops": peaks,
    }  # fmt: skip
    return settings | {name: getattr(options, name) for name in names}, rows


@dataclass
class Window:
    """A stretch of timed steps."""

    tokens: int
    seconds: float
    pressure: float | None

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


def _speed(config: dict[str, Any], data: "TranslationData", options: argparse.Namespace) -> dict[str, Any]:
    """Trains until enough windows are timed."""
    import pytorch_lightning as pl

    from attnlab.callbacks.guard import FiniteLoss
    from attnlab.experiment.training import make_task, quiet

    quiet()
    pl.seed_everything(config["seed"], verbose=False)
    task = make_task(config, data)
    flops = _flops_per_token(task, islice(data.train_dataloader(), _COUNTED))
    clock = _clock(options)
    trainer = pl.Trainer(
        **config["trainer"] | {"accelerator": "cpu", "devices": 1, "max_epochs": -1},
        max_steps=options.warmup + options.steps * (options.repeats + options.retries),
        callbacks=[FiniteLoss(), clock], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, train_dataloaders=data.train_dataloader())
    if trainer.interrupted:
        raise KeyboardInterrupt
    good = [window for window in clock.windows if not _machine.is_void(window.pressure)]
    rates = [window.rate for window in good or clock.windows]
    pressures = [window.pressure for window in good or clock.windows if window.pressure is not None]
    return {
        "tokens_per_second": statistics.median(rates),
        "tokens_per_second_min": min(rates),
        "tokens_per_second_max": max(rates),
        "repeats": len(rates),
        "nonpadding": clock.real / clock.cells,
        "cpu_pressure": max(pressures, default=None),
        "void": not good,
        "parameters": task.model.parameter_count(),
        "flops_per_token": flops,
    }


def _clock(options: argparse.Namespace) -> Any:
    """A callback that times windows of steps, until enough of them are not void or the retries are spent."""
    import time

    import pytorch_lightning as pl

    from attnlab.data.tokenizers import PAD

    class Clock(pl.Callback):
        def __init__(self) -> None:
            self.windows: list[Window] = []
            self.real = self.cells = 0  # of both sides, padding left out and included
            self._step = self._tokens = 0

        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: "Batch", batch_idx: int
        ) -> None:
            self._step += 1
            if self._step > options.warmup:
                target = int((batch.target_out != PAD).sum())
                self._tokens += target
                self.real += target + int((batch.source != PAD).sum())
                self.cells += batch.target_out.numel() + batch.source.numel()
            if self._step < options.warmup or (self._step - options.warmup) % options.steps:
                return
            if self._step > options.warmup:
                seconds = time.perf_counter() - self._begun
                self.windows.append(Window(self._tokens, seconds, self._pressure.share()))
                good = sum(not _machine.is_void(window.pressure) for window in self.windows)
                trainer.should_stop = good == options.repeats
            self._tokens, self._pressure, self._begun = 0, _machine.Pressure(), time.perf_counter()

    return Clock()


def _flops_per_token(task: "TranslationTask", batches: "Iterable[Batch]") -> float:
    """Operations in matrix products of forward and backward, for each target token."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from attnlab.data.tokenizers import PAD

    task.train()
    flops = tokens = 0
    for batch in batches:
        counter = FlopCounterMode(display=False)
        with warnings.catch_warnings(action="ignore"), torch.backends.mkldnn.flags(enabled=False), counter:
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

    `real` is the share of cells that are no padding, `start` the time to the first step, `waited` the share of the time
    in which some task of the machine waited for a processor.
    """
    from rich import box
    from rich.table import Table

    shown = Table(title="Training speed: target tokens per second", title_justify="left", box=box.SIMPLE)
    for name in ("model", "type"):
        shown.add_column(name)
    for name in ("median", "least", "most", "peak", "real", "start", "waited"):
        shown.add_column(name, justify="right")
    for row in rows:
        pressure, start = row["cpu_pressure"], row["seconds_to_first_step"]
        rates = [row[f"tokens_per_second{suffix}"] for suffix in ("", "_min", "_max")]
        shown.add_row(
            f"{row['model']} {row['score']}{', feeding' if row['feeding'] else ''}", row["precision"],
            *[f"{rate:,.0f}" for rate in rates], f"{row['peak_share']:.1%}", f"{row['nonpadding']:.0%}",
            "" if start is None else f"{start:.1f} s",
            ("" if pressure is None else f"{pressure:.1%}") + (" void" if row["void"] else ""),
        )  # fmt: skip
    return shown
