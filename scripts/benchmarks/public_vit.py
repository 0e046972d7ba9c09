"""ViTs trained side by side from nothing: attnlab's with each variant, and lucidrains' where it is installed.

All of them are trained as experiment=cifar10 says (`vit_pytorch.ViT` with its width, depth, heads, patch and dropout,
and the same optimizer, schedule, clipping and augmentation), on the same images in the same order. They take turns of
an epoch each, so that what else the machine does meets all of them alike. Accuracy is that of the test split, by the
epoch with the highest accuracy on validation; seconds are those of training alone, and images per second medians over
the epochs that are not void.

Every epoch is kept in the directory, and the same command goes on from there.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from _command import add_numbers

from attnlab import allocator
from attnlab.errors import UserError
from benchmarks import _machine, _peers

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from torch import Tensor, nn

    from attnlab.data.images import ImageBatch, ImageData

_PUBLIC = "vit-pytorch"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--variants", nargs="*", default=["scaled", "bahdanau"], metavar="NAME",
        help="options of attention= (default: scaled bahdanau)",
    )  # fmt: skip
    parser.add_argument(
        "--directory", type=Path, default=Path("outputs/benchmarks/public_vit"), metavar="DIR",
        help="where every epoch is kept (default: outputs/benchmarks/public_vit)",
    )  # fmt: skip
    parser.add_argument(
        "--overrides", nargs="+", default=[], metavar="KEY=VALUE",
        help="of the experiment, for all models, such as data.path=FOLDER",
    )  # fmt: skip
    add_numbers(parser, ("seed", 0, 1, "of weights, order and augmentation"))


@dataclass
class _Contender:
    """A model in training.

    Attributes:
        model: whose parameters are trained.
        loss: of a training batch.
        scores: of the classes for images [B, C, H, W], [B, classes].
        ours: whether freed memory is kept while it trains, as our own commands do.
        epochs: a line for each that is behind it: seconds, images per second, validation accuracy, CPU pressure.
        best: the weights of the epoch with the highest accuracy on validation.
    """

    model: "nn.Module"
    loss: Callable[["ImageBatch"], "Tensor"]
    scores: Callable[["Tensor"], "Tensor"]
    ours: bool
    optimizer: Any = None
    schedule: Any = None
    epochs: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)


def measure(options: argparse.Namespace, console: "Console") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A row for each model."""
    from attnlab.experiment.build import build
    from attnlab.experiment.domains import DOMAINS

    configs = {name: _config(name, options) for name in options.variants or ["scaled"]}
    config = next(iter(configs.values()))
    for each in configs.values():
        DOMAINS["vision"].check(each)
    data = build(config["data"])
    data.prepare()
    contenders: dict[str, _Contender] = {}
    if _PUBLIC in _peers.versions():
        contenders[_PUBLIC] = _public(config, data)
    contenders |= {f"attnlab {name}": _ours(configs[name], data) for name in options.variants}
    for name, contender in contenders.items():
        _resume(contender, _file(options, name), config, data)
    for epoch in range(config["trainer"]["max_epochs"]):
        for name, contender in contenders.items():
            if epoch < len(contender.epochs):
                continue
            line = _epoch(contender, config, data, epoch)
            _keep(contender, _file(options, name), config)
            console.print(
                f"{name}, epoch {epoch + 1}: {line['accuracy']:.1f} % on validation, "
                f"{line['images_per_second']:,.0f} images/s, {line['seconds']:,.0f} s",
                highlight=False,
            )
    rows = [_row(name, contender, data) for name, contender in contenders.items()]
    for row in rows:
        row["ratio"] = row["images_per_second"] / rows[0]["images_per_second"]
    settings = _recipe(config)
    settings["data"] = {key: value for key, value in config["data"].items() if key != "path"}  # on this machine only
    return settings | {"versions": _peers.versions()}, rows


def _config(variant: str, options: argparse.Namespace) -> dict[str, Any]:
    from attnlab.cli import CONF
    from attnlab.experiment.build import compose

    chosen = ["experiment=cifar10", f"attention={variant}", f"seed={options.seed}", *options.overrides]
    return compose(CONF, chosen)


def _ours(config: dict[str, Any], data: "ImageData") -> _Contender:
    import torch

    from attnlab.experiment.training import make_task

    torch.manual_seed(config["seed"])
    task = make_task(config, data)

    def loss(batch: "ImageBatch") -> "Tensor":
        scored = task.scored(batch, config["task"]["label_smoothing"])
        value: Tensor = task.model.objective(*scored).loss
        return value

    return _Contender(task.model, loss, task.predict, ours=True)


def _public(config: dict[str, Any], data: "ImageData") -> _Contender:
    import torch
    from torch.nn.functional import cross_entropy

    shape = config["model"]
    torch.manual_seed(config["seed"])
    model = _peers.public_vit()(
        image_size=(data.height, data.width), channels=data.channels, patch_size=shape["patch"],
        num_classes=len(data.classes), dim=shape["size"], depth=shape["depth"], heads=shape["heads"],
        dim_head=shape["size"] // shape["heads"], mlp_dim=shape["hidden"], dropout=shape["dropout"],
        emb_dropout=shape["dropout"],
    )  # fmt: skip

    def loss(batch: "ImageBatch") -> "Tensor":
        logits, smoothing = model(batch.images), config["task"]["label_smoothing"]
        first, second = (
            cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
            for labels in (batch.labels, batch.partners)
        )
        return (batch.shares * first + (1 - batch.shares) * second).mean()

    return _Contender(model, loss, model, ours=False)


def _epoch(contender: _Contender, config: dict[str, Any], data: "ImageData", epoch: int) -> dict[str, Any]:
    """Trains for an epoch and validates; the line that it adds."""
    import torch

    torch.manual_seed(1000 * config["seed"] + epoch)
    loader = data.loader("train", shuffle=True)
    loader.batch_sampler.sampler.set_epoch(epoch)
    model, optimizer, limit = contender.model.train(), contender.optimizer, config["trainer"]["gradient_clip_val"]
    (allocator.keep if contender.ours else allocator.give_back)()
    pressure, begun, seen = _machine.Pressure(), time.perf_counter(), 0
    for batch in loader:
        optimizer.zero_grad()
        contender.loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        optimizer.step()
        contender.schedule.step()
        seen += len(batch.labels)
    seconds, waited = time.perf_counter() - begun, pressure.share()
    line = {
        "seconds": seconds, "images_per_second": seen / seconds, "accuracy": _accuracy(contender, data, "validation"),
        "cpu_pressure": waited,
    }  # fmt: skip
    if line["accuracy"] > max((before["accuracy"] for before in contender.epochs), default=-1.0):
        contender.best = {name: value.clone() for name, value in model.state_dict().items()}
    contender.epochs.append(line)
    return line


def _accuracy(contender: _Contender, data: "ImageData", split: str) -> float:
    """Share of a split that is told apart, in per cent."""
    import torch

    contender.model.eval()
    with torch.inference_mode():
        right = [(contender.scores(batch.images).argmax(-1) == batch.labels).sum() for batch in data.loader(split)]
    return 100 * float(sum(right)) / len(data.splits[split])


def _row(name: str, contender: _Contender, data: "ImageData") -> dict[str, Any]:
    contender.model.load_state_dict(contender.best)
    accuracy = _accuracy(contender, data, "test")
    good = [line for line in contender.epochs if not _machine.is_void(line["cpu_pressure"])]
    rates = [line["images_per_second"] for line in good or contender.epochs]
    waited = [line["cpu_pressure"] for line in good or contender.epochs if line["cpu_pressure"] is not None]
    return {
        "model": name, "accuracy": accuracy, "val_accuracy": max(line["accuracy"] for line in contender.epochs),
        "images_per_second": median(rates), "images_per_second_min": min(rates), "images_per_second_max": max(rates),
        "seconds": sum(line["seconds"] for line in contender.epochs),
        "parameters": sum(parameter.numel() for parameter in contender.model.parameters()),
        "cpu_pressure": max(waited, default=None), "void": not good,
        "epochs": contender.epochs,
    }  # fmt: skip


def _file(options: argparse.Namespace, name: str) -> Path:
    path: Path = options.directory / f"{name.replace(' ', '_')}.ckpt"
    return path


_STATES = ("model", "optimizer", "schedule")


def _keep(contender: _Contender, path: Path, config: dict[str, Any]) -> None:
    import torch

    from attnlab.files import write_bytes

    state = {name: getattr(contender, name).state_dict() for name in _STATES}
    buffer = BytesIO()
    torch.save(state | {"epochs": contender.epochs, "best": contender.best, "config": _recipe(config)}, buffer)
    write_bytes(path, buffer.getvalue())


def _recipe(config: dict[str, Any]) -> dict[str, Any]:
    """Of a config what decides how all models are trained."""
    return {name: config[name] for name in ("model", "optimizer", "schedule", "data", "task", "trainer", "seed")}


def _resume(contender: _Contender, path: Path, config: dict[str, Any], data: "ImageData") -> None:
    """Gives a model its optimizer and schedule, and what is kept of its training."""
    import torch
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    from attnlab.experiment.build import build
    from attnlab.tasks.schedules import make_schedule

    steps = config["trainer"]["max_epochs"] * len(data.loader("train", shuffle=True))
    contender.optimizer = build(config["optimizer"])(contender.model.parameters())
    contender.schedule = make_schedule(build(config["schedule"]), contender.optimizer, lambda: steps)
    if isinstance(contender.schedule, ReduceLROnPlateau):
        raise UserError("schedule=plateau follows a validation loss, which is not measured here; choose another.")
    if not path.is_file():
        return
    kept = torch.load(path, weights_only=True)
    if kept["config"] != _recipe(config):
        raise UserError(f"{path} keeps a training with another config; give another --directory, or remove it.")
    for name in _STATES:
        getattr(contender, name).load_state_dict(kept[name])
    contender.epochs, contender.best = kept["epochs"], kept["best"]


def table(rows: list[dict[str, Any]]) -> "Table":
    """A line for each model."""
    from rich import box
    from rich.table import Table

    shown = Table(title="ViTs trained side by side", title_justify="left", box=box.SIMPLE)
    shown.add_column("model")
    for name in ("accuracy, %", "validation, %", "images/s", "ratio", "seconds", "parameters", "waited"):
        shown.add_column(name, justify="right")
    for row in rows:
        shown.add_row(
            row["model"], f"{row['accuracy']:.1f}", f"{row['val_accuracy']:.1f}", f"{row['images_per_second']:,.0f}",
            f"{row['ratio']:.2f}", f"{row['seconds']:,.0f}", f"{row['parameters']:,}", _machine.waited(row),
        )  # fmt: skip
    return shown
