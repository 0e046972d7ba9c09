"""Gradient estimators compared: bias, variance, seconds and memory of a step.

Every estimator of conf/attention trains the same recurrent model on the same sentences of the phrasebook. The model has
first been trained for some steps with soft attention, and then what an estimator has for itself (a value head, an
inference network) for as many with the rest held fixed, so that the gradients are those of a run under way.

bias is |mean - reference| / |reference| of the gradient for the parameters of the score (and of the inference network
where there is one), and noise what sampling alone
makes of it, sqrt(trace of the variance / draws) / |reference|: a bias that is not clearly above its noise is none. The
reference is enumerated: for REINFORCE and Gumbel the gradient of the sampled bound E_z[log p(y | z)], for draws from an
inference network that of the evidence lower bound. Estimators that draw nothing have no noise; the importance-weighted
bound has no enumeration here (its unit test lists all draws).

variance is the trace of the gradient's variance over |reference|^2, for one batch. Seconds are those of forward and
backward, and memory the bytes kept between the two, both relative to soft attention, timed in turns in one process, in
fp32 (on a GPU without TF32).

With `--inflection FOLDER`, one of SIGMORPHON's languages, seconds and memory are measured on that task as well, with
the model, dropout and batches of experiment=wu2018_inflection.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _command import add_device, add_numbers, picture

from benchmarks import _machine

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from attnlab.data.batching import Batch

_HARD = "attention=hard attention/estimator=reinforce "
VARIANTS = {
    "soft": "attention=luong",
    "reinforce, none": _HARD + "attention/estimator/baseline=none",
    "reinforce, moving average": _HARD + "attention/estimator/baseline=moving_average",
    "reinforce, self-critic": _HARD + "attention/estimator/baseline=self_critic",
    "reinforce, soft context": _HARD + "attention/estimator/baseline=soft_context",
    "reinforce, learned": _HARD + "attention/estimator/baseline=learned",
    "reinforce, leave-one-out": _HARD + "attention/estimator/baseline=leave_one_out",
    "gumbel, straight-through": "attention=gumbel",
    "gumbel, relaxed": "attention=gumbel attention.estimator.straight_through=false",
    "exact": "attention=exact",
    "variational, enumerated": "attention=variational",
    "variational, sampled": "attention=variational attention/estimator=variational_sampled",
    "importance-weighted": "attention=variational attention/estimator=importance_weighted",
}
"""Rows of the table: overrides of the config; draws and entropy bonus are set for all that have them."""
_BATCHES = 8
_ROUNDING = 1e-6
"""Of the norm of a gradient: so far apart are two of the same draws at most, on a GPU, which adds in any order."""
INFLECTION = {
    "soft": "attention=luong",
    "reinforce, one draw": "attention=hard attention/estimator/baseline=moving_average attention.estimator.samples=1",
    "reinforce, leave-one-out": "attention=hard",
    "exact": "attention=exact",
    "variational, enumerated": "attention=variational",
}
"""Rows of the inflection task."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_numbers(
        parser,
        ("samples", 2, 4, "draws at each step"),
        ("draws", 2, 400, "gradients of each estimator"),
        ("training", 0, 300, "steps of training before the gradients are compared"),
        ("sentences", 1, 16, "sentences of a batch"),
        ("repeats", 1, 15, "timed steps of each estimator"),
    )
    parser.add_argument("--inflection", type=Path, metavar="FOLDER", help="also measure steps on this data")
    parser.add_argument("--plot", type=picture, metavar="FILE", help="draw the variances, as PNG, SVG or PDF")
    add_device(parser, "where the models train")


def measure(options: argparse.Namespace, console: "Console") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One row for each estimator."""
    import torch

    from attnlab.cli import CONF
    from attnlab.data.batching import collate
    from attnlab.experiment.build import build, compose
    from attnlab.experiment.domains import DOMAINS

    inflection = _inflections(options.inflection) if options.inflection else None
    data = build(compose(CONF, ["data.train=8000", "data.validation=100", "data.test=1"])["data"] | {
        "max_sentences": options.sentences,
    })  # fmt: skip
    data.prepare()
    models = {}
    for name, overrides in VARIANTS.items():
        config = compose(CONF, ["model.dropout=0", *overrides.split()])
        estimator = config["attention"]["estimator"]
        for key, value in (("samples", options.samples), ("entropy_bonus", 0.0)):
            if key in estimator:
                estimator[key] = value
        torch.manual_seed(1)
        models[name] = _machine.placed(build(DOMAINS["translation"].spec(config, data)).train())
    console.print(f"Training with soft attention for {options.training} steps ...", highlight=False)
    _train(models["soft"], data, options.training, set(models["soft"].state_dict()))
    weights = models["soft"].state_dict()
    split = data.splits["validation"]
    batch = _machine.placed(collate(split.source, split.target, range(options.sentences)))
    steps = {name: partial(_step, model, batch) for name, model in models.items()}
    timings = _machine.medians(steps, options.repeats, warmup=2)
    rows = []
    for name, model in models.items():
        own = set(model.load_state_dict(weights, strict=False).missing_keys)  # a value head, an inference network
        _train(model, data, options.training, own)
        rows.append({"task": "phrasebook"} | _cost(name, model, [batch], timings, rows))
        rows[-1] |= _gradients(model, batch, options.draws)
        console.print(f"{name}: done", highlight=False)
    if options.plot:
        _plot(rows, options.plot)
        console.print(f"Drawn to {options.plot}.", highlight=False, soft_wrap=True)
    names = ("samples", "draws", "training", "sentences", "repeats")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names} | {"variants": VARIANTS}
    if inflection is not None:
        console.print("Measuring steps of inflection ...")
        rows += _inflection(inflection, options.repeats)
        settings |= {"inflection": INFLECTION, "batches": _BATCHES}
    return settings, rows


def _cost(
    name: str, model: Any, batches: "Sequence[Batch]", timings: dict[str, float], before: list[dict[str, Any]]
) -> dict[str, Any]:
    """Seconds and memory of a row, relative to the first one, soft attention."""
    kept = sum(_kept_bytes(model, batch) for batch in batches)
    return {
        "estimator": name, "samples": getattr(model.decoder.attention.estimator, "samples", None),
        "seconds": timings[name], "seconds_ratio": timings[name] / timings["soft"],
        "memory_bytes": kept, "memory_ratio": kept / before[0]["memory_bytes"] if before else 1.0,
    }  # fmt: skip


def _chosen(*overrides: str) -> dict[str, Any]:
    """A config of the inflection task."""
    from attnlab.cli import CONF
    from attnlab.experiment.build import compose

    return compose(CONF, ["experiment=wu2018_inflection", *overrides])


def _inflections(folder: Path) -> Any:
    """The corpus in a folder; UserError if there is none."""
    from attnlab.experiment.build import build

    data = build(_chosen()["data"] | {"path": str(folder)})
    data.prepare()
    return data


def _inflection(data: Any, repeats: int) -> list[dict[str, Any]]:
    """Rows of whole steps on characters, which draw nothing that is compared but seconds and memory."""
    import torch

    from attnlab.experiment.build import build
    from attnlab.experiment.domains import DOMAINS

    batches = [_machine.placed(batch) for batch in islice(data.loader("train", shuffle=True), _BATCHES)]
    models, steps = {}, {}
    for name, overrides in INFLECTION.items():
        torch.manual_seed(1)
        config = _chosen(*overrides.split())
        models[name] = _machine.placed(build(DOMAINS["translation"].spec(config, data)).train())
        steps[name] = partial(_steps, models[name], batches)
    timings = _machine.medians(steps, repeats, warmup=2)
    rows: list[dict[str, Any]] = []
    for name, model in models.items():
        row = {"task": "inflection", "bias": None, "noise": None, "variance": None}
        rows.append(row | _cost(name, model, batches, timings, rows))
    return rows


def _train(model: Any, data: Any, steps: int, names: set[str]) -> None:
    """Trains the parameters of these names and no others."""
    import torch

    trained = [parameter for name, parameter in model.named_parameters() if name in names]
    if not trained:
        return
    optimizer = torch.optim.Adam(trained, lr=4e-3)
    batches: Any = iter(())
    for _ in range(steps):
        batch = next(batches, None)
        if batch is None:
            batches = iter(data.train_dataloader())
            batch = next(batches)
        _loss(model, _machine.placed(batch)).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        model.zero_grad()


def _loss(model: Any, batch: "Batch") -> Any:
    from attnlab.data.tokenizers import PAD

    scored, candidates = model(batch.source, batch.target_in, batch.target_out)
    return model.objective(scored, candidates, batch.target_out != PAD).loss


def _parameters(model: Any) -> list[Any]:
    """What an estimator gives a gradient of its own to."""
    modules = [model.decoder.attention.score, *([model.guide] if model.guide is not None else [])]
    return [parameter for module in modules for parameter in module.parameters()]


def _flat(gradients: Any) -> Any:
    import torch

    return torch.cat([gradient.double().flatten() for gradient in gradients])


def _reference(model: Any, batch: "Batch") -> Any:
    """The enumerated gradient of what the estimator estimates, for the score's parameters; None if there is none."""
    import torch

    from attnlab.attention import GumbelSoftmax, Reinforce, SampledVariational, Variational
    from attnlab.attention.estimators import ExactMarginal, token_mean
    from attnlab.data.tokenizers import PAD

    attention = model.decoder.attention
    parameters = _parameters(model)
    own = attention.estimator
    mask = batch.target_out != PAD
    if isinstance(own, SampledVariational):
        attention.estimator = Variational()
        loss = _loss(model, batch)
    elif isinstance(own, Reinforce | GumbelSoftmax):
        attention.estimator = ExactMarginal()
        scored, candidates = model(batch.source, batch.target_in, batch.target_out)
        loss = -token_mean((candidates.weights.movedim(-1, 0) * scored).sum(0), mask)
    else:
        return None
    attention.estimator = own
    return _flat(torch.autograd.grad(loss, parameters))


def _gradients(model: Any, batch: "Batch", draws: int) -> dict[str, Any]:
    import torch

    parameters = _parameters(model)
    torch.manual_seed(2)
    first = _flat(torch.autograd.grad(_loss(model, batch), parameters))
    again = _flat(torch.autograd.grad(_loss(model, batch), parameters))
    if float((first - again).norm()) <= _ROUNDING * float(first.norm()):
        return {"bias": None, "noise": None, "variance": 0.0}
    mean, square = torch.zeros_like(first), 0.0
    for _ in range(draws):
        gradient = _flat(torch.autograd.grad(_loss(model, batch), parameters))
        mean += gradient / draws
        square += float(gradient.square().sum()) / draws
    variance = (square - float(mean.square().sum())) * draws / (draws - 1)
    reference = _reference(model, batch)
    scale = float((mean if reference is None else reference).norm())
    return {
        "bias": None if reference is None else float((mean - reference).norm()) / scale,
        "noise": (variance / draws) ** 0.5 / scale,
        "variance": variance / scale**2,
    }


def _step(model: Any, batch: "Batch") -> None:
    """Forward and backward, from no gradients."""
    model.zero_grad()
    _loss(model, batch).backward()


def _steps(model: Any, batches: "Sequence[Batch]") -> None:
    for batch in batches:
        _step(model, batch)


def _kept_bytes(model: Any, batch: "Batch") -> int:
    """The bytes of the tensors that the forward pass keeps for the backward pass, parameters left out."""
    import torch

    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, int] = {}
    keep: list[Any] = []  # so that no address is used twice

    def note(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
            keep.append(tensor)
        return tensor

    identity: Callable[[Any], Any] = lambda tensor: tensor  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(note, identity):
        _loss(model, batch)
    return sum(storages.values())


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    """The variance of each estimator that draws, the noisiest at the top, with its seconds beside it."""
    from io import BytesIO

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from attnlab.files import write_bytes

    shown = sorted((row for row in rows if row["variance"]), key=lambda row: row["variance"])
    figure, axes = plt.subplots(figsize=(7.5, 0.4 * len(shown) + 1), layout="constrained")
    places = range(len(shown))
    axes.hlines(places, 0, [row["variance"] for row in shown], color="#c9d8ea", linewidth=3, zorder=1)
    axes.scatter([row["variance"] for row in shown], places, color="#1f5fa8", zorder=2)
    for place, row in zip(places, shown, strict=True):
        text = f"{row['seconds_ratio']:.2f} x the seconds of soft"
        axes.annotate(text, (row["variance"], place), xytext=(8, 0), textcoords="offset points", va="center", size=8)
    axes.set_yticks(places, [row["estimator"] for row in shown])
    axes.set_xlim(0, 1.35 * shown[-1]["variance"])
    axes.set_xlabel("variance of the gradient / |gradient|²")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    drawn = BytesIO()
    figure.savefig(drawn, format=path.suffix[1:], dpi=130)
    plt.close(figure)
    write_bytes(path, drawn.getvalue())


def table(rows: list[dict[str, Any]]) -> "Table":
    """A line for each estimator."""
    from rich import box
    from rich.table import Table

    shown = Table(title="Gradient estimators, relative to soft attention", title_justify="left", box=box.SIMPLE)
    shown.add_column("task")
    shown.add_column("estimator")
    for name in ("draws", "bias", "noise", "variance", "seconds", "memory"):
        shown.add_column(name, justify="right")
    for row in rows:
        shown.add_row(
            row["task"], row["estimator"], "" if row["samples"] is None else str(row["samples"]),
            *["" if row[name] is None else f"{row[name]:.3f}" for name in ("bias", "noise")],
            "" if row["variance"] is None else f"{row['variance']:.3g}",
            *[f"{row[name]:.2f}" for name in ("seconds_ratio", "memory_ratio")],
        )  # fmt: skip
    return shown
