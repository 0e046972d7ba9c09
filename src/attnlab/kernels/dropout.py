"""Dropout whose mask is cheap to draw, and may be applied where a kernel has the numbers at hand."""

from typing import NamedTuple

import torch
from torch import Tensor


class Kept(NamedTuple):
    """Which elements of a tensor dropout keeps.

    Attributes:
        bits: int16, as many as there are elements; those of at least the threshold are kept.
        threshold: so that dropout has the probability (threshold + 2^15) / 2^16.
    """

    bits: Tensor
    threshold: int

    @classmethod
    def draw(cls, size: int, probability: float, device: torch.device) -> "Kept":
        """Draws for `size` elements, four from each 64-bit random number: on a CPU, torch would draw a Bernoulli
        variable at a time. Where the drawing is compiled, one from each of 16."""
        threshold = min(round(probability * 2**16), 2**16 - 1) - 2**15
        if torch.compiler.is_compiling():  # the compiler does not know the view
            return cls(torch.randint(-(2**15), 2**15, (size,), dtype=torch.int16, device=device), threshold)
        bits = torch.empty((size + 3) // 4, dtype=torch.int64, device=device)
        bits.random_(-(2**63), None)  # all 64 bits
        return cls(bits.view(torch.int16)[:size], threshold)

    @property
    def scale(self) -> float:
        """What the elements that are kept are multiplied by."""
        return 1 / (1 - (self.threshold + 2**15) / 2**16)

    def apply(self, inputs: Tensor) -> Tensor:
        """Inverted dropout of the tensor that this was drawn for."""
        keep = (self.bits >= self.threshold).view_as(inputs)
        return inputs * keep.to(inputs.dtype).mul_(self.scale)
