"""Labelled images in Hugging Face layout: a local folder, a folder of images, or an id on the Hub."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from attnlab.data.corpora import SPLITS, HubCorpus, listed
from attnlab.data.image_corpora import ImageCorpus, ImageSplit, LabelledImages, at_least_one, digest, stratified_order
from attnlab.data.pictures import UnreadablePicture, decode, read
from attnlab.errors import UserError

if TYPE_CHECKING:
    import datasets

_CHUNK = 1_000  # encoded images held beside the decoded ones


class HubImages(ImageCorpus):
    """Images from a data set in Hugging Face layout.

    A folder of images has one sub-folder for each class, within folders train, validation and test or without. Code
    that a data set brings along is never run.

    Args:
        path: a folder (files named after their splits, images in class folders, or what `save_to_disk` wrote), or a
            Hub id.
        image: the column of images.
        label: the column of classes, which are whole numbers or names.
        splits: our split's name -> theirs, or a slice such as `train[:90%]`. Where that is None, it is the split of
            our own name if there is one, and otherwise a share of the training split, stratified by class.
        classes: names of the classes, in the order of their numbers; None for those that the data set names, or else
            those in the training split. Where the data hold names, this orders them.
        limit: keep only so many training images, stratified by class (for learning curves).
        name: the Hub data set's configuration, where it has several.
        validation_share: share of the training split that is held out where there is no validation split.
        test_share: the same for the test split.
        split_seed: draws what is held out or kept.
    """

    def __init__(
        self,
        path: str,
        image: str = "image",
        label: str = "label",
        splits: Mapping[str, str | None] | None = None,
        classes: Sequence[str] | None = None,
        limit: int | None = None,
        name: str | None = None,
        validation_share: float = 0.1,
        test_share: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        if not str(path).strip():
            raise UserError("data.path is empty: give a folder, or a Hub id (owner/name).")
        if image == label:
            raise UserError(f"data.image and data.label both name the column {image!r}: they must be two columns.")
        self.source = HubCorpus(path, image, label, name=name)
        self.folder = Path(path).expanduser()
        self.image, self.label = image, label
        self.splits = {"train": "train", "validation": None, "test": None} | dict(splits or {})
        if unknown := sorted(set(self.splits) - set(SPLITS)):
            raise UserError(f"data.splits names {listed(unknown)}: the splits are {listed(SPLITS)}.")
        self.classes = None if classes is None else [str(name) for name in classes]
        if self.classes is not None and len(set(self.classes)) < max(2, len(self.classes)):
            raise UserError(f"data.classes={self.classes} must be two or more different names.")
        self.limit = at_least_one("limit", limit)
        self.shares = {"validation": validation_share, "test": test_share}
        if not all(0 < share < 1 for share in self.shares.values()) or sum(self.shares.values()) >= 1:
            raise UserError(
                f"data.validation_share={validation_share} and data.test_share={test_share} must be above 0, and "
                "together below 1."
            )
        self.split_seed = split_seed

    def identity(self) -> str | None:
        """The bytes of a local folder's files, or the names of what was downloaded; and what is read of them."""
        files = self.source.identity() or self._downloaded()
        if not files:
            return None
        options = (self.image, self.label, self.splits, self.classes, self.limit, self.shares, self.split_seed)
        return digest(files, *options)

    def load(self, size: int | None = None, on_corrupt: str = "refuse") -> LabelledImages:
        with self.source.reading():
            rows = self._rows
            values = {split: self._values(part, self._where(split)) for split, part in rows.items()}
            classes, known = self._class_values(rows["train"], values["train"])
            labels = {split: self._encode(found, classes, known, split) for split, found in values.items()}
            parts = self._parts(labels)
            decoder = _Decoder(self.folder, self.image, size, on_corrupt)
            decoded = {
                split: decoder.split(rows[origin], chosen, self._where(origin))
                for split, (origin, chosen) in parts.items()
            }
        channels = 3 if any(picture.ndim == 3 for part in decoded.values() for picture in part.pictures) else 1
        splits = {}
        for split, part in decoded.items():
            found = torch.from_numpy(labels[parts[split][0]][part.rows])
            splits[split] = ImageSplit(_stack(part.pictures, channels), found, skipped=part.skipped)
        return LabelledImages(classes, splits)

    def _downloaded(self) -> list[str]:
        """The files that the library keeps of a data set on the Hub; their folders are named after its revision."""
        if self.folder.is_dir():
            return []
        with self.source.reading():
            return sorted({file["filename"] for rows in self._rows.values() for file in rows.cache_files})

    def _where(self, split: str) -> str:
        return f"the split {self.splits[split] or split!r} of {self.source.path}"

    @cached_property
    def _rows(self) -> "dict[str, datasets.Dataset]":
        """Those of our splits that the data set has, checked, with images that are not decoded yet."""
        if self.folder.is_dir() and not any(path.is_file() for path in self.folder.rglob("*")):
            raise UserError(
                f"The folder data.path={self.source.path} holds no file: it needs one sub-folder of images for each "
                "class, or the .parquet files of a data set."
            )
        read_splits = self.source.reader()
        available = read_splits()
        rows = {}
        for ours, theirs in self.splits.items():
            if (theirs or ours) in available:
                rows[ours] = available[theirs or ours]
            elif theirs and "[" in theirs:
                rows[ours] = read_splits(split=theirs)
            elif theirs or ours == "train":
                hint = "" if ours == "train" else ", or hold it out of the training split with null"
                raise UserError(
                    f"{self.source.path} has no split {theirs or ours!r} (for {ours}); it has {listed(available)}. "
                    f"Name another with data.splits.{ours}=...{hint}."
                )
        rows = {split: self._check_columns(part, self._where(split)) for split, part in rows.items()}
        self._check_class_folders(rows["train"])
        return rows

    def _check_columns(self, rows: "datasets.Dataset", where: str) -> "datasets.Dataset":
        """The rows with images left encoded; UserError for a missing column, another type, or no row."""
        import datasets

        for option, column in (("image", self.image), ("label", self.label)):
            if column not in rows.column_names:
                hint = " A folder of images needs a sub-folder for each of its classes, and two or more of them."
                raise UserError(
                    f"There is no column {column!r} in {where}; it has {listed(rows.column_names)}. Name one with "
                    f"data.{option}=...{hint if option == 'label' and self.folder.is_dir() else ''}"
                )
        if not len(rows):
            raise UserError(f"In {where} there is not one row. Fill it, or name another split.")
        try:
            return rows.cast_column(self.image, datasets.Image(decode=False))
        except Exception as error:  # of several types: Arrow and the library both refuse
            raise UserError(
                f"The column {self.image!r} in {where} is of type {rows.features[self.image]}: name a column of images "
                "with data.image=..."
            ) from error

    def _check_class_folders(self, rows: "datasets.Dataset") -> None:
        """UserError for a class folder without images beside those that have some: the library passes it over."""
        import datasets

        feature = rows.features[self.label]
        if not isinstance(feature, datasets.ClassLabel):
            return
        cells = rows.select_columns([self.image]).with_format("arrow")[:].column(self.image).combine_chunks()
        if cells.field("bytes").null_count < len(cells):
            return  # the images are in files of rows
        folders = {Path(path).parent for path in cells.field("path").to_pylist() if path and "://" not in path}
        if not {folder.name for folder in folders} <= set(feature.names):
            return
        beside = {path for folder in folders for path in folder.parent.iterdir() if path.is_dir()}
        for folder in sorted(beside - folders):
            if not folder.name.startswith((".", "_")):
                raise UserError(f"The class folder {folder} holds no image: fill or remove it.")

    def _values(self, rows: "datasets.Dataset", where: str) -> np.ndarray:
        """The column of labels as int64 or strings [N]."""
        import pyarrow as pa

        column = rows.select_columns([self.label]).with_format("arrow")[:].column(self.label)
        kind = column.type
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise UserError(f"Row {row + 1} of {where} has no label in {self.label!r}: mend or remove it.")
        if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            return column.to_numpy().astype(np.int64)
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return np.array(column.to_pylist(), dtype=str)
        raise UserError(
            f"The column {self.label!r} in {where} is of type {kind}: labels must be whole numbers or names. Name "
            "another with data.label=..."
        )

    def _class_values(self, train: "datasets.Dataset", values: np.ndarray) -> tuple[list[str], np.ndarray]:
        """The names of the classes, and the value in the column of labels that stands for each."""
        import datasets

        feature = train.features[self.label]
        if isinstance(feature, datasets.ClassLabel):
            names = self.classes or feature.names
            if unknown := [name for name in names if name not in feature.names]:
                raise UserError(
                    f"data.classes names {listed(unknown)}, which {self.source.path} does not have: its classes are "
                    f"{_shown(feature.names)}."
                )
            return names, np.array([feature.names.index(name) for name in names])
        if values.dtype.kind == "U":
            names = self.classes or sorted(set(values.tolist()))
            return names, np.array(names)
        if self.classes:
            return self.classes, np.arange(len(self.classes))
        found = np.unique(values)
        return [str(value) for value in found], found

    def _encode(self, values: np.ndarray, classes: list[str], known: np.ndarray, split: str) -> np.ndarray:
        """The labels as places in the list of classes, int64 [N]."""
        order = np.argsort(known)
        labels = order[np.searchsorted(known, values, sorter=order).clip(max=len(known) - 1)]
        wrong = np.flatnonzero(known[labels] != values)
        if len(wrong):
            raise UserError(
                f"Row {wrong[0] + 1} of {self._where(split)} has the label {values[wrong[0]]}, which is outside of the "
                f"class list: {_shown(classes)} ({len(wrong)} such rows). Mend the rows, name the classes with "
                f"data.classes=[...], or name another split with data.splits.{split}=..."
            )
        return labels

    def _parts(self, labels: Mapping[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
        """What each split consists of: the split of the data set that it comes from, and rows of that, ascending."""
        order = stratified_order(labels["train"], self.split_seed)
        parts = {}
        start = 0
        for split, share in self.shares.items():
            if split in labels:
                parts[split] = (split, np.arange(len(labels[split])))
            else:
                end = start + max(1, round(share * len(order)))
                parts[split] = ("train", np.sort(order[start:end]))
                start = end
        if start >= len(order):
            raise UserError(f"In {self._where('train')} there are too few rows ({len(order)}) to hold out any of them.")
        parts["train"] = ("train", np.sort(order[start:][: self.limit]))
        return {split: parts[split] for split in SPLITS}


class _Decoded(NamedTuple):
    pictures: list[np.ndarray]  # uint8 [H, W] or [H, W, 3]
    rows: np.ndarray  # int64, the rows that they stand in
    skipped: list[str]


class _Decoder:
    """Decodes the images of a data set's splits, which must all have the size of the first one."""

    def __init__(self, folder: Path, column: str, size: int | None, on_corrupt: str) -> None:
        self.folder = folder
        self.column = column
        self.size = None if size is None else (size, size)
        self.skip = on_corrupt == "skip"
        self.first: tuple[str, tuple[int, ...]] | None = None

    def split(self, rows: "datasets.Dataset", chosen: np.ndarray, where: str) -> _Decoded:
        """The images in the chosen rows."""
        pictures, skipped = [], []
        kept = np.ones(len(chosen), dtype=bool)
        for place, cell in enumerate(self._cells(rows.select(chosen))):
            try:
                picture = np.asarray(decode(self._content(cell), self.size))
            except UnreadablePicture as error:
                name = _name(cell, int(chosen[place]), where)
                if not self.skip:
                    raise UserError(
                        f"{name} cannot be read: {error}. Mend or remove it, or leave out all that cannot be read with "
                        "data.on_corrupt=skip."
                    ) from error
                skipped.append(f"{name}: {error}")
                kept[place] = False
                continue
            if self.first is None or picture.shape[:2] != self.first[1]:
                self._compare(picture, _name(cell, int(chosen[place]), where))
            pictures.append(picture)
        if not pictures:
            raise UserError(f"In {where} not one image can be read; the first is {skipped[0]}. Mend them.")
        return _Decoded(pictures, chosen[kept], skipped)

    def _cells(self, rows: "datasets.Dataset") -> Iterator[dict[str, Any] | None]:
        for chunk in rows.select_columns([self.column]).with_format("arrow").iter(_CHUNK):
            yield from chunk.column(self.column).to_pylist()

    def _content(self, cell: dict[str, Any] | None) -> bytes:
        """The bytes of an image, which are in the data set itself, in a file, or in an archive."""
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            raise UnreadablePicture("the row is empty")
        if cell["bytes"] is not None:
            return cell["bytes"]
        if "://" not in cell["path"]:
            return read(self.folder / cell["path"])
        from datasets.utils.file_utils import xopen

        try:
            with xopen(cell["path"], "rb") as file:
                return file.read()
        except Exception as error:  # of the archive's or the network's library
            raise UnreadablePicture(str(error) or type(error).__name__) from error

    def _compare(self, picture: np.ndarray, name: str) -> None:
        shape = picture.shape[:2]
        if self.first is None:
            self.first = (name, shape)
            return
        first, other = self.first
        raise UserError(
            f"The images differ in size: {first} has {other[1]}x{other[0]} pixels, {name} {shape[1]}x{shape[0]}. "
            "Resize all of them with data.image_size=N."
        )


def _name(cell: dict[str, Any] | None, row: int, where: str) -> str:
    """What to call an image: its file, or its row."""
    path = cell["path"] if cell else None
    if path and cell["bytes"] is None:
        return str(path)
    return f"Row {row + 1} of {where}" + (f" ({path})" if path else "")


def _stack(pictures: list[np.ndarray | None], channels: int) -> Tensor:
    """Pictures of one size, which are given up, as uint8 [N, C, H, W]."""
    images = np.empty((len(pictures), channels, *pictures[0].shape[:2]), dtype=np.uint8)
    for row, picture in enumerate(pictures):
        images[row] = picture if picture.ndim == 2 else picture.transpose(2, 0, 1)
        pictures[row] = None  # so that no more than one copy of all is held
    return torch.from_numpy(images)


def _shown(classes: Sequence[str]) -> str:
    """A list of classes, however long."""
    if len(classes) <= 12:
        return listed(classes)
    return f"{listed(classes[:5])}, ... {classes[-1]} ({len(classes)} classes)"
