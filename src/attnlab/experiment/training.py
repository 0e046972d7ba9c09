"""Training and testing, the heavy half of a run: what imports torch and Lightning."""

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from rich.console import Console

from attnlab.callbacks.diagnostics import EstimatorDiagnostics
from attnlab.callbacks.guard import FiniteLoss, StopAtLearningRate
from attnlab.callbacks.progress import TrainingProgress
from attnlab.data.tokenizers import TokenizerPair
from attnlab.data.translation import TranslationData
from attnlab.errors import UserError
from attnlab.experiment.build import build, load_weights
from attnlab.experiment.record import RunRecord
from attnlab.experiment.tracking import Tracker
from attnlab.experiment.view import draw_maps, metrics_table
from attnlab.files import write_jsonl
from attnlab.tasks.scoring import named_metrics, score_modes
from attnlab.tasks.translation import TranslationTask


def train_and_test(config: dict[str, Any], record: RunRecord, tracker: Tracker, console: Console, begun: float) -> None:
    """Trains and tests the run of a record.

    Args:
        config: the resolved config.
        record: the run's record, begun.
        tracker: its W&B run.
        console: where to speak.
        begun: when the process began, in seconds since the epoch.
    """
    quiet()
    directory = record.directory
    if config["search"]["draws"] < 1:
        raise UserError(f"search.draws={config['search']['draws']} must be 1 or more.")
    with torch.device("meta"):  # what cannot work is refused before any data is read
        build(model_spec(config, 8, 8))
    pl.seed_everything(config["seed"], verbose=False)
    data: TranslationData = build(config["data"])
    resume = record.last_checkpoint
    if resume is not None:
        data.use_tokenizers(TokenizerPair.load(directory / "tokenizer.json"))
    data.prepare()
    data.tokenizers.save(directory / "tokenizer.json")
    task = make_task(config, data)
    numbers = data.summary()
    left_out = f" ({numbers['train/dropped']:,} longer ones left out)" if numbers["train/dropped"] else ""
    console.print(
        f"{numbers['train/pairs']:,} training pairs{left_out}; vocabularies of {numbers['vocabulary/source']:,} and "
        f"{numbers['vocabulary/target']:,}; {task.model.parameter_count():,} parameters.",
        highlight=False,
    )
    progress = TrainingProgress(begun)
    trainer, checkpoint = make_trainer(
        config, directory, tracker, [progress, FiniteLoss(), EstimatorDiagnostics(console)]
    )
    if resume is not None:
        console.print(f"Going on from {resume}.", markup=False, highlight=False, soft_wrap=True)
    start = time.perf_counter()
    with _interruptible(trainer):
        trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=True)
    seconds = time.perf_counter() - start

    best = Path(checkpoint.best_model_path)
    if best.is_file():
        load_weights(task, best)
    selected, outcomes = score_modes(task, data, "test", seed=config["seed"], **config["search"])
    metrics = named_metrics(outcomes, "test", task.model.modes) | _best_validation(checkpoint)
    metrics |= {
        "params": task.model.parameter_count(),
        "train/seconds": seconds,
        "train/tokens_per_second": progress.tokens_per_second,
        "train/seconds_to_first_step": progress.first_step,
        "train/epochs": trainer.current_epoch,
        "selected_by": task.hparams["monitor"],
        "test_mode": next(iter(outcomes)),
    }
    write_jsonl(directory / "predictions.jsonl", selected.predictions)
    pictures = draw_maps(data, "test", selected.hypotheses, directory / "attention", config["maps"])
    tracker.finish(metrics, pictures)
    record.write_metrics(metrics)
    console.print(metrics_table(metrics))


def model_spec(config: dict[str, Any], source: int, target: int) -> dict[str, Any]:
    """The spec of a config's model, for vocabularies of so many types."""
    sizes = {"source_vocabulary": source, "target_vocabulary": target}
    return config["model"] | {"attention": config["attention"]} | sizes


def make_task(config: dict[str, Any], data: TranslationData) -> TranslationTask:
    """The task that a config describes, for a corpus whose vocabularies are known."""
    assert data.tokenizers is not None
    return TranslationTask(
        model=model_spec(config, len(data.tokenizers.source), len(data.tokenizers.target)),
        optimizer=config["optimizer"], schedule=config["schedule"], build=build,
        monitor=config["task"]["monitor"], label_smoothing=config["task"]["label_smoothing"],
    )  # fmt: skip


def make_trainer(
    config: dict[str, Any], directory: Path, tracker: Tracker, callbacks: list[pl.Callback]
) -> tuple[pl.Trainer, ModelCheckpoint]:
    """Lightning's trainer with checkpoints in the run directory, and the callback that keeps the best."""
    monitor, mode = config["task"]["monitor"], config["task"]["mode"]
    checkpoint = ModelCheckpoint(
        directory / "checkpoints",
        "best",
        monitor=monitor,
        mode=mode,
        save_last=True,
        enable_version_counter=False,
    )
    stops: list[pl.Callback] = [
        EarlyStopping(monitor, mode=mode, patience=config["task"]["patience"], check_finite=False)
    ]
    if config["task"]["stop_lr"] is not None:
        stops.append(StopAtLearningRate(config["task"]["stop_lr"]))
    try:
        trainer = pl.Trainer(
            **config["trainer"], default_root_dir=directory, logger=tracker.loggers,
            callbacks=[checkpoint, *stops, *callbacks], enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(f"The trainer refuses its options: {error}") from error
    return trainer, checkpoint


def quiet() -> None:
    """Keeps libraries' hints out of the terminal; errors still come through."""
    for name in ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


@contextmanager
def _interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Turns Lightning's own way of leaving after Ctrl-C, an exit, back into a KeyboardInterrupt."""
    try:
        yield
    except SystemExit as exit_:
        raise KeyboardInterrupt from exit_
    if trainer.interrupted:
        raise KeyboardInterrupt


def _best_validation(checkpoint: ModelCheckpoint) -> dict[str, float]:
    score = checkpoint.best_model_score
    return {} if score is None or checkpoint.monitor is None else {checkpoint.monitor: float(score)}
