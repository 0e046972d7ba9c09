"""What makes an epoch the same whether or not the run was stopped before it."""

import numpy as np
import pytorch_lightning as pl
from torch.optim.lr_scheduler import ReduceLROnPlateau


class EpochSeeds(pl.Callback):
    """Seeds all random numbers of an epoch from the run's seed and the epoch's number.

    The order of the data depends on their own seed and the epoch; so a run that is resumed at an epoch draws what it
    would have drawn uninterrupted. Each of several processes draws its own.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        entropy = [self.seed, trainer.current_epoch, trainer.global_rank]
        pl.seed_everything(int(np.random.SeedSequence(entropy).generate_state(1)[0]), verbose=False)


class StepOnPlateau(pl.Callback):
    """Shows the validation loss to a plateau schedule before the epoch's checkpoint is written.

    Lightning would do so afterwards, and a run resumed from that checkpoint would miss it.
    """

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        for plan in trainer.lr_scheduler_configs:
            if isinstance(plan.scheduler, ReduceLROnPlateau):
                plan.scheduler.step(float(trainer.callback_metrics["val/loss"]))
