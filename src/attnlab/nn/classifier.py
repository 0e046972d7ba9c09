"""What all image classifiers share: the readout and the objective."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from attnlab.attention import Candidates, Estimator, Objective


class ImageClassifier(nn.Module, ABC):
    """From images to log-probabilities of classes, under every candidate of its attention.

    Attributes:
        leading: number of tokens before those of the patches, in what `maps` returns.
        variant_names: the layers among those of `maps` that hold the variant.

    Args:
        estimator: of the attention that is trained.
        grid: rows and columns of patches.
        size: width D of the features.
        classes: number of classes.
    """

    leading: int = 0
    variant_names: tuple[str, ...] = ()
    estimator: Estimator

    def __init__(self, estimator: Estimator, grid: tuple[int, int], size: int, classes: int) -> None:
        super().__init__()
        self.estimator = estimator
        self.grid = grid
        self.norm = nn.LayerNorm(size)
        self.classifier = nn.Linear(size, classes)

    @property
    @abstractmethod
    def modes(self) -> tuple[str, ...]:
        """The test modes in which this model can be read."""

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Candidates]:
        """Classifies normalised images [B, C, H, W].

        Returns:
            log-probabilities [K, B, classes] under every candidate, and the candidates (T = 1).
        """

    @abstractmethod
    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """The attention weights [B, H, T, S] of what is read, by name of the layer, in evaluation."""

    def chosen(self, images: Tensor) -> Tensor | None:
        """The only patches that are read, long [B, k], in the order of their choice; None where all are. In
        evaluation."""
        return None

    def readout(self, features: Tensor) -> Tensor:
        """Log-probabilities [..., classes] of normed features [..., D]."""
        scored: Tensor = self.classifier(features)
        return scored.to(torch.promote_types(scored.dtype, torch.float32)).log_softmax(-1)

    def objective(self, log_likelihoods: Tensor, candidates: Candidates, mask: Tensor) -> Objective:
        """The training objective of log p(label) [K, B, 1] under what `forward` returned; mask is bool [B, 1]."""
        return self.estimator.objective(log_likelihoods, candidates, mask)

    @torch.no_grad()
    def parameter_count(self) -> int:
        """The number of trained parameters."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
