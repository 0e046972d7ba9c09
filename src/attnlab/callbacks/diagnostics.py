"""What an estimator does while a model trains: the noise of its gradient, the gap of its bound, and its collapse."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from rich.console import Console
from torch import nn

from attnlab.attention import Attention, Estimator, reading
from attnlab.attention.estimators import mean_entropy, token_mean
from attnlab.tasks.base import Likelihoods, Task
from attnlab.terminal import Terminal

_EXAMPLES = 16  # of the fixed batch
_DRAWS = 8  # repetitions of its gradient
_FLOOR = 0.05  # nats; attention below it no longer explores
_POOR = 0.25  # share of the unigram entropy above which a likelihood is poor


class EstimatorDiagnostics(pl.Callback):
    """Logs, after every validation, on examples spread evenly over the validation split:

    `diagnostics/entropy`            of the attention, in nats, a mean over targets
    `diagnostics/nll`                in the model's own test mode, nats per target
    `diagnostics/bound_gap`          log-likelihood of the exact marginal less that of single draws (not fed back)
    `diagnostics/gradient_variance`  between draws, summed over the parameters of the score

    The last two are for attention that can be sampled. It also warns, once, of a run that has collapsed: draws that
    explore no longer while the likelihood is poor, so that nothing can correct them.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self.console = console or Terminal()
        self.warned = False

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        assert isinstance(pl_module, Task)
        batch = pl_module.sample(trainer.datamodule, _EXAMPLES)
        batch = type(batch)(*(part.to(pl_module.device) for part in batch))
        values = diagnose(pl_module.model, lambda: pl_module.scored(batch))
        pl_module.log_dict({f"diagnostics/{name}": value for name, value in values.items()})
        if not self.warned and draws(pl_module.model) and collapsed(values, pl_module.blind(batch)):
            self.warned = True
            self.console.print(
                f"Warning: the attention has collapsed. Its entropy is {values['entropy']:.3f} nats, so its draws "
                f"explore no longer, while the loss is still {values['nll']:.2f} nats. Raise "
                "attention.estimator.samples or its entropy bonus, or lower optimizer.lr.",
                highlight=False, soft_wrap=True,
            )  # fmt: skip


def draws(model: nn.Module) -> bool:
    """Whether the model's estimators draw positions while it trains."""
    return any(hasattr(module, "samples") for module in model.modules() if isinstance(module, Estimator))


def diagnose(model: Any, score: Callable[[], Likelihoods]) -> dict[str, float]:
    """The numbers of `EstimatorDiagnostics` for a model; neither it nor the random state is changed.

    Args:
        model: the model.
        score: runs it on a fixed batch.
    """
    with torch.random.fork_rng(), _restored(model):
        torch.manual_seed(0)
        model.eval()
        nll, spread = _likelihood(model, score, model.modes[0])
        values = {"nll": nll} if spread is None else {"entropy": spread, "nll": nll}
        if "sample" in model.modes:
            if "exact" in model.modes:
                exact, _ = _likelihood(model, score, "exact")
                sampled = [_likelihood(model, score, "sample")[0] for _ in range(_DRAWS)]
                values["bound_gap"] = sum(sampled) / _DRAWS - exact
            variance = _gradient_variance(model, score)
            values |= {} if variance is None else {"gradient_variance": variance}
    return values


def collapsed(values: dict[str, float], blind: float) -> bool:
    """Whether attention no longer explores although the likelihood is poor, for a blind model's loss in nats."""
    return values.get("entropy", _FLOOR) < _FLOOR and values["nll"] > _POOR * blind


@torch.no_grad()
def _likelihood(model: Any, score: Callable[[], Likelihoods], mode: str) -> tuple[float, float | None]:
    """Negative log-likelihood and attention entropy (None where it is not known), both in nats, means over targets."""
    with reading(model, mode):
        scored, candidates, mask = score()
    spread = mean_entropy(candidates, mask)
    return float(-token_mean(candidates.mixture(scored), mask)), None if spread is None else float(spread)


def _gradient_variance(model: Any, score: Callable[[], Likelihoods]) -> float | None:
    """Between draws, which are all that varies; None if the scores have no parameters that the weights depend on."""
    parameters = [p for layer in model.modules() if isinstance(layer, Attention) for p in layer.score.parameters()]
    model.train()
    found = []
    with torch.enable_grad():
        for _ in range(_DRAWS):
            loss = model.objective(*score()).loss
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True) if parameters else ()
            used = [gradient.flatten() for gradient in gradients if gradient is not None]
            if not used:
                return None
            found.append(torch.cat(used))
    return float(torch.stack(found).var(0).sum())


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Switches dropout off, and puts back afterwards: dropout, whether each module trains, and the buffers, which a
    forward pass may change."""
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    training = [(module, module.training) for module in model.modules()]
    rates = [
        (module, name, getattr(module, name))
        for module in model.modules()
        for name in ("dropout", "probability")
        if isinstance(getattr(module, name, None), float)
    ]
    try:
        for module, name, _ in rates:
            setattr(module, name, 0.0)
        yield
    finally:
        for module, name, rate in rates:
            setattr(module, name, rate)
        for module, was in training:
            module.training = was
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
