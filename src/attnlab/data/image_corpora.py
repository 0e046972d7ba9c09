"""Where labelled images come from, and scikit-learn's digits as the nearest; decoded once, and kept.

A corpus gives the splits train, validation and test as `ImageSplit`s. What was decoded stays in the user's cache,
keyed by content, and is mapped into memory from there.
"""

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from attnlab.data.corpora import cache_folder
from attnlab.data.prepare import alone
from attnlab.errors import UserError
from attnlab.files import replacing, write_json

_CHUNK = 1_000  # images held in two forms at a time


@dataclass(frozen=True)
class ImageSplit:
    """N labelled images.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N], places in the list of classes.
        boxes: float32 [N, 4], where the labelled object is: left, top, right, bottom in pixels from the upper left
            corner, so that right - left is its width; None if that is not known.
        skipped: what was left out since it could not be read, by name, each with the reason.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor | None = None
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)

    def resized(self, size: int) -> "ImageSplit":
        """The images at `size` x `size` pixels, antialiased, and their boxes."""
        height, width = self.images.shape[-2:]
        if (height, width) == (size, size):
            return self
        parts = (
            interpolate(part.float(), (size, size), mode="bilinear", antialias=True).round_().to(torch.uint8)
            for part in self.images.split(_CHUNK)
        )
        boxes = None if self.boxes is None else self.boxes * torch.tensor([size / width, size / height] * 2)
        return replace(self, images=torch.cat([*parts]), boxes=boxes)


class LabelledImages(NamedTuple):
    """The names of the classes, and the splits train, validation and test."""

    classes: list[str]
    splits: dict[str, ImageSplit]


class ImageCorpus(ABC):
    """Labelled images in three splits."""

    @abstractmethod
    def load(self, size: int | None = None, on_corrupt: str = "refuse") -> LabelledImages:
        """The splits, decoded.

        Args:
            size: width and height in pixels that encoded images are resized to; a corpus that makes its images itself
                may leave them as they are.
            on_corrupt: `refuse` or `skip` images that cannot be read.

        Raises:
            UserError: for what the user can mend.
        """

    def identity(self) -> str | None:
        """A digest of all that the splits are made from, known without decoding; None if it cannot be known."""
        return None


def load_images(corpus: ImageCorpus, size: int | None = None, on_corrupt: str = "refuse") -> LabelledImages:
    """`corpus.load(...)`, from the cache where it is there; the images then stay on disk, mapped into memory."""
    identity = corpus.identity()
    if identity is None:
        return corpus.load(size, on_corrupt)
    key = hashlib.sha256(json.dumps([identity, size, on_corrupt, version("pillow")]).encode())
    for module in ("image_corpora", "hub_images", "pictures", "clutter"):
        key.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    folder = cache_folder() / f"images-{key.hexdigest()[:16]}"
    with alone(folder):  # of two processes that want the same, one works and the other waits
        if folder.is_dir():
            with contextlib.suppress(Exception):  # a damaged copy is made anew
                return _read(folder)
        images = corpus.load(size, on_corrupt)
        with contextlib.suppress(OSError, UserError):  # a cache that cannot be written is done without
            _write(folder, images)
            return _read(folder)
    return images


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Row numbers in a random order, every stretch of which has the classes in their proportions, up to one image.

    int64 [N], places in the list of classes, to int64 [N].
    """
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    ranks = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)  # of a row in its class
    places = (ranks + 0.5) / np.repeat(counts, counts)
    return by_class[np.lexsort((random.random(len(labels)), places))]


class Digits(ImageCorpus):
    """The 1,797 scans of handwritten digits that come with scikit-learn: 8x8 pixels, 17 grey levels, ten classes.

    They are the test half of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998), by 13
    writers who are not told apart, and come in one piece: drawn by `split_seed`, stratified by class, `test` and
    `validation` scans are held out, which leaves 1,197 for training at the defaults. The same writers are thus in all
    splits, so results cannot be compared with those on UCI's own split.
    """

    def __init__(self, validation: int = 300, test: int = 300, split_seed: int = 0) -> None:
        self.validation = at_least_one("validation", validation)
        self.test = at_least_one("test", test)
        self.split_seed = split_seed

    def load(self, size: int | None = None, on_corrupt: str = "refuse") -> LabelledImages:
        from sklearn.datasets import load_digits

        scans = load_digits()
        images = torch.from_numpy((scans.images * 255 / 16).round().astype(np.uint8))[:, None]
        labels = scans.target.astype(np.int64)
        held_out = self.validation + self.test
        if held_out >= len(labels):
            raise UserError(
                f"data.validation={self.validation} and data.test={self.test} leave no training image: there are "
                f"{len(labels)} scans in all."
            )
        order = stratified_order(labels, self.split_seed)
        rows = {"train": order[held_out:], "validation": order[self.test : held_out], "test": order[: self.test]}
        splits = {
            name: ImageSplit(images[np.sort(chosen)], torch.from_numpy(labels[np.sort(chosen)]))
            for name, chosen in rows.items()
        }
        return LabelledImages([str(name) for name in scans.target_names], splits)

    def identity(self) -> str:
        return digest("digits", version("scikit-learn"), self.validation, self.test, self.split_seed)


def at_least_one(name: str, value: int | None) -> int | None:
    """The value, or a UserError that names the option."""
    if value is not None and value < 1:
        raise UserError(f"data.{name}={value} must be 1 or more.")
    return value


def digest(*parts: Any) -> str:
    """A short name for content."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _write(folder: Path, images: LabelledImages) -> None:
    with replacing(folder) as whole:
        skipped = {name: split.skipped for name, split in images.splits.items()}
        write_json(whole / "corpus.json", {"classes": images.classes, "skipped": skipped})
        for name, split in images.splits.items():
            for part in ("images", "labels", "boxes"):
                if (values := getattr(split, part)) is not None:
                    np.save(whole / f"{name}.{part}.npy", values.numpy())


def _read(folder: Path) -> LabelledImages:
    """What `_write` left; the images stay on disk, mapped into memory."""
    corpus = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    splits = {}
    for name, skipped in corpus["skipped"].items():
        parts = {
            part: torch.from_numpy(np.load(path, mmap_mode="c"))  # copy on write, since torch knows no read-only memory
            for part in ("images", "labels", "boxes")
            if (path := folder / f"{name}.{part}.npy").is_file()
        }
        splits[name] = ImageSplit(**parts, skipped=skipped)
    return LabelledImages(corpus["classes"], splits)
