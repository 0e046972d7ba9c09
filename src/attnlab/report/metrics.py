"""What a run measures, by the names of metrics.json: label, unit, form, and which way is better."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One number of metrics.json.

    Attributes:
        key: its name there.
        label: its name in a table.
        unit: what it counts, for the heading; may be empty.
        form: how a value is written.
        better: 1 where more is better, -1 where less is, 0 where neither is (it is then never marked).
    """

    key: str
    label: str
    unit: str = ""
    form: str = "{:.4g}"
    better: int = 0

    def write(self, value: float) -> str:
        """A value as text, with a minus sign where there is one."""
        return self.form.format(value).replace("-", "−")

    @property
    def title(self) -> str:
        """The label at the start of a sentence."""
        return self.label.capitalize() if self.label.islower() else self.label

    @property
    def arrow(self) -> str:
        """Which way is better, as a sign; empty where neither is."""
        return {1: "↑", -1: "↓", 0: ""}[self.better]


BLEU = Metric("test/bleu", "BLEU", "", "{:.1f}", 1)
CHRF = Metric("test/chrf", "chrF", "", "{:.1f}", 1)
EXACT_MATCH = Metric("test/accuracy", "exact match", "%", "{:.1f}", 1)
ACCURACY = Metric("test/accuracy", "accuracy", "%", "{:.1f}", 1)
AER = Metric("test/aer", "AER", "", "{:.3f}", -1)
ENTROPY = Metric("test/entropy", "entropy", "nats", "{:.2f}")
INSIDE = Metric("test/inside", "attention on the object", "%", "{:.1f}", 1)
SECONDS = Metric("train/seconds", "training time", "s", "{:,.0f}")
PARAMETERS = Metric("params", "parameters", "", "{:,.0f}")

_QUALITY = (
    BLEU,
    CHRF,
    EXACT_MATCH,
    Metric("test/top5", "top-5 accuracy", "%", "{:.1f}", 1),
    Metric("test/calibration_error", "calibration error", "%", "{:.1f}", -1),
    Metric("test/edit_distance", "edit distance", "characters", "{:.2f}", -1),
    Metric("test/loss", "loss", "nats", "{:.3f}", -1),
    AER,
    INSIDE,
    ENTROPY,
)
COST = (
    PARAMETERS,
    Metric("train/tokens_per_second", "speed", "tokens/s", "{:,.0f}"),
    Metric("train/images_per_second", "speed", "images/s", "{:,.0f}"),
    SECONDS,
    Metric("train/peak_memory_mib", "peak memory", "MiB", "{:,.0f}"),
)
_IN_THE_CSV_ALONE = {
    f"test/{name}"
    for name in (
        "sentences_per_second",
        "images_per_second",
        "alignment_precision",
        "alignment_recall",
        "aer_best_shift",
        "best_shift",
        "inside_chance",
    )
}


def number(metrics: Mapping[str, Any], key: str) -> float | None:
    """The finite number of that name; None where there is none."""
    value = metrics.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def quality(keys: Iterable[str], *, classification: bool) -> list[Metric]:
    """The columns of quality for what some runs measured: those known here first, then any other `test/NAME`."""
    keys = set(keys)
    known = [ACCURACY if classification and metric is EXACT_MATCH else metric for metric in _QUALITY]
    names = {metric.key for metric in known} | _IN_THE_CSV_ALONE
    others = sorted(key for key in keys - names if re.fullmatch(r"test/\w+(?<!_sd)", key))
    unknown = [Metric(key, key.removeprefix("test/").replace("_", " ")) for key in others]
    return [metric for metric in (*known, *unknown) if metric.key in keys]


def cost(keys: Iterable[str]) -> list[Metric]:
    """The columns of cost for what some runs measured."""
    keys = set(keys)
    return [metric for metric in COST if metric.key in keys]


def modes(keys: Iterable[str]) -> list[str]:
    """The test modes that have metrics of their own (`test/argmax/bleu`), in the order given."""
    found = (re.fullmatch(r"test/(\w+)/\w+", key) for key in keys)
    return list(dict.fromkeys(match[1] for match in found if match))
