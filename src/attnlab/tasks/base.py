"""What all tasks share: specs for hparams, the optimizer, and the estimators' annealing."""

import sys
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from attnlab.attention import Candidates, Estimator
from attnlab.errors import UserError
from attnlab.tasks.distributed import weighted
from attnlab.tasks.schedules import make_schedule

Build = Callable[[dict[str, Any]], Any]
"""Makes an object, or a factory where the spec is partial, from a spec: `attnlab.experiment.build.build`."""


class Likelihoods(NamedTuple):
    """What a model makes of a batch.

    Attributes:
        log_likelihoods: [K, B, T], log p(target) in nats under every candidate.
        candidates: of its attention.
        mask: bool [B, T], True at real targets.
    """

    log_likelihoods: Tensor
    candidates: Candidates
    mask: Tensor


def frequency_entropy(targets: Tensor) -> float:
    """The entropy in nats of the frequencies of targets, long [N]."""
    _, counts = targets.unique(return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * shares.log()).sum())


class Task(pl.LightningModule):
    """Trains a model and says how well it does.

    It holds specs, dictionaries of primitives, so that a checkpoint says all that is needed to rebuild it.

    Attributes:
        name: of the kind of task, as the config has it; part of a checkpoint.
        unit: what its throughput counts.
        measured: the metrics of a validation, of which one selects the best checkpoint.

    Args:
        model: spec of the model, with what the data decide.
        optimizer: partial spec of a torch optimizer.
        schedule: partial spec of a learning-rate schedule; one with an argument `total_steps` gets the run's length.
        build: makes objects from specs.
        monitor: the metric that selects the best checkpoint; a plateau schedule watches the validation loss.
        label_smoothing: share of the probability spread evenly in training, in [0, 1).

    Raises:
        UserError: if that is no such share.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    measured: ClassVar[tuple[str, ...]]

    def __init__(
        self, model: dict[str, Any], optimizer: dict[str, Any], schedule: dict[str, Any], *, build: Build,
        monitor: str = "val/loss", label_smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(
                f"task.label_smoothing={label_smoothing} is a share of the probability: give one in [0, 1)."
            )
        self.save_hyperparameters(ignore=["build"])
        self.build = build
        self.model = build(model)
        self.label_smoothing = label_smoothing

    @abstractmethod
    def count(self, batch: Any) -> int:
        """The number of `unit`s in a batch, over which its loss is a mean."""

    @abstractmethod
    def scored(self, batch: Any, smoothing: float = 0.0) -> Likelihoods:
        """Runs the model on a batch: log-likelihoods of its targets, smoothed or not."""

    @abstractmethod
    def sample(self, data: Any, count: int) -> Any:
        """A batch of so many validation examples, spread evenly over the split."""

    @abstractmethod
    def blind(self, batch: Any) -> float:
        """The entropy of a batch's targets in nats: the loss of a model that sees nothing but their frequencies."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """The loss of a batch, or of this process's part of it; of the whole batch the metrics and the number of
        `unit`s."""
        scored = self.scored(batch, self.label_smoothing)
        loss, metrics, count = weighted(*self.model.objective(*scored), count=self.count(batch))
        return {"loss": loss, "metrics": metrics, "count": count}

    def log_mean(self, values: dict[str, Any], count: int) -> None:
        """Logs means over so many targets, of which those over all batches and all processes are to be shown."""
        # the count as a float, for Lightning averages it over processes, and would round an integer down
        self.log_dict(values, batch_size=float(count), on_epoch=True, sync_dist=True)

    @torch.no_grad()
    def log_likelihood(self, batch: Any) -> tuple[float, int]:
        """The log-likelihood of a batch in nats, in the test mode that is set, and the number of its targets."""
        scored, candidates, mask = self.scored(batch)
        return float((candidates.mixture(scored) * mask).sum()), int(mask.sum())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["task"] = self.name

    def on_train_start(self) -> None:
        self._steps = max(1, int(self.trainer.estimated_stepping_batches))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        for module in self.model.modules():
            if isinstance(module, Estimator):
                module.anneal(min(1.0, self.trainer.global_step / self._steps))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Any = None,
    ) -> None:
        """Clips the norm, or each number. Lightning's own refuses fused optimizers in mixed precision, lest a
        GradScaler's scale be clipped too; bf16 has none."""
        if gradient_clip_val and gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        elif gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.build(self.hparams["optimizer"])(self.parameters())
        scheduler = make_schedule(
            self.build(self.hparams["schedule"]), optimizer, lambda: int(self.trainer.estimated_stepping_batches)
        )
        if isinstance(scheduler, ReduceLROnPlateau):  # stepped by `attnlab.callbacks.epochs.StepOnPlateau`
            plan = {"scheduler": scheduler, "interval": "epoch", "frequency": sys.maxsize, "monitor": "val/loss"}
        else:
            plan = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": plan}
