"""Where a token stands: vectors for the places of a grid or a sequence."""

import math
from abc import ABC, abstractmethod
from functools import lru_cache

import torch
from torch import Tensor, nn


class Positions(nn.Module, ABC):
    """Vectors for the places of a grid of patches.

    Args:
        rows: of the grid.
        columns: of the grid.
        size: width D.
    """

    def __init__(self, rows: int, columns: int, size: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self) -> Tensor:
        """Returns vectors [N, D] of the places, row by row."""


class LearnedPositions(Positions):
    """A parameter a place (Dosovitskiy et al. 2021)."""

    def __init__(self, rows: int, columns: int, size: int) -> None:
        super().__init__(rows, columns, size)
        self.table = nn.Parameter(torch.randn(rows * columns, size) * 0.02)

    def forward(self) -> Tensor:
        return self.table


class SinusoidalPositions(Positions):
    """Sines and cosines of the row in one half of the width, of the column in the other (after Vaswani et al. 2017,
    section 3.5).

    Raises:
        ValueError: if the width is no multiple of 4.
    """

    table: Tensor

    def __init__(self, rows: int, columns: int, size: int) -> None:
        super().__init__(rows, columns, size)
        if size % 4:
            raise ValueError(f"Sinusoidal positions in two dimensions need a width divisible by 4, found {size}.")
        down = sinusoids(rows, size // 2).unsqueeze(1).expand(-1, columns, -1)
        across = sinusoids(columns, size // 2).unsqueeze(0).expand(rows, -1, -1)
        self.register_buffer("table", torch.cat([down, across], -1).flatten(0, 1), persistent=False)

    def forward(self) -> Tensor:
        return self.table


@lru_cache(256)
def sinusoids(length: int, size: int, start: int = 0) -> Tensor:
    """Position encodings [length, size] from `start` on: sine and cosine of p / 10000^(2i / size) (Vaswani et al. 2017,
    section 3.5). They are kept, and not to be changed."""
    # on the processor, even where another device is the default: a meta tensor, say, is not to be kept
    rates = torch.exp(torch.arange(0, size, 2, device="cpu") * (-math.log(10000.0) / size))
    angles = torch.arange(start, start + length, device="cpu").unsqueeze(1) * rates  # [length, size / 2]
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :size]
