"""Rows of unlike lengths in one array, in memory or on disk, in plain numpy."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from attnlab.data.tokenizers import PAD

_FORMATS = {"values": "<i4", "offsets": "<i8"}  # of the two files of a Ragged


class Ragged:
    """Rows of unlike lengths in one array: row i is `values[starts[i]:ends[i]]`.

    `values` int32 [N], `starts` and `ends` int64 [rows].
    """

    def __init__(self, values: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        self.values = np.ascontiguousarray(values, dtype=np.int32)
        self.starts = np.ascontiguousarray(starts, dtype=np.int64)
        self.ends = np.ascontiguousarray(ends, dtype=np.int64)
        if self.starts.ndim != 1 or self.starts.shape != self.ends.shape:
            raise ValueError("starts and ends must be one-dimensional and equally long")

    @classmethod
    def from_lengths(cls, values: np.ndarray, lengths: np.ndarray) -> "Ragged":
        """Rows that follow one another."""
        ends = np.cumsum(lengths, dtype=np.int64)
        return cls(values, ends - lengths, ends)

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[int]]) -> "Ragged":
        rows = list(rows)
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        values = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(lengths.sum()))
        return cls.from_lengths(values, lengths)

    @classmethod
    def concatenate(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """The rows of parts in each of which rows follow one another from its first value to its last."""
        if not parts:
            return cls.from_lists([])
        return cls.from_lengths(
            np.concatenate([part.values for part in parts]), np.concatenate([part.lengths for part in parts])
        )

    @classmethod
    def open(cls, stem: Path) -> "Ragged":
        """What a `RaggedWriter` wrote, left on disk and mapped into memory; an error if it is damaged."""
        values, offsets = (np.load(f"{stem}.{part}.npy", mmap_mode="r") for part in _FORMATS)
        if not len(offsets) or offsets[-1] != len(values):
            raise ValueError(f"{stem} holds {len(values)} values, not as many as its rows")
        return cls(values, offsets[:-1], offsets[1:])

    @property
    def lengths(self) -> np.ndarray:
        """int64 [rows]"""
        return self.ends - self.starts

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> np.ndarray:
        """A view of one row, int32 [length]."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self.values[self.starts[row] : self.ends[row]]

    def take(self, rows: np.ndarray) -> "Ragged":
        """The rows of these indices, in this order, of the same `values`."""
        return Ragged(self.values, self.starts[rows], self.ends[rows])

    def padded(self, rows: np.ndarray, *, before: int | None = None, after: int | None = None) -> np.ndarray:
        """Rows as int64 [rows, longest], filled with PAD; `before` and `after` are ids to add to each row."""
        starts = self.starts[rows]
        lengths = self.ends[rows] - starts
        shift = int(before is not None)
        width = int(lengths.max(initial=0)) + shift + int(after is not None)
        columns = np.arange(width) - shift  # [width]; -1 is the place of `before`
        inside = (columns >= 0) & (columns < lengths[:, None])  # [rows, width]
        table = np.full(inside.shape, PAD, dtype=np.int64)
        table[inside] = self.values[(starts[:, None] + columns)[inside]]
        if before is not None:
            table[:, 0] = before
        if after is not None:
            table[np.arange(len(rows)), lengths + shift] = after
        return table


class RaggedWriter:
    """Writes rows to STEM.values.npy and STEM.offsets.npy part by part, so that no more than a part is in memory."""

    def __init__(self, stem: Path) -> None:
        self._files: dict[str, IO[bytes]] = {part: open(f"{stem}.{part}.npy", "xb") for part in _FORMATS}  # noqa: SIM115
        self._counts = dict.fromkeys(_FORMATS, 0)
        for part in _FORMATS:
            self._write_header(part)
        self._append("offsets", np.zeros(1, dtype=np.int64))

    def append(self, part: Ragged) -> None:
        """Adds rows that follow one another from the first value to the last."""
        self._append("offsets", self._counts["values"] + part.ends)
        self._append("values", part.values)

    def _append(self, part: str, array: np.ndarray) -> None:
        self._files[part].write(np.asarray(array, dtype=_FORMATS[part]).data)
        self._counts[part] += len(array)

    def _write_header(self, part: str) -> None:
        """At the start of the file; numpy leaves room for the largest number, so it can be written again."""
        described = {"descr": _FORMATS[part], "fortran_order": False, "shape": (self._counts[part],)}
        self._files[part].seek(0)
        np.lib.format.write_array_header_1_0(self._files[part], described)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for part in _FORMATS:
                    self._write_header(part)
        finally:
            for file in self._files.values():
                file.close()
