"""Rows of unlike lengths in two arrays, in plain numpy."""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from attnlab.data.tokenizers import PAD


class Ragged:
    """Rows of unlike lengths in two arrays: row i is `values[offsets[i]:offsets[i + 1]]`.

    `values` int32 [N], `offsets` int64 [rows + 1].
    """

    def __init__(self, values: np.ndarray, offsets: np.ndarray) -> None:
        self.values = np.ascontiguousarray(values, dtype=np.int32)
        self.offsets = np.ascontiguousarray(offsets, dtype=np.int64)
        if self.offsets.ndim != 1 or not len(self.offsets):
            raise ValueError("offsets must be one-dimensional and start with the first row's start")

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[int]]) -> "Ragged":
        rows = list(rows)
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)), out=offsets[1:])
        values = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(offsets[-1]))
        return cls(values, offsets)

    @classmethod
    def concatenate(cls, parts: Sequence["Ragged"]) -> "Ragged":
        lengths = [part.lengths for part in parts]
        offsets = np.concatenate([[0], *lengths]).cumsum() if parts else np.zeros(1)
        values = [part.values[part.offsets[0] : part.offsets[-1]] for part in parts]
        return cls(np.concatenate(values) if parts else np.zeros(0), offsets)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [rows]"""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        """A view of one row, int32 [length]."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def take(self, rows: np.ndarray) -> "Ragged":
        """The rows of these indices, in this order, as a copy."""
        starts, lengths = self.offsets[:-1][rows], self.lengths[rows]
        offsets = np.concatenate([[0], lengths.cumsum()])
        return Ragged(self.values[np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)], offsets)

    def padded(self, rows: np.ndarray, *, before: int | None = None, after: int | None = None) -> np.ndarray:
        """Rows as int64 [rows, longest], filled with PAD; `before` and `after` are ids to add to each row."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
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
