"""Translation (and any other sequence transduction) as a Lightning module."""

import inspect
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from attnlab.attention import Estimator
from attnlab.data.batching import Batch
from attnlab.data.tokenizers import BOS, EOS, PAD
from attnlab.decoding import Hypothesis, beam, greedy, length_limits
from attnlab.evaluation.text import corpus_scores

Build = Callable[[dict[str, Any]], Any]
"""Makes an object, or a factory where the spec is partial, from a spec: `attnlab.experiment.build.build`."""


class TranslationTask(pl.LightningModule):
    """Trains a sequence-to-sequence model and decodes with it.

    It holds specs, dictionaries of primitives, so that a checkpoint says all that is needed to rebuild it.

    Args:
        model: spec of the model, vocabulary sizes included.
        optimizer: partial spec of a torch optimizer.
        schedule: partial spec of a learning-rate schedule; one with an argument `total_steps` gets the run's length.
        build: makes objects from specs.
        monitor: the metric that selects the best checkpoint; a plateau schedule watches the validation loss.
        label_smoothing: share of the probability spread over the vocabulary in training.
    """

    def __init__(
        self, model: dict[str, Any], optimizer: dict[str, Any], schedule: dict[str, Any], *, build: Build,
        monitor: str = "val/bleu", label_smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.save_hyperparameters(ignore=["build"])
        self.build = build
        self.model = build(model)
        self.label_smoothing = label_smoothing
        self._decoded: dict[int, Hypothesis] = {}

    def on_train_start(self) -> None:
        self._steps = max(1, int(self.trainer.estimated_stepping_batches))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        for module in self.model.modules():
            if isinstance(module, Estimator):
                module.anneal(min(1.0, self.trainer.global_step / self._steps))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        scored, candidates = self.model(batch.source, batch.target_in, batch.target_out, self.label_smoothing)
        mask = batch.target_out != PAD
        loss, metrics = self.model.objective(scored, candidates, mask)
        size = int(mask.sum())
        self.log_dict({f"train/{name}": value for name, value in metrics.items()}, batch_size=size)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        likelihood, count = self.log_likelihood(batch)
        self.log("val/loss", -likelihood / count, batch_size=count, on_epoch=True)
        hypotheses = self.search(batch.source)
        self._decoded |= dict(zip(batch.index.tolist(), hypotheses, strict=True))

    def on_validation_epoch_end(self) -> None:
        data = self.trainer.datamodule
        references = data.references("validation")
        decoded, self._decoded = self._decoded, {}
        if len(decoded) < len(references):  # a check of a few batches before training: nothing to score yet
            return
        texts = [data.tokenizers.target.decode(decoded[row].tokens) for row in range(len(references))]
        scores = corpus_scores(texts, references)
        self.log_dict({"val/bleu": scores.bleu, "val/chrf": scores.chrf, "val/accuracy": scores.exact_match})

    @torch.no_grad()
    def log_likelihood(self, batch: Batch) -> tuple[float, int]:
        """The log-likelihood of a batch in nats, in the test mode that is set, and the number of its target tokens."""
        scored, candidates = self.model(batch.source, batch.target_in, batch.target_out)
        mask = batch.target_out != PAD
        return float((candidates.mixture(scored) * mask).sum()), int(mask.sum())

    def search(self, source: Tensor, width: int = 1, alpha: float = 1.0) -> list[Hypothesis]:
        """Decodes sources [B, S], greedily (width 1) or by beam search with length penalty alpha."""
        limits = length_limits(source, PAD)
        if width == 1:
            return greedy(self.model, source, limits, BOS, EOS)
        return beam(self.model, source, limits, BOS, EOS, width, alpha)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Any = None,
    ) -> None:
        """Clips by the norm. Lightning's own refuses fused optimizers in mixed precision, lest a GradScaler's scale be
        clipped too; bf16 has none."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.build(self.hparams["optimizer"])(self.parameters())
        factory = self.build(self.hparams["schedule"])
        options = {}
        if "total_steps" in inspect.signature(factory).parameters:
            options["total_steps"] = int(self.trainer.estimated_stepping_batches)
        scheduler = factory(optimizer, **options)
        interval = "epoch" if isinstance(scheduler, ReduceLROnPlateau) else "step"
        plan = {"scheduler": scheduler, "interval": interval, "monitor": "val/loss"}
        return {"optimizer": optimizer, "lr_scheduler": plan}
