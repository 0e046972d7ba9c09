"""The course of a run: an epoch a line in the run directory, and every few steps to the loggers."""

import json
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from attnlab.files import write_jsonl


class Means:
    """Means of the metrics of training over the targets of several batches."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor | float] = {}  # each times the targets that it is a mean of
        self.count = 0

    def add(self, outputs: dict[str, Any]) -> None:
        """Of a batch, what its training step gave."""
        for name, value in outputs["metrics"].items():
            self.sums[name] = self.sums.get(name, 0.0) + value * outputs["count"]
        self.count += outputs["count"]

    def take(self) -> dict[str, float]:
        """The means, by their names among all metrics; it begins anew."""
        found = {f"train/{name}": float(total) / self.count for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        return found


class Curves(pl.Callback):
    """Writes `curves.jsonl`: for each epoch its number, the seconds of training so far, and the metrics.

    Those of training are means over all targets since the last line; every `trainer.log_every_n_steps` steps the
    loggers get means over those since they last did. (Lightning's own log takes a millisecond a step, and gives them
    the last batch's.) It is part of a checkpoint, so that a resumed run has one curve.

    Args:
        path: of the file.

    Attributes:
        rows: the lines.
        validated: the optimizer steps up to the last validation.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.validated = 0
        self._before = 0.0
        self._start: float | None = None
        self._of_line, self._of_log = Means(), Means()
        self._logged = 0  # the step

    @property
    def seconds(self) -> float:
        """Of training so far, those before a resume included; of all of it once it has ended."""
        return self._before + (0.0 if self._start is None else time.perf_counter() - self._start)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()
        self._logged = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._of_line.add(outputs)
        if not trainer.loggers:
            return
        self._of_log.add(outputs)
        step, every = trainer.global_step, trainer.log_every_n_steps
        if every and step % every == 0 and step != self._logged:
            self._logged = step
            metrics = self._of_log.take() | {"epoch": trainer.current_epoch}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or self._start is None:
            return
        self.validated = trainer.global_step
        found = trainer.callback_metrics | self._of_line.take()
        values = {name: round(float(value), 6) for name, value in sorted(found.items())}
        self.rows.append({"epoch": trainer.current_epoch + 1, "seconds": round(self.seconds, 2)} | values)
        if trainer.is_global_zero:
            write_jsonl(self.path, self.rows)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._before, self._start = self.seconds, None

    def state_dict(self) -> dict[str, Any]:
        sums = {name: float(total) for name, total in self._of_line.sums.items()}
        return {
            "rows": json.dumps(self.rows), "seconds": self.seconds, "sums": sums, "count": self._of_line.count,
            "validated": self.validated,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = json.loads(state_dict["rows"])
        self._before = state_dict["seconds"]
        self._of_line.sums, self._of_line.count = dict(state_dict.get("sums", {})), state_dict.get("count", 0)
        self.validated = state_dict.get("validated", 0)
