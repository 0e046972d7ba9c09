"""Random changes to training images, a whole batch at a time; drawn from torch's seeded global state.

Crops, flips and the geometric half of RandAugment are maps of the plane: an image's own are multiplied into one map,
and its pixels are looked up once, so that nothing is blurred by being resampled twice.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from attnlab.errors import UserError

MAGNITUDES = 30  # RandAugment's strongest magnitude

_GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_SHEAR = 0.3
_TRANSLATE = 150 / 331  # of the side; 150 pixels of 331 in the paper's code
_ROTATE = math.radians(30)
_BLEND = 0.9


class Augmentation:
    """Random crop, flip, RandAugment (Cubuk et al. 2020) and mixup (Zhang et al. 2018), drawn anew for each image.

    RandAugment's fourteen operations and their ranges are the paper's: identity, autocontrast, equalize, rotate,
    solarize, color, posterize, contrast, brightness, sharpness, shear and translate along x and y. Two things differ
    from applying them one by one: an image's geometric operations come before its others, and pixels are looked up
    by nearest neighbour through the product of their maps. What comes from beyond the image is black.

    Args:
        crop: pixels of black that are added to each side before an area of the image's size is cut out at random.
        flip: mirror every second image, left to right.
        randaugment: operations an image, with replacement; 0 for none, 2 in much of the literature.
        magnitude: of RandAugment's operations, from 0 to 30.
        mixup: both parameters of the beta distribution of mixup's shares; 0 for none.
    """

    def __init__(
        self, crop: int = 0, flip: bool = False, randaugment: int = 0, magnitude: float = 9, mixup: float = 0.0
    ) -> None:
        for name, value in (("crop", crop), ("randaugment", randaugment), ("mixup", mixup)):
            if value < 0:
                raise UserError(f"data.augment.{name}={value} must be 0 or more.")
        if not 0 <= magnitude <= MAGNITUDES:
            raise UserError(f"data.augment.magnitude={magnitude} must lie between 0 and {MAGNITUDES}.")
        self.crop = crop
        self.flip = flip
        self.randaugment = randaugment
        self.level = magnitude / MAGNITUDES
        self.mixup = mixup

    @classmethod
    def from_options(cls, options: Mapping[str, Any] | None) -> "Augmentation":
        """From the options that a config names; UserError for an unknown one."""
        known = ("crop", "flip", "randaugment", "magnitude", "mixup")
        if unknown := sorted(set(options or {}) - set(known)):
            raise UserError(f"data.augment has no option {', '.join(unknown)}: it has {', '.join(known)}.")
        return cls(**(options or {}))

    def __call__(self, images: Tensor) -> Tensor:
        """Crop, flip and RandAugment: uint8 [B, C, H, W], C = 1 or 3, to the same."""
        count, (height, width) = len(images), images.shape[-2:]
        chosen = torch.randint(len(_OPERATIONS), (count, self.randaugment))
        strengths = (torch.randint(2, (count, self.randaugment)) * 2 - 1) * self.level  # in [-1, 1]
        if self.crop or self.flip or self.randaugment:
            maps = self._crop_and_flip(count)
            for operation, strength in zip(chosen.T, strengths.T, strict=True):
                maps = maps @ _geometric(operation, strength, height, width)
            images = look_up(images, maps)
        for operation, strength in zip(chosen.T, strengths.T, strict=True):
            for number, change in enumerate(_OPERATIONS.values()):
                if change is not None and len(rows := (operation == number).nonzero().flatten()):
                    images[rows] = change(images[rows], strength[rows].view(-1, 1, 1, 1))
        return images

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mixup within a batch: each image becomes share * image + (1 - share) * partner (Zhang et al. 2018, eq. 1).

        Args:
            images: float32 [B, C, H, W].
            labels: int64 [B].

        Returns:
            the images; the partners' labels, int64 [B]; the shares, float32 [B]. Without mixup the images and labels
            are the given ones, and the shares 1.
        """
        if not self.mixup:
            return images, labels, torch.ones(len(labels))
        shares = torch.distributions.Beta(self.mixup, self.mixup).sample((len(labels),))
        partners = torch.randperm(len(labels))
        return torch.lerp(images[partners], images, shares.view(-1, 1, 1, 1)), labels[partners], shares

    def _crop_and_flip(self, count: int) -> Tensor:
        """Maps of the plane, [B, 3, 3]."""
        maps = torch.eye(3).repeat(count, 1, 1)
        if self.flip:
            maps[:, 0, 0] -= 2 * torch.randint(2, (count,))
        if self.crop:
            maps[:, :2, 2] = torch.randint(-self.crop, self.crop + 1, (count, 2)).float()
        return maps


def look_up(images: Tensor, maps: Tensor) -> Tensor:
    """The images seen through maps of the plane; black where a map leads out of the image.

    Args:
        images: uint8 [B, C, H, W].
        maps: float32 [B, 3, 3]; pixel p of the result, as (x, y, 1) from the centre, is the one nearest to map @ p.

    Returns:
        uint8 [B, C, H, W], a copy.
    """
    channels, height, width = images.shape[1:]
    framed = pad(images, (1, 1, 1, 1))  # whatever lies beyond is looked up in the frame
    x, y = (maps[:, :2] @ _plane(height, width)).unbind(1)  # [B, HW]
    x = x.add_((width + 1) / 2).round_().clamp_(0, width + 1).long()
    y = y.add_((height + 1) / 2).round_().clamp_(0, height + 1).long()
    places = x.add_(y, alpha=width + 2)[:, None].expand(-1, channels, -1)
    return framed.flatten(2).gather(2, places).view_as(images)


@lru_cache(maxsize=4)
def _plane(height: int, width: int) -> Tensor:
    """The pixels as points (x, y, 1) from the image's centre, [3, HW]."""
    x = torch.arange(width) - (width - 1) / 2
    y = torch.arange(height) - (height - 1) / 2
    return torch.stack([x.repeat(height), y.repeat_interleave(width), torch.ones(height * width)])


def _geometric(operation: Tensor, strength: Tensor, height: int, width: int) -> Tensor:
    """Maps of the plane, [B, 3, 3]: of one geometric operation an image, the identity for all other operations."""

    def amount(name: str, most: float) -> Tensor:
        return strength * most * (operation == _NAMES.index(name))

    angle = amount("rotate", _ROTATE)
    maps = torch.zeros(len(operation), 3, 3)
    maps[:, 0, 0] = maps[:, 1, 1] = angle.cos()
    maps[:, 0, 1] = amount("shear_x", _SHEAR) - angle.sin()
    maps[:, 1, 0] = amount("shear_y", _SHEAR) + angle.sin()
    maps[:, 0, 2] = amount("translate_x", _TRANSLATE * width)
    maps[:, 1, 2] = amount("translate_y", _TRANSLATE * height)
    maps[:, 2, 2] = 1
    return maps


def _blend(images: Tensor, plain: Tensor | float, strength: Tensor) -> Tensor:
    """Away from or towards a plain version of the images: at strength 0 they stay as they are."""
    mixed = plain + (1 + _BLEND * strength) * (images - plain)
    return mixed.round_().clamp_(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """Luma (ITU-R 601), float32 [B, 1, H, W]."""
    if images.shape[1] == 1:
        return images.float()
    return (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)


def _brightness(images: Tensor, strength: Tensor) -> Tensor:
    return _blend(images, 0.0, strength)


def _contrast(images: Tensor, strength: Tensor) -> Tensor:
    return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True), strength)


def _color(images: Tensor, strength: Tensor) -> Tensor:
    return _blend(images, _grey(images), strength)


def _sharpness(images: Tensor, strength: Tensor) -> Tensor:
    around = pad(images.float(), (1, 1, 1, 1), mode="replicate")
    lines = around[..., :-2, :] + around[..., 1:-1, :] + around[..., 2:, :]
    smooth = (lines[..., :-2] + lines[..., 1:-1] + lines[..., 2:]).add_(images, alpha=4)  # the centre counts five times
    return _blend(images, smooth / 13, strength)


def _posterize(images: Tensor, strength: Tensor) -> Tensor:
    """Fewer bits, 8 down to 4."""
    dropped = (4 * strength.abs()).round().to(torch.uint8)
    return (images >> dropped) << dropped


def _solarize(images: Tensor, strength: Tensor) -> Tensor:
    """Inverts what is at least as bright as a threshold, which falls from 256 to 0."""
    bright = images >= 256 * (1 - strength.abs())
    return images ^ bright.to(torch.uint8).mul_(255)


def _autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    """Each channel's darkest level becomes 0 and its brightest 255."""
    low = images.amin((2, 3), keepdim=True).float()
    spread = images.amax((2, 3), keepdim=True) - low
    scaled = ((images - low) * (255 / spread.clamp(min=1))).round_().to(torch.uint8)
    return torch.where(spread > 0, scaled, images)


def _equalize(images: Tensor, strength: Tensor) -> Tensor:
    """Spreads each channel's levels so that all are about as frequent, as Pillow's ImageOps.equalize does."""
    levels = images.flatten(2).flatten(0, 1).long()  # [BC, HW]
    counts = torch.zeros(len(levels), 256, dtype=torch.long).scatter_add_(1, levels, torch.ones_like(levels))
    brightest = counts.gather(1, levels.amax(1, keepdim=True))
    step = (levels.shape[1] - brightest) // 255  # [BC, 1]
    table = (counts.cumsum(1) - counts + step // 2) // step.clamp(min=1)
    table = torch.where(step > 0, table.clamp(max=255), torch.arange(256))
    return table.gather(1, levels).to(torch.uint8).view_as(images)


# Those without a function leave the levels as they are: identity, and what `_geometric` does.
_OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor] | None] = {
    "identity": None,
    **dict.fromkeys(_GEOMETRIC),
    "brightness": _brightness,
    "contrast": _contrast,
    "color": _color,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
_NAMES = tuple(_OPERATIONS)
