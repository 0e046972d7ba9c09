"""Dropout whose mask is cheap to draw."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.kernels.dropout import Kept


class Dropout(nn.Module):
    """Inverted dropout (Srivastava et al. 2014), with a probability rounded to a multiple of 2^-16; on a GPU torch's
    own, one kernel each way.

    Args:
        probability: of an element to be zeroed, in [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"The dropout probability lies in [0, 1), found {probability}.")
        self.probability = probability

    def draw(self, size: int, device: torch.device) -> Kept | None:
        """What is kept of `size` elements this time; None where it is all of them."""
        return Kept.draw(size, self.probability, device) if self.training and self.probability else None

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.is_cuda:
            return F.dropout(inputs, self.probability, self.training)
        kept = self.draw(inputs.numel(), inputs.device)
        return inputs if kept is None else kept.apply(inputs)
