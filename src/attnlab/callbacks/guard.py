"""When a run stops: at a loss that is no longer a number, at a learning rate that no longer moves anything, or when it
is told to."""

import signal
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping

from attnlab.errors import UserError

_MEND = (
    "The checkpoints of earlier epochs are kept. Lower optimizer.lr or trainer.gradient_clip_val, or train with "
    "trainer.precision=32-true."
)


class FiniteLoss(pl.Callback):
    """Raises a UserError at the first loss that is NaN or infinite, and where weights that are would be saved: those of
    the step behind the last finite loss."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not bool(torch.isfinite(outputs["loss"])):
            raise UserError(
                f"The training loss became {float(outputs['loss'])} in epoch {trainer.current_epoch + 1}, step "
                f"{trainer.global_step}. {_MEND}"
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        bad = next((name for name, value in pl_module.named_parameters() if not bool(value.isfinite().all())), None)
        if bad is not None:
            raise UserError(
                f"Weights are no longer finite, {bad} among them, in epoch {trainer.current_epoch + 1}, after step "
                f"{trainer.global_step}. {_MEND}"
            )


class Patience(EarlyStopping):
    """Lightning's EarlyStopping, after which a run that goes on from its last checkpoint, to be tested, trains no
    more."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count and self.wait_count >= self.patience:
            trainer.should_stop = True


class StopAtLearningRate(pl.Callback):
    """Stops the training after the first epoch at a learning rate that has fallen to `least`, as by a schedule that
    follows the validation loss; a run that goes on from its last checkpoint trains no more."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.on_validation_end(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step and all(
            group["lr"] <= self.least * (1 + 1e-9) for group in trainer.optimizers[0].param_groups
        ):
            trainer.should_stop = True


class StopAtOnce(pl.Callback):
    """Has SIGTERM end the training as Ctrl-C does, where several processes train together.

    Lightning's own handler has the processes agree on it by a broadcast from wherever each of them is, which may be in
    the middle of another exchange; then they wait for each other for ever.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
