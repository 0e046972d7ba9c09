"""The course of a run, an epoch a line, in the run directory."""

import json
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from attnlab.files import write_jsonl


class Curves(pl.Callback):
    """Writes `curves.jsonl`: for each epoch its number, the seconds of training so far, and the metrics.

    Those of training are means over all targets since the last line. It is part of a checkpoint, so that a resumed run
    has one curve.

    Args:
        path: of the file.

    Attributes:
        rows: the lines.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._before = 0.0
        self._start: float | None = None
        self._sums: dict[str, Tensor | float] = {}  # of the metrics of training, each times the targets it is a mean of
        self._count = 0

    @property
    def seconds(self) -> float:
        """Of training so far, those before a resume included."""
        return self._before + (0.0 if self._start is None else time.perf_counter() - self._start)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for name, value in outputs["metrics"].items():
            self._sums[name] = self._sums.get(name, 0.0) + value * outputs["count"]
        self._count += outputs["count"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or self._start is None:
            return
        means = {f"train/{name}": total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        values = {name: round(float(value), 6) for name, value in sorted((trainer.callback_metrics | means).items())}
        self.rows.append({"epoch": trainer.current_epoch + 1, "seconds": round(self.seconds, 2)} | values)
        if trainer.is_global_zero:
            write_jsonl(self.path, self.rows)

    def state_dict(self) -> dict[str, Any]:
        sums = {name: float(total) for name, total in self._sums.items()}
        return {"rows": json.dumps(self.rows), "seconds": self.seconds, "sums": sums, "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = json.loads(state_dict["rows"])
        self._before = state_dict["seconds"]
        self._sums, self._count = dict(state_dict.get("sums", {})), state_dict.get("count", 0)
