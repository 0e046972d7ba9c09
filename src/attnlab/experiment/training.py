"""Training and testing, the heavy half of a run: what imports torch and Lightning."""

import logging
import resource
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from rich.console import Console
from torch import nn

from attnlab.attention import LastPosition
from attnlab.callbacks.average import MovingAverage
from attnlab.callbacks.curves import Curves
from attnlab.callbacks.diagnostics import EstimatorDiagnostics
from attnlab.callbacks.epochs import EpochSeeds, StepOnPlateau
from attnlab.callbacks.guard import FiniteLoss, Patience, StopAtLearningRate, StopAtOnce
from attnlab.callbacks.progress import TrainingProgress
from attnlab.callbacks.stop import StopInOrder
from attnlab.errors import UserError
from attnlab.experiment.build import build, load_weights
from attnlab.experiment.checkpoints import WholeCheckpointIO
from attnlab.experiment.distributed import Ranks, environment
from attnlab.experiment.domains import DOMAINS, Domain
from attnlab.experiment.lean import collect_garbage
from attnlab.experiment.precision import trainer_precision
from attnlab.experiment.record import RunRecord
from attnlab.experiment.tracking import Tracker
from attnlab.experiment.view import metrics_table
from attnlab.files import write_jsonl
from attnlab.tasks.base import Task
from attnlab.tasks.schedules import make_schedule
from attnlab.tasks.scoring import named_metrics


def train_and_test(
    config: dict[str, Any], record: RunRecord, tracker: Tracker, console: Console, ranks: Ranks, begun: float
) -> None:
    """Trains and tests the run of a record; of several processes that train, the first one tests.

    Args:
        config: the resolved config.
        record: the run's record, begun.
        tracker: its W&B run.
        console: where to speak.
        ranks: the processes of the run.
        begun: when the process began, in seconds since the epoch.
    """
    set_up_libraries()
    domain = DOMAINS[config["task"]["name"]]
    domain.check(config, record.status.get("choices", {}).get("data"))
    with torch.device("meta"):  # what cannot work is refused before any data is read
        model = make_task(config, None).model
    check_optimizer(config)
    curves = Curves(record.directory / "curves.jsonl")
    progress = TrainingProgress(begun, curves)
    callbacks = [
        curves,
        progress,
        EpochSeeds(config["seed"]),
        FiniteLoss(),
        EstimatorDiagnostics(console),
        StopInOrder(record.directory / "checkpoints" / "last.ckpt", console),
    ]
    if trainer_precision(config["trainer"]) != config["trainer"]["precision"]:
        console.print("This processor has no instructions for bf16: training in 32-true.")
    trainer, checkpoint = make_trainer(config, record.directory, ranks, model, callbacks)
    if ranks.world > 1:
        _join(trainer, record)
    directory = record.directory
    pl.seed_everything(config["seed"], verbose=False)
    data = build(config["data"])
    if trainer.is_global_zero:  # to know it the files are read
        record.keep_identity(data.corpus.identity())
    tracker.open()  # only now, since it would have a run that is refused sent
    resume = trainer.strategy.broadcast(record.last_checkpoint)
    _prepare(data, domain, directory, resume is not None, trainer)
    task = make_task(config, data)
    parameters = task.model.parameter_count()
    console.print(f"{domain.describe(data)}; {parameters:,} parameters.", highlight=False)
    trainer.loggers = tracker.loggers  # which waits until the tracker is open
    if resume is not None:
        console.print(f"Going on from {resume}.", markup=False, highlight=False, soft_wrap=True)
    collect_garbage()
    with _interruptible(trainer), refusals("The trainer", "trainer", config["trainer"], MisconfigurationException):
        trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=True)
    if not ranks.first:
        return

    best = Path(checkpoint.best_model_path)
    if best.is_file():
        load_weights(task, best)
    if later := trainer.global_step - curves.validated:
        tested_weights = "those of the best validation before are tested" if best.is_file() else "they are tested"
        console.print(f"The weights after the last {later:,} steps were not validated; {tested_weights}.")
    task.to(trainer.strategy.root_device)  # Lightning leaves it on the processor
    tested = domain.test(task, data, config, directory)
    metrics = named_metrics(tested.outcomes, "test", task.model.modes) | _best_validation(checkpoint)
    for split in ("validation", "test"):
        metrics[f"data/{split}_in_training"] = known = domain.known(data, split)
        if known:
            console.print(
                f"Warning: {known:,} of the {len(data.splits[split]):,} {split} examples stand in the training split "
                "too."
            )
    metrics |= {
        "params": parameters,
        "train/seconds": round(curves.seconds, 2),
        f"train/{task.unit}_per_second": progress.rate,
        "train/seconds_to_first_step": progress.first_step,
        "train/epochs": trainer.current_epoch,
        "train/peak_memory_mib": _peak_memory(trainer.strategy.root_device),
        "selected_by": task.hparams["monitor"] if best.is_file() else None,
        "test_mode": next(iter(tested.outcomes)),
        "precision": trainer.precision,
        "task": config["task"]["name"],
    }
    write_jsonl(directory / "predictions.jsonl", next(iter(tested.outcomes.values())).predictions)
    write_jsonl(directory / "attention.jsonl", tested.maps)
    tracker.finish(metrics, tested.pictures)
    record.write_metrics(metrics)
    console.print(metrics_table(metrics))


def _join(trainer: pl.Trainer, record: RunRecord) -> None:
    """Connects the processes of a run, and has all of them speak of the first one's directory: of theirs, a name with
    the time in it may differ."""
    trainer.strategy.setup_environment()
    directory = trainer.strategy.broadcast(record.directory.resolve())
    if not trainer.is_global_zero:
        record.directory = directory


def _prepare(data: Any, domain: Domain, directory: Path, resumed: bool, trainer: pl.Trainer) -> None:
    """Reads the data, and keeps with the run what its model needs of them. Of several processes the first one does, and
    the others, which wait for it, take over what it has learned of them."""
    first = trainer.is_global_zero
    if not first:
        trainer.strategy.barrier()
    if resumed or not first:
        domain.restore(data, directory)
    data.prepare()
    if first:
        domain.save(data, directory)
        trainer.strategy.barrier()


def make_task(config: dict[str, Any], data: Any) -> Task:
    """The task that a config describes, for data that are prepared; of sizes of its own for None."""
    domain = DOMAINS[config["task"]["name"]]
    return domain.task(
        model=domain.spec(config, data),
        optimizer=config["optimizer"], schedule=config["schedule"], build=build,
        monitor=config["task"]["monitor"], label_smoothing=config["task"]["label_smoothing"],
    )  # fmt: skip


def _peak_memory(device: torch.device) -> float:
    """The most memory that this process has held on the device that it trained on, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def make_trainer(
    config: dict[str, Any], directory: Path, ranks: Ranks, model: nn.Module, callbacks: list[pl.Callback]
) -> tuple[pl.Trainer, ModelCheckpoint]:
    """Lightning's trainer with checkpoints in the run directory, and the callback that keeps the best.

    Args:
        config: the run's.
        directory: the run directory.
        ranks: the processes of the run.
        model: one like that which will be trained.
        callbacks: more of them.
    """
    monitor, mode = config["task"]["monitor"], config["task"]["mode"]
    # written when an epoch has ended, so that a resumed run begins the next one like any other
    kept: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    checkpoint = ModelCheckpoint(directory / "checkpoints", "best", monitor=monitor, mode=mode, **kept)
    last = ModelCheckpoint(directory / "checkpoints", "last", **kept)
    stops: list[pl.Callback] = [
        # after a validation, for an epoch that trainer.max_steps cuts short has none
        Patience(
            monitor, mode=mode, patience=config["task"]["patience"], check_finite=False, check_on_train_epoch_end=False
        ),
        StepOnPlateau(),
    ]
    if config["task"]["stop_lr"] is not None:
        stops.append(StopAtLearningRate(config["task"]["stop_lr"]))
    if config["task"]["average"] is not None:
        stops.append(MovingAverage(config["task"]["average"]))
    options = config["trainer"] | {"precision": trainer_precision(config["trainer"])}
    if ranks.world > 1:
        stops.append(StopAtOnce())
        if any(isinstance(module, LastPosition) for module in model.modules()):  # to which no score matters
            options["strategy"] = "ddp_find_unused_parameters_true"
    with refusals("The trainer", "trainer", config["trainer"]):
        trainer = pl.Trainer(
            **options, default_root_dir=directory, logger=False, callbacks=[checkpoint, last, *stops, *callbacks],
            plugins=[environment(ranks), WholeCheckpointIO()],
            use_distributed_sampler=False,  # the data share themselves out
            enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
    return trainer, checkpoint


def check_optimizer(config: dict[str, Any]) -> None:
    """Refuses, with a UserError, what the optimizer and the schedule of a config refuse, shown a stand-in for the
    parameters of the model."""
    with refusals(config["optimizer"]["_target_"], "optimizer", config["optimizer"]):
        optimizer = build(config["optimizer"])([nn.Parameter(torch.zeros(1))])
    with refusals(config["schedule"]["_target_"], "schedule", config["schedule"]):
        make_schedule(build(config["schedule"]), optimizer, lambda: 100)


@contextmanager
def refusals(what: str, group: str, options: dict[str, Any], kind: type[Exception] = Exception) -> Iterator[None]:
    """Turns what a library raises over the options of a group, of whatever kind, into a UserError that names them."""
    try:
        yield
    except UserError:
        raise
    except kind as error:
        given = ", ".join(f"{group}.{key}={value}" for key, value in options.items() if not key.startswith("_"))
        raise UserError(
            f"{what} refuses its options ({given}): {str(error).rstrip('.') or type(error).__name__}."
        ) from error


def set_up_libraries() -> None:
    """Keeps libraries' hints out of the terminal (errors still come through), and torch from filling all new memory
    with NaN where operations are to repeat: a pass over it that changes nothing for who does not read it."""
    torch.utils.deterministic.fill_uninitialized_memory = False
    names = ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero", "lightning_fabric")
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in ("pytorch_lightning", "lightning_fabric"):
        warnings.filterwarnings("ignore", module=module)
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
