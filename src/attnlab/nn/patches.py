"""From an image to tokens: patches and their embedding."""

import math
from abc import ABC, abstractmethod

from torch import Tensor, nn


def grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of square patches in an image.

    Raises:
        ValueError: if the patches do not divide it.
    """
    if patch < 1 or height % patch or width % patch:
        common = math.gcd(height, width)
        fitting = ", ".join(str(size) for size in range(1, common + 1) if common % size == 0)
        raise ValueError(
            f"Patches of {patch} x {patch} pixels do not divide an image of {height} x {width}; model.patch may be "
            f"{fitting}, or data.image_size another size."
        )
    return height // patch, width // patch


def patches(images: Tensor, patch: int) -> Tensor:
    """Cuts images [B, C, H, W] into patches [B, N, C patch^2], row by row."""
    batch, channels, height, width = images.shape
    rows, columns = height // patch, width // patch
    cut = images.view(batch, channels, rows, patch, columns, patch)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels * patch * patch)


class Stem(nn.Module, ABC):
    """Embeds the patches of an image.

    Args:
        channels: of the image, C.
        patch: side of a patch in pixels.
        size: width D of the embeddings.
    """

    def __init__(self, channels: int, patch: int, size: int) -> None:
        super().__init__()
        self.patch = patch

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Returns embeddings [B, N, D] of the patches of images [B, C, H, W], row by row."""


class LinearStem(Stem):
    """One linear map a patch (Dosovitskiy et al. 2021, equation 1)."""

    def __init__(self, channels: int, patch: int, size: int) -> None:
        super().__init__(channels, patch, size)
        self.linear = nn.Linear(channels * patch * patch, size)

    def forward(self, images: Tensor) -> Tensor:
        embedded: Tensor = self.linear(patches(images, self.patch))
        return embedded


class ConvolutionalStem(Stem):
    """Two 3 x 3 convolutions at full resolution before the patches are cut (after Xiao et al. 2021).

    Args:
        filters: of each convolution.
    """

    def __init__(self, channels: int, patch: int, size: int, filters: int = 32) -> None:
        super().__init__(channels, patch, size)
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, filters, 3, padding=1), nn.GELU(), nn.Conv2d(filters, filters, 3, padding=1), nn.GELU()
        )
        self.linear = nn.Linear(filters * patch * patch, size)

    def forward(self, images: Tensor) -> Tensor:
        embedded: Tensor = self.linear(patches(self.convolutions(images), self.patch))
        return embedded
