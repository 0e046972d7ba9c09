"""Cluttered digits: a digit somewhere on a larger canvas among pieces of others, with the box that it stands in."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import interpolate

from attnlab.data.corpora import SPLITS
from attnlab.data.image_corpora import Digits, ImageCorpus, ImageSplit, LabelledImages, at_least_one, digest
from attnlab.errors import UserError

_INK = 32  # of 255: from here on a pixel belongs to a digit


class ClutteredDigits(ImageCorpus):
    """Generated after the cluttered translated MNIST of Mnih et al. 2014 (section 4.1), with scikit-learn's digits.

    Each canvas gets a scan, enlarged smoothly to a random size, at a random place, and pieces cut out of other scans
    (enlarged likewise, so that the strokes match); where they overlap, the brighter pixel stays. Classes are equally
    frequent. A split's digits and pieces come from scans of that split of `Digits` alone, so none is both trained on
    and tested on. The paper has MNIST's digits at one size, on 60x60 pixels with four pieces of 8x8.

    The same arguments give the same images, and the splits do not depend on each other's sizes.

    Args:
        size: width and height of the canvas, in pixels.
        train, validation, test: images in these splits.
        generation_seed: draws everything.
        pieces: pieces on a canvas; they may cover the digit or each other.
        piece_size: width and height of a piece, in pixels.
        scale: the least and the greatest width and height of an enlarged scan, in pixels.
    """

    def __init__(
        self,
        size: int = 60,
        train: int = 20_000,
        validation: int = 1_000,
        test: int = 2_000,
        generation_seed: int = 0,
        pieces: int = 4,
        piece_size: int = 8,
        scale: Sequence[int] = (16, 28),
    ) -> None:
        counts = {"train": train, "validation": validation, "test": test}
        self.counts = {split: at_least_one(split, count) for split, count in counts.items()}
        if len(scale) != 2 or not 1 <= scale[0] <= scale[1] <= size:
            raise UserError(f"data.scale={list(scale)} must be two sizes in ascending order, up to data.size={size}.")
        if pieces < 0 or not 1 <= piece_size <= scale[0]:
            raise UserError(
                f"data.pieces={pieces} must be 0 or more, and data.piece_size={piece_size} between 1 and the smallest "
                f"digit's {scale[0]} (data.scale)."
            )
        self.size = size
        self.seed = generation_seed
        self.pieces = pieces
        self.piece_size = piece_size
        self.scale = (int(scale[0]), int(scale[1]))

    def identity(self) -> str:
        drawn = (self.size, self.counts, self.seed, self.pieces, self.piece_size, self.scale)
        return digest("cluttered_digits", Digits().identity(), torch.__version__, *drawn)

    def load(self, size: int | None = None, on_corrupt: str = "refuse") -> LabelledImages:
        classes, scans = Digits().load()
        return LabelledImages(classes, {split: self._draw(scans[split], split) for split in SPLITS})

    def _draw(self, scans: ImageSplit, split: str) -> ImageSplit:
        random = np.random.default_rng([self.seed, SPLITS.index(split)])
        sizes = range(self.scale[0], self.scale[1] + 1)
        enlarged = {side: enlarge(scans.images, side) for side in sizes}
        inked = {side: ink_boxes(glyphs) for side, glyphs in enlarged.items()}
        count, piece = self.counts[split], self.piece_size

        labels = random.permutation(count) % (int(scans.labels.max()) + 1)
        digits = _one_of_each_class(scans.labels.numpy(), labels, random)
        sides = random.integers(sizes.start, sizes.stop, count)
        corners = random.integers(0, self.size - sides + 1, (2, count)).T  # [N, 2]: left, top
        others = (digits[:, None] + random.integers(1, len(scans), (count, self.pieces))) % len(scans)  # never itself
        other_sides = random.integers(sizes.start, sizes.stop, (count, self.pieces))
        windows = random.random((count, self.pieces, 2))  # where in the other digit, from 0 to 1
        places = random.integers(0, self.size - piece + 1, (count, self.pieces, 2))

        images = np.zeros((count, 1, self.size, self.size), dtype=np.uint8)
        boxes = np.empty((count, 4), dtype=np.float32)
        for row in range(count):
            canvas, side, (left, top) = images[row, 0], sides[row], corners[row]
            canvas[top : top + side, left : left + side] = enlarged[side][digits[row]]
            boxes[row] = inked[side][digits[row]] + (left, top, left, top)
            for number in range(self.pieces):
                other, of = others[row, number], other_sides[row, number]
                x, y = _corner(inked[of][other], windows[row, number], piece, of)
                left, top = places[row, number]
                below = canvas[top : top + piece, left : left + piece]
                np.maximum(below, enlarged[of][other, y : y + piece, x : x + piece], out=below)
        return ImageSplit(torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(boxes))


def enlarge(images: torch.Tensor, side: int) -> np.ndarray:
    """Grey images, uint8 [N, 1, H, W], at `side` x `side` pixels by bicubic interpolation: uint8 [N, side, side]."""
    smooth = interpolate(images.float(), (side, side), mode="bicubic", align_corners=False)
    return smooth.round_().clamp_(0, 255).to(torch.uint8)[:, 0].numpy()


def ink_boxes(glyphs: np.ndarray) -> np.ndarray:
    """The tight box around each image's ink: uint8 [N, H, W] to int64 [N, 4], left, top, right, bottom."""
    ink = glyphs >= _INK
    edges = []
    for axis in (1, 2):
        line = ink.any(axis)  # [N, W], then [N, H]
        edges.append((line.argmax(1), line.shape[1] - line[:, ::-1].argmax(1)))
    (left, right), (top, bottom) = edges
    return np.stack([left, top, right, bottom], axis=1)


def _one_of_each_class(known: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """For each label a random row of those that are known to have it."""
    by_class = np.argsort(known, kind="stable")
    counts = np.bincount(known)
    starts = np.cumsum(counts) - counts
    return by_class[starts[labels] + (random.random(len(labels)) * counts[labels]).astype(np.int64)]


def _corner(box: np.ndarray, share: np.ndarray, piece: int, side: int) -> tuple[int, int]:
    """The left and top of a piece of a digit: within the box of its ink, as far as the piece fits into that."""
    left, top, right, bottom = box.tolist()
    x = left + int(share[0] * (max(right - left - piece, 0) + 1))
    y = top + int(share[1] * (max(bottom - top - piece, 0) + 1))
    return min(x, side - piece), min(y, side - piece)
