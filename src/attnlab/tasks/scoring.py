"""Scoring a trained model on a split, in every test mode."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from attnlab.attention import reading


@dataclass
class Outcome:
    """The outcome on one split.

    Attributes:
        metrics: numbers by name, without the split's prefix.
        signatures: of metrics that have one, by metric.
        predictions: one dictionary an example, in the split's order.
    """

    metrics: dict[str, float]
    signatures: dict[str, str] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)


Found = TypeVar("Found", bound=Outcome)


def score_modes(
    score: Callable[[], Found], model: nn.Module, modes: Sequence[str], *, seed: int = 0, draws: int = 1
) -> dict[str, Found]:
    """Scores a model in several test modes, and returns the outcomes by mode.

    The mode `sample` is scored `draws` times, under the seeds from `seed` on: its metrics are means, and each has a
    standard deviation over draws beside it (`bleu_sd`).

    Args:
        score: scores the model in the test mode that is set.
        model: the model.
        modes: the test modes, the selecting one first.
        seed: of the draws.
        draws: number of times that `sample` is scored.
    """
    outcomes: dict[str, Found] = {}
    for mode in modes:
        found = []
        for draw in range(draws if mode == "sample" else 1):
            with reading(model, mode), torch.random.fork_rng():
                torch.manual_seed(seed + draw)
                found.append(score())
        outcomes[mode] = found[0] if len(found) == 1 else _spread(found)
    return outcomes


def _spread(draws: list[Found]) -> Found:
    """The first of several draws, with the mean of each metric and its standard deviation."""
    metrics: dict[str, float] = {}
    for name in draws[0].metrics:
        values = [draw.metrics[name] for draw in draws]
        metrics |= {name: float(np.mean(values)), f"{name}_sd": float(np.std(values, ddof=1))}
    if "best_shift" in metrics:  # a place, not a quantity
        metrics["best_shift"] = draws[0].metrics["best_shift"]
        del metrics["best_shift_sd"]
    return replace(draws[0], metrics=metrics)


def named_metrics(outcomes: Mapping[str, Outcome], split: str, modes: Sequence[str]) -> dict[str, Any]:
    """What was measured, under its public names: those of the first outcome as `split/bleu`, and, where the model has
    several test modes, those of each outcome as `split/mode/bleu`; then the signatures."""
    selected = next(iter(outcomes.values()))
    metrics: dict[str, Any] = {f"{split}/{name}": value for name, value in selected.metrics.items()}
    if len(modes) > 1:
        for mode, outcome in outcomes.items():
            metrics |= {f"{split}/{mode}/{name}": value for name, value in outcome.metrics.items()}
    return metrics | {f"signature/{name}": text for name, text in selected.signatures.items()}
