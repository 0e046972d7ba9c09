"""Ragged rows of ids, batches of like lengths, and their collation: vectorised numpy up to the tensors."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

from attnlab.data.tokenizers import BOS, EOS, PAD

if TYPE_CHECKING:
    import pyarrow

# Spread of the noise, in tokens, on the difference of a pair's lengths. More mixes better and pads more.
_NOISE = 1.0


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
    def from_arrow(cls, column: "pyarrow.Array | pyarrow.ChunkedArray") -> "Ragged":
        """From a column of lists; int32 values in one chunk are not copied. ValueError if it holds a null."""
        import pyarrow

        if isinstance(column, pyarrow.ChunkedArray):
            if column.num_chunks != 1:
                return cls.concatenate([cls.from_arrow(chunk) for chunk in column.chunks])
            column = column.chunk(0)
        if column.null_count or column.values.null_count:
            raise ValueError("the column holds nulls")
        return cls(column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy())

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


class Batch(NamedTuple):
    """B sentence pairs as int64 tensors, padded with PAD."""

    source: torch.Tensor  # [B, S], EOS last
    target_in: torch.Tensor  # [B, T], BOS first
    target_out: torch.Tensor  # [B, T], EOS last
    index: torch.Tensor  # [B], row numbers in the split


def collate(source: Ragged, target: Ragged, rows: Sequence[int]) -> Batch:
    """The pairs of these row numbers as one batch."""
    index = np.asarray(rows, dtype=np.int64)
    return Batch(
        source=torch.from_numpy(source.padded(index, after=EOS)),
        target_in=torch.from_numpy(target.padded(index, before=BOS)),
        target_out=torch.from_numpy(target.padded(index, after=EOS)),
        index=torch.from_numpy(index),
    )


class TokenBatchSampler(Sampler[list[int]]):
    """Batches of row numbers with like lengths, sized in tokens.

    Neither side of a batch has more than `max_tokens` cells, padding included; a pair longer than that is a
    batch of its own, so every row occurs exactly once in every epoch. Lengths are those of the padded
    tensors, BOS or EOS included.

    Rows are sorted by the longer of their two lengths, and this sorted sequence is cut into batches. The
    cells of a batch's larger side depend on that length only, so the cuts are the same in every epoch: `len`
    never changes. What a shuffled epoch draws anew is which row fills which place, among rows whose longer
    side is equally long (sorted by the difference of the two lengths plus noise, so that the shorter side is
    padded little as well), and the order of the batches. Both depend on the seed and the epoch only. Without
    `shuffle` the order is by length, always the same.
    """

    def __init__(
        self,
        source_lengths: np.ndarray,
        target_lengths: np.ndarray,
        *,
        max_tokens: int,
        max_sentences: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        if max_tokens < 1 or (max_sentences is not None and max_sentences < 1):
            raise ValueError(f"{max_tokens=} and {max_sentences=} must be positive")
        source_lengths, target_lengths = np.asarray(source_lengths), np.asarray(target_lengths)
        if source_lengths.shape != target_lengths.shape:
            raise ValueError(f"{len(source_lengths)} source lengths, but {len(target_lengths)} target lengths")
        self._longer = np.maximum(source_lengths, target_lengths)  # [rows]
        self._difference = (source_lengths - target_lengths).astype(np.float64)  # [rows]
        self._cuts = _cut(np.sort(self._longer), max_tokens, max_sentences)  # [batches + 1]
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch's batches come next (Lightning calls this before each one)."""
        self.epoch = epoch

    @property
    def sampler(self) -> "TokenBatchSampler":
        """Itself: Lightning calls `set_epoch` on a batch sampler's `sampler`, not on the batch sampler."""
        return self

    def __len__(self) -> int:
        return len(self._cuts) - 1

    def __iter__(self) -> Iterator[list[int]]:
        batches = np.arange(len(self))
        difference = self._difference
        if self.shuffle:
            random = np.random.default_rng([self.seed, self.epoch])
            difference = difference + random.normal(scale=_NOISE, size=len(difference))
            random.shuffle(batches)
        order = np.lexsort((difference, self._longer))  # stable: the row number decides between equals
        for batch in batches:
            yield order[self._cuts[batch] : self._cuts[batch + 1]].tolist()


def _cut(lengths: np.ndarray, max_tokens: int, max_sentences: int | None) -> np.ndarray:
    """Where to cut ascending lengths into batches that each hold as many rows as the limits allow.

    int64 [batches + 1], from 0 to the number of rows.
    """
    cuts = [0]
    while (start := cuts[-1]) < len(lengths):
        most = max_tokens // max(int(lengths[start]), 1) or 1
        window = lengths[start : start + min(most, max_sentences or most)]
        cells = window * np.arange(1, len(window) + 1)  # of a batch that ends here; never decreases
        cuts.append(start + max(1, int(np.searchsorted(cells, max_tokens, side="right"))))
    return np.asarray(cuts)
