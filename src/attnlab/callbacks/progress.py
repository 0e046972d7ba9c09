"""What a person sees while a run trains: one line that moves, or a line an epoch where output is not a terminal."""

import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ProgressBar
from rich.progress import BarColumn, Progress, TextColumn

from attnlab.callbacks.curves import Curves
from attnlab.tasks.base import Task
from attnlab.terminal import Terminal


class TrainingProgress(ProgressBar):
    """A bar over the whole run with loss, tokens or images per second and time left; and the run's throughput.

    The bar shows the last batch's loss, the line of an epoch the mean since the line before. Of several processes the
    first one shows it; what is counted is that of all.

    Args:
        begun: when the process began, in seconds since the epoch.
        curves: keeps the means; it must come before this one among the callbacks.

    Attributes:
        count: of the task's units (target tokens, images) trained on so far.
        seconds: time spent in training steps so far, validation left out.
        first_step: seconds from `begun` to the end of the first optimizer step.
    """

    def __init__(self, begun: float, curves: Curves) -> None:
        super().__init__()
        self.begun = begun
        self.curves = curves
        self.count = 0
        self.seconds = 0.0
        self.first_step: float | None = None
        self.console = Terminal()
        self._bar: Progress | None = None
        self._enabled = True
        self._mark = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "seconds": self.seconds, "first_step": self.first_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count, self.seconds, self.first_step = (state_dict[name] for name in ("count", "seconds", "first_step"))

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    @property
    def rate(self) -> float | None:
        """Mean units per second of training; None before its second step."""
        return self.count / self.seconds if self.seconds else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()
        self._done_before = trainer.global_step
        self._total = max(1, int(trainer.estimated_stepping_batches))
        if self._enabled and self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[line]}"),
                console=self.console,
            )
            self._task = self._bar.add_task("training", total=self._total, completed=trainer.global_step, line="")
            self._bar.start()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Task)
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.first_step is None:
            self.first_step = time.time() - self.begun
        if trainer.global_step > self._done_before + 1:
            # the first step warms caches and allocators up, and is left out of the rate
            self.count += outputs["count"]
            self.seconds += now - self._mark
        if self._bar is not None:
            loss = float(outputs["metrics"]["nll"])
            left = self._left(trainer.global_step, now)
            self._bar.update(
                self._task, completed=trainer.global_step, description=self._where(trainer),
                line=f"loss {loss:.3f}  {self._speed(pl_module)}{left} left",
            )  # fmt: skip

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not self._enabled or not hasattr(self, "_start"):
            return
        assert isinstance(pl_module, Task)
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        shown = "  ".join(
            f"{name} {value:.3f}" if value < 10 else f"{name} {value:.1f}" for name, value in values.items()
        )
        left = self._left(trainer.global_step, time.perf_counter())
        loss = self.curves.rows[-1].get("train/nll", float("nan"))
        line = f"{self._where(trainer)}  loss {loss:.3f}  {shown}  {self._speed(pl_module)}{left} left"
        self.console.print(line, highlight=False, soft_wrap=True)
        sys.stdout.flush()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _speed(self, task: Task) -> str:
        return "" if self.rate is None else f"{self.rate:,.0f} {task.unit}/s  "

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _where(self, trainer: pl.Trainer) -> str:
        return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"

    def _left(self, step: int, now: float) -> str:
        done = step - self._done_before
        seconds = (now - self._start) / max(1, done) * max(0, self._total - step)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
