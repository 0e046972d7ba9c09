"""Normalizers: alpha_i = normalise(e_i). The only place that knows masks."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Normalizer(nn.Module, ABC):
    """Turns scores into a distribution over the source positions that the mask allows."""

    def forward(self, scores: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns weights [..., T, S] in float32 or wider: rows sum to 1, masked positions hold exactly 0.

        Args:
            scores: [..., T, S].
            mask: bool, broadcastable to the scores, True where a position may be attended to; None allows all.

        Raises:
            ValueError: if a row has no allowed position, for there is no distribution over nothing.
        """
        if mask is not None and not bool(mask.any(-1).all()):
            row = (~mask.any(-1)).nonzero()[0].tolist()
            raise ValueError(
                f"Attention row {row} is fully masked: no source position is left to attend to. "
                "Every source needs at least one real position."
            )
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))  # half precision sums drift from 1
        return self.normalize(scores, mask)

    @abstractmethod
    def normalize(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        """The normalisation itself, on scores of at least single precision and a mask that leaves no row empty."""


class Softmax(Normalizer):
    """alpha_ij = exp(e_ij / tau) / sum_j' exp(e_ij' / tau).

    Args:
        temperature: tau > 0; below 1 sharpens, above 1 flattens.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"The softmax temperature must be positive, found {temperature}.")
        self.temperature = temperature

    def normalize(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        if self.temperature != 1.0:
            scores = scores / self.temperature
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(-1)


class LastPosition(Normalizer):
    """All weight on the last allowed position, whatever the scores: the control without attention.

    The context is then the encoder's last state, as in Sutskever, Vinyals and Le 2014, the same at every step.
    """

    def normalize(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        position = torch.arange(scores.shape[-1], device=scores.device).expand(scores.shape)
        last = (position if mask is None else position.masked_fill(~mask, -1)).amax(-1, keepdim=True)
        return (position == last).to(scores.dtype)
