"""Vision Transformers: training against a public ViT, and inference of a glimpse model against one that reads all.

training: steps of forward, backward, clipping and Adam on images of CIFAR-10's size, side by side: attnlab's ViT with
each variant, and lucidrains' `vit_pytorch.ViT` of the same width, depth, heads and patch where it is installed.

inference: labels for canvases of cluttered digits, in evaluation, by the ViT of experiment=cluttered_digits that reads
every patch, and by that of experiment=cluttered_digits_glimpses, which reads `--glimpses` of them, its policy included.

All models of a part take turns; images per second are medians over the turns, and ratio is that to the part's first
row. The images are on the device already. On a GPU fp32 is without TF32, and tf32 is fp32 with it.
"""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from _command import add_device, add_numbers

from benchmarks import _machine, _peers

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from torch import Tensor, nn

_VARIANTS = ("scaled", "bahdanau")
_WIDTH, _DEPTH, _HEADS, _HIDDEN, _PATCH = 192, 6, 3, 384, 4  # of the training part


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--parts", nargs="+", choices=("training", "inference"), default=["training", "inference"], metavar="PART",
        help="training, inference (default: both)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=_machine.PRECISIONS["cuda"], default="fp32", metavar="NAME",
        help="fp32, bf16, on a GPU also tf32 (default: fp32)",
    )  # fmt: skip
    add_device(parser, "where the models run")
    add_numbers(
        parser,
        ("batch", 1, 128, "images at a time"),
        ("glimpses", 1, 15, "patches of 100 that the glimpse model reads"),
        ("warmup", 1, 2, "turns before the clock starts"),
        ("repeats", 1, 10, "timed turns"),
    )


def measure(options: argparse.Namespace, console: "Console") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Rows for each part and model."""
    rows: list[dict[str, Any]] = []
    parts = {"training": _training, "inference": _inference}
    for part in options.parts:
        console.print(f"Measuring {part} ...")
        pressure = _machine.Pressure()
        steps, parameters = parts[part](options)
        with _machine.arithmetic(options.precision):
            seconds = _machine.medians(steps, options.repeats, options.warmup)
        first = next(iter(seconds.values()))
        waited = pressure.share()
        rows += [
            {
                "part": part, "model": name, "precision": options.precision,
                "images_per_second": options.batch / taken, "ratio": first / taken, "parameters": parameters[name],
                "cpu_pressure": waited, "void": _machine.is_void(waited),
            }
            for name, taken in seconds.items()
        ]  # fmt: skip
    names = ("batch", "glimpses", "warmup", "repeats")
    sizes = {"width": _WIDTH, "depth": _DEPTH, "heads": _HEADS, "hidden": _HIDDEN, "patch": _PATCH}
    return sizes | {name: getattr(options, name) for name in names}, rows


def _model(choices: list[str], sizes: dict[str, int]) -> Any:
    from attnlab.cli import CONF
    from attnlab.experiment.build import build, compose

    config = compose(CONF, choices)
    return _machine.placed(build(config["model"] | {"attention": config["attention"]} | sizes))


def _training(options: argparse.Namespace) -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    import torch
    from torch.nn.functional import nll_loss

    images, labels, mask = (
        _machine.placed(part)
        for part in (
            torch.randn(options.batch, 3, 32, 32), torch.randint(10, (options.batch,)),
            torch.ones(options.batch, 1, dtype=torch.bool),
        )
    )  # fmt: skip
    sizes = {"channels": 3, "height": 32, "width": 32, "classes": 10}
    shape = [
        "task=vision", f"model.patch={_PATCH}", f"model.size={_WIDTH}", f"model.depth={_DEPTH}",
        f"model.heads={_HEADS}", f"model.hidden={_HIDDEN}",
    ]  # fmt: skip

    def ours(model: Any) -> "Tensor":
        scored, candidates = model(images)
        picked = scored.gather(-1, labels.view(1, -1, 1).expand(len(scored), -1, 1))
        loss: Tensor = model.objective(picked, candidates, mask).loss
        return loss

    models: dict[str, tuple[Any, Callable[[Any], Any]]] = {}
    if "vit-pytorch" in _peers.versions():
        public = _peers.public_vit()(
            image_size=32, patch_size=_PATCH, num_classes=10, dim=_WIDTH, depth=_DEPTH, heads=_HEADS,
            dim_head=_WIDTH // _HEADS, mlp_dim=_HIDDEN, dropout=0.1, emb_dropout=0.1,
        )  # fmt: skip
        models["vit_pytorch"] = _machine.placed(public), lambda model: nll_loss(model(images).log_softmax(-1), labels)
    for name in _VARIANTS:
        models[f"attnlab {name}"] = _model([*shape, f"attention={name}"], sizes), ours
    steps = {name: _step(model.train(), loss, options.precision) for name, (model, loss) in models.items()}
    return steps, {name: sum(p.numel() for p in model.parameters()) for name, (model, _) in models.items()}


def _step(model: "nn.Module", loss: Callable[[Any], Any], precision: str) -> Callable[[], None]:
    import torch

    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def step() -> None:
        with torch.autocast(_machine.device(), torch.bfloat16, enabled=precision == "bf16"):
            value = loss(model)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def _inference(options: argparse.Namespace) -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    import torch

    images = _machine.placed(torch.randn(options.batch, 1, 60, 60))
    half = options.precision == "bf16"
    sizes = {"channels": 1, "height": 60, "width": 60, "classes": 10}
    models = {
        "every patch": _model(["experiment=cluttered_digits"], sizes),
        f"{options.glimpses} glimpses": _model(
            ["experiment=cluttered_digits_glimpses", f"model.glimpses={options.glimpses}"], sizes
        ),
    }

    def label(model: Any) -> Callable[[], Any]:
        def classify() -> Any:
            with torch.inference_mode(), torch.autocast(_machine.device(), torch.bfloat16, enabled=half):
                return model(images)[0].argmax(-1)

        return classify

    counts = {name: model.parameter_count() for name, model in models.items()}
    return {name: label(model.eval()) for name, model in models.items()}, counts


def table(rows: list[dict[str, Any]]) -> "Table":
    """A line for each part and model."""
    from rich import box
    from rich.table import Table

    shown = Table(title="Vision Transformers: images per second", title_justify="left", box=box.SIMPLE)
    for name in ("part", "model"):
        shown.add_column(name)
    for name in ("images/s", "ratio", "parameters", "waited"):
        shown.add_column(name, justify="right")
    for row in rows:
        shown.add_row(
            row["part"], row["model"], f"{row['images_per_second']:,.0f}", f"{row['ratio']:.2f}",
            f"{row['parameters']:,}", _machine.waited(row),
        )  # fmt: skip
    return shown
