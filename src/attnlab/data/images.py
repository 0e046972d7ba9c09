"""Labelled images for training and scoring: corpus -> decoded once -> augmented, normalised batches."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Sampler, SequentialSampler

from attnlab.data.augment import Augmentation
from attnlab.data.batching import ALL, Part, Resumable, SharedBatches
from attnlab.data.clutter import ClutteredDigits
from attnlab.data.hub_images import HubImages
from attnlab.data.image_corpora import Digits, ImageCorpus, ImageSplit, at_least_one, load_images
from attnlab.data.pictures import UnreadablePicture, decode, pixels, read
from attnlab.errors import UserError

logger = logging.getLogger(__name__)

_ON_CORRUPT = ("refuse", "skip")
_NAMED = 3  # skipped images that a warning names


class ImageBatch(NamedTuple):
    """B labelled images."""

    images: Tensor  # float32 [B, C, H, W], normalised by the training split's mean and standard deviation a channel
    labels: Tensor  # int64 [B]
    partners: Tensor  # int64 [B]: with mixup the label of the image that was mixed in, else the label itself
    shares: Tensor  # float32 [B]: the share of the label, 1 without mixup; the partner has the rest
    index: Tensor  # int64 [B], row numbers in the split


class EpochSampler(Sampler[int]):
    """Row numbers in an order that depends on the seed and the epoch only."""

    def __init__(self, rows: int, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch's order comes next (Lightning calls this before each one)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng([self.seed, self.epoch]).permutation(self.rows).tolist())


class ImageData(pl.LightningDataModule):
    """A corpus of labelled images, decoded once and served in batches.

    Args:
        corpus: see `attnlab.data.image_corpora`.
        batch_size: images of a training batch.
        eval_batch_size: the same, for validation and test; by default as many.
        augment: options of `attnlab.data.augment.Augmentation`, for training batches; what is not named is off.
        seed: of the order in which training images come.
        on_corrupt: `refuse` or `skip` images that cannot be read; what is skipped is named in the log and counted.
        size: resize to so many pixels a side; None where all images have one size.

    After `prepare()`: `splits` (train, validation, test), `classes` (their names), `channels` (1 if every image is
    grey, else 3), `height`, `width`, and the training split's `mean` and `std`, float32 [C] of pixels in [0, 1].
    Of several processes each is given its part of every training batch and of the validation split.
    """

    def __init__(
        self,
        corpus: ImageCorpus,
        *,
        batch_size: int = 128,
        eval_batch_size: int | None = None,
        augment: Mapping[str, Any] | None = None,
        seed: int = 0,
        on_corrupt: str = "refuse",
        size: int | None = None,
    ) -> None:
        super().__init__()
        if on_corrupt not in _ON_CORRUPT:
            raise UserError(f"data.on_corrupt={on_corrupt} must be one of {', '.join(_ON_CORRUPT)}.")
        self.corpus = corpus
        self.batch_size = at_least_one("batch_size", batch_size)
        self.eval_batch_size = at_least_one("eval_batch_size", eval_batch_size) or batch_size
        self.augmentation = Augmentation.from_options(augment)
        self.seed = seed
        self.on_corrupt = on_corrupt
        self.size = at_least_one("image_size", size)
        self.splits: dict[str, ImageSplit] = {}
        self.classes: list[str] = []
        self.channels = self.height = self.width = 0
        self.mean = self.std = torch.empty(0)
        self._kept: Mapping[str, Any] | None = None

    def use_state(self, state: Mapping[str, Any]) -> None:
        """Serve images as the model of a run expects them: with its size, classes and statistics, of its `state()`."""
        if self.splits:
            raise RuntimeError("the images are read already: give the state before prepare()")
        self._kept = state
        self.size = state["size"] if self.size is None else self.size

    def prepare(self) -> None:
        """Load, decode and check the corpus, and measure its training split; once."""
        if self.splits:
            return
        self.classes, splits = load_images(self.corpus, self.size, self.on_corrupt)
        if self.size is not None:
            splits = {name: split.resized(self.size) for name, split in splits.items()}
        _check_classes(self.classes, splits["train"].labels)
        for name, split in splits.items():
            if split.skipped:
                named = "; ".join(split.skipped[:_NAMED]) + ("; ..." if len(split.skipped) > _NAMED else "")
                logger.warning("%d images of the split %s are left out: %s", len(split.skipped), name, named)
        self.channels, self.height, self.width = splits["train"].images.shape[1:]
        if self._kept is None:
            self.mean, self.std = channel_statistics(splits["train"].images)
        else:
            self._check_kept(self._kept)
            self.mean, self.std = (torch.tensor(self._kept[name]) for name in ("mean", "std"))
        self.splits = splits

    def _check_kept(self, state: Mapping[str, Any]) -> None:
        """UserError unless these images can be given to the model of a run."""
        for name in ("classes", "channels", "height", "width"):
            if getattr(self, name) != state[name]:
                raise UserError(
                    f"The run was trained on images of {name} {state[name]}, and these have {getattr(self, name)}; "
                    "give data.image_size=N or data.classes=[...], or another corpus."
                )

    def prepare_split(self, split: str) -> None:
        """Load the corpus and keep one split, for scoring."""
        self.prepare()
        self.splits = {split: self._split(split)}

    def setup(self, stage: str | None = None) -> None:
        """Lightning's hook: the same as `prepare()`."""
        self.prepare()

    def train_dataloader(self) -> DataLoader[ImageBatch]:
        return self.loader("train", shuffle=True, part=Part.of(self.trainer))

    def val_dataloader(self) -> DataLoader[ImageBatch]:
        return self.loader("validation", part=Part.of(self.trainer))

    def test_dataloader(self) -> DataLoader[ImageBatch]:
        return self.loader("test")

    def loader(self, split: str, *, shuffle: bool = False, part: Part = ALL) -> DataLoader[ImageBatch]:
        """Batches of one split: in its order and as they are, or with `shuffle` drawn anew for each epoch (Lightning
        calls `set_epoch`), augmented and mixed.

        Of several processes each has a part of every batch with `shuffle`, else of the split.
        """
        data = self._split(split)
        rows = (ALL if shuffle else part).rows(len(data))  # row numbers: whole batches are gathered at once
        sampler = EpochSampler(len(rows), self.seed) if shuffle else SequentialSampler(rows)
        batches = BatchSampler(sampler, self.batch_size if shuffle else self.eval_batch_size, drop_last=False)
        gather = partial(self._augmented if shuffle else self._plain, data)
        return DataLoader(
            rows,
            batch_sampler=SharedBatches(batches, part) if shuffle and part.world > 1 else Resumable(batches),
            collate_fn=gather,
            generator=torch.Generator(),  # of its own, so that an epoch draws the same whenever its loader is opened
        )

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W] to float32 with the training split's mean 0 and standard deviation 1 a channel."""
        return _normalize(images, self.mean, self.std)

    def summary(self) -> dict[str, float | int]:
        """Numbers for a run's log."""
        self._split("train")
        numbers: dict[str, float | int] = {f"{name}/images": len(split) for name, split in self.splits.items()}
        numbers |= {f"{name}/skipped": len(split.skipped) for name, split in self.splits.items()}
        numbers |= {"classes": len(self.classes), "channels": self.channels}
        return numbers | {"height": self.height, "width": self.width}

    def state(self) -> dict[str, Any]:
        """What it takes to read and to classify a picture without the data, in primitives: see `read_image`."""
        self._split("train")
        return {
            "classes": list(self.classes),
            "channels": self.channels,
            "height": self.height,
            "width": self.width,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "size": self.size,
        }

    def batch(self, split: str, rows: Sequence[int]) -> ImageBatch:
        """The given rows of a split, as they are."""
        return self._plain(self._split(split), list(rows))

    def _plain(self, split: ImageSplit, rows: Sequence[int]) -> ImageBatch:
        index = torch.tensor(rows)
        labels = split.labels[index]
        return ImageBatch(self.normalize(split.images[index]), labels, labels, torch.ones(len(labels)), index)

    def _augmented(self, split: ImageSplit, rows: Sequence[int]) -> ImageBatch:
        index = torch.tensor(rows)
        labels = split.labels[index]
        images = self.normalize(self.augmentation(split.images[index]))
        images, partners, shares = self.augmentation.mix(images, labels)
        return ImageBatch(images, labels, partners, shares, index)

    def _split(self, name: str) -> ImageSplit:
        if not self.splits:
            raise RuntimeError("the data are not prepared: call prepare() first")
        if name not in self.splits:
            raise UserError(f"There is no split {name!r}: choose one of {', '.join(self.splits)}.")
        return self.splits[name]


def read_image(path: str | Path, state: Mapping[str, Any]) -> Tensor:
    """A picture of any size, mode or bit depth as a model's input: float32 [1, C, H, W].

    Args:
        path: an image file that Pillow reads.
        state: what `ImageData.state` gave for the data that the model was trained on.

    Raises:
        UserError: if the file is missing, damaged or no picture.
    """
    try:
        picture = decode(read(Path(path).expanduser()), (state["width"], state["height"]))
    except UnreadablePicture as error:
        raise UserError(f"The picture {path} cannot be read: {error}. Give another file.") from error
    images = torch.from_numpy(pixels(picture, state["channels"]).copy())[None]
    return _normalize(images, torch.tensor(state["mean"]), torch.tensor(state["std"]))


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel's pixels, taken to lie in [0, 1].

    A channel without any variation gets the standard deviation 1.

    Args:
        images: uint8 [N, C, H, W].

    Returns:
        float32 [C] each.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.zeros(images.shape[1], 256, dtype=torch.long)  # exact, and in no need of floats of all pixels
    for part in images.split(1_000):
        for channel, count in enumerate(counts):
            count += part[:, channel].flatten().bincount(minlength=256)
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = shares @ levels
    std = (shares * (levels - mean[:, None]) ** 2).sum(1).sqrt()
    return mean.float(), torch.where(std > 0, std, 1.0).float()


def digits(
    *, validation: int = 300, test: int = 300, split_seed: int = 0, image_size: int | None = None, **options: Any
) -> ImageData:
    """scikit-learn's digits (`image_corpora.Digits`) as data; the other options are `ImageData`'s."""
    return ImageData(Digits(validation, test, split_seed), size=image_size, **options)


def cluttered_digits(
    *, size: int = 60, train: int = 20_000, validation: int = 1_000, test: int = 2_000, generation_seed: int = 0,
    pieces: int = 4, piece_size: int = 8, scale: Sequence[int] = (16, 28), **options: Any,
) -> ImageData:  # fmt: skip
    """Digits among pieces of others (`clutter.ClutteredDigits`) as data; the other options are `ImageData`'s."""
    corpus = ClutteredDigits(size, train, validation, test, generation_seed, pieces, piece_size, scale)
    return ImageData(corpus, **options)


def hub(
    *, path: str, image: str = "image", label: str = "label", splits: Mapping[str, str | None] | None = None,
    classes: Sequence[str] | None = None, limit: int | None = None, name: str | None = None,
    validation_share: float = 0.1, test_share: float = 0.1, split_seed: int = 0, image_size: int | None = None,
    **options: Any,
) -> ImageData:  # fmt: skip
    """Images in Hugging Face layout (`hub_images.HubImages`) as data; the other options are `ImageData`'s."""
    corpus = HubImages(
        path, image, label, splits, classes, limit, name, validation_share, test_share, split_seed
    )  # fmt: skip
    return ImageData(corpus, size=image_size, **options)


def _normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 [B, C, H, W], and float32 [C] of pixels in [0, 1]."""
    scale = (1 / (255 * std)).to(images.device).view(-1, 1, 1)
    shift = (mean / std).to(images.device).view(-1, 1, 1)
    return (images * scale).sub_(shift)


def _check_classes(classes: Sequence[str], labels: Tensor) -> None:
    """UserError where there is nothing to tell apart, or a class to learn of which nothing is shown."""
    if len(classes) < 2:
        raise UserError(f"All images are of one class, {', '.join(classes)}: two or more are needed.")
    counts = torch.bincount(labels, minlength=len(classes))
    if missing := [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]:
        raise UserError(
            f"The training split has no image of the class {', '.join(missing)}: add some, use more of the training "
            "images there are (data.train or data.limit), or name the classes with data.classes=[...]."
        )
