"""Image classification as a Lightning module."""

import torch
from torch import Tensor

from attnlab.data.images import ImageBatch, ImageData
from attnlab.tasks.base import Likelihoods, Task, frequency_entropy


class VisionTask(Task):
    """Trains an image classifier."""

    name = "vision"
    unit = "images"
    measured = ("val/loss", "val/accuracy")

    def count(self, batch: ImageBatch) -> int:
        return len(batch.labels)

    def scored(self, batch: ImageBatch, smoothing: float = 0.0) -> Likelihoods:
        """Log p(label) of a batch, T = 1; of images that were mixed, of both labels in their shares."""
        log_probs, candidates = self.model(batch.images)  # [K, B, C]
        labels = torch.stack([batch.labels, batch.partners], -1).expand(*log_probs.shape[:-1], 2)
        shares = torch.stack([batch.shares, 1 - batch.shares], -1)
        likelihood = (log_probs.gather(-1, labels) * shares).sum(-1)
        if smoothing:
            likelihood = (1 - smoothing) * likelihood + smoothing * log_probs.mean(-1)
        mask = torch.ones(len(batch.labels), 1, dtype=torch.bool, device=likelihood.device)
        return Likelihoods(likelihood.unsqueeze(-1), candidates, mask)

    def sample(self, data: ImageData, count: int) -> ImageBatch:
        rows = len(data.splits["validation"])
        return data.batch("validation", range(0, rows, max(1, rows // count))[:count])

    def blind(self, batch: ImageBatch) -> float:
        return frequency_entropy(batch.labels)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Log-probabilities [B, C] of normalised images, in the test mode that is set."""
        scored, candidates = self.model(images)
        return candidates.mixture(scored.unsqueeze(2)).squeeze(1)

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        log_probs = self.predict(batch.images)
        right = (log_probs.argmax(-1) == batch.labels).float().mean()
        nll = -log_probs.gather(-1, batch.labels.unsqueeze(-1)).mean()
        self.log_mean({"val/loss": nll, "val/accuracy": 100 * right}, len(batch.labels))
