"""Dropout whose mask is cheap to draw."""

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Inverted dropout (Srivastava et al. 2014), with a probability rounded to a multiple of 2^-16.

    On a CPU, torch draws a Bernoulli variable at a time; here one 64-bit random number decides four elements.

    Args:
        probability: of an element to be zeroed, in [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"The dropout probability lies in [0, 1), found {probability}.")
        self.probability = probability
        self.threshold = min(round(probability * 2**16), 2**16 - 1) - 2**15

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return inputs
        size = inputs.numel()
        bits = torch.empty((size + 3) // 4, dtype=torch.int64, device=inputs.device)
        bits.random_(-(2**63), None)  # all 64 bits
        keep = (bits.view(torch.int16)[:size] >= self.threshold).view_as(inputs)
        return inputs * keep.to(inputs.dtype).mul_(1 / (1 - (self.threshold + 2**15) / 2**16))
