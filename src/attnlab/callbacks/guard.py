"""Stops a run whose loss is no longer a number, while its last good checkpoint is still whole."""

from typing import Any

import pytorch_lightning as pl
import torch

from attnlab.errors import UserError


class FiniteLoss(pl.Callback):
    """Raises a UserError at the first loss that is NaN or infinite, before it can reach a checkpoint."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not bool(torch.isfinite(outputs["loss"])):
            raise UserError(
                f"The training loss became {float(outputs['loss'])} in epoch {trainer.current_epoch + 1}, step "
                f"{trainer.global_step}. The checkpoints of earlier epochs are kept. Lower optimizer.lr or "
                "trainer.gradient_clip_val, or train with trainer.precision=32-true."
            )
