"""A stop at the end of a step, with a checkpoint from which the run goes on as if it had not been stopped."""

import signal
import threading
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from rich.console import Console

from attnlab.terminal import Terminal

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopInOrder(pl.Callback):
    """Lets Ctrl-C and SIGTERM end the training after the step that is under way, and then as a KeyboardInterrupt.

    The checkpoint holds the place within the epoch and the state of the random numbers. An epoch that is being
    validated is brought to its end first, and a second signal waits for nothing: then the checkpoint is that of the
    epoch before. Of several processes none is stopped so, since they would have to agree on the step.

    Args:
        path: of the checkpoint.
        console: where to say that it was understood.
    """

    def __init__(self, path: Path, console: Console | None = None) -> None:
        super().__init__()
        self.path = path
        self.console = console or Terminal()
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}
        self._place: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._place is not None:
            loader: Any = trainer.train_dataloader
            loader.batch_sampler.skip = self._place["batches"]
            _set_random_state(self._place["random"])
            self._place = None
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0  # gradients are in no checkpoint
        if self.asked and whole and batch_idx + 1 < trainer.num_training_batches:
            self._place = {"batches": batch_idx + 1, "random": _random_state()}
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.asked:  # while the last epoch was validated; its checkpoint has been written
            raise KeyboardInterrupt

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()
        if self.asked:
            raise KeyboardInterrupt

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def state_dict(self) -> dict[str, Any]:
        return {"place": self._place}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._place = state_dict["place"]

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self.console.print("Stopping after this step or validation; once more stops at once.", highlight=False)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def _random_state() -> dict[str, Any]:
    """The states of torch's random numbers; nothing else is drawn from while a model trains."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": devices}


def _set_random_state(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
