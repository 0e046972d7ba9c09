"""Batches of like lengths and their collation: vectorised numpy up to the tensors."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

from attnlab.data.ragged import Ragged
from attnlab.data.tokenizers import BOS, EOS
from attnlab.errors import UserError

if TYPE_CHECKING:
    import pytorch_lightning as pl

# Spread of the noise, in tokens, on the difference of a pair's lengths. More mixes better and pads more.
_NOISE = 1.0


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


class Part(NamedTuple):
    """What is one process's of several that share the work: every `world`-th item, from the `rank`-th on."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of(cls, trainer: "pl.Trainer | None") -> "Part":
        """The part of this process of Lightning's trainer; all of it where there is none."""
        return cls() if trainer is None else cls(trainer.global_rank, trainer.world_size)

    def take(self, items: Any) -> Any:
        """Its items of a sequence or an array."""
        return items[self.rank :: self.world]

    def rows(self, count: int) -> range:
        """Its row numbers of so many; UserError where they are too few for each process to have one."""
        if count < self.world > 1:
            raise UserError(
                f"A split of {count} examples cannot be shared by {self.world} processes: give it more, or train with "
                "fewer processes (trainer.devices)."
            )
        rows: range = self.take(range(count))
        return rows


ALL = Part()
"""What is one process's where there is no other."""


class SharedBatches(Sampler[list[int]]):
    """One process's parts of the batches of a sampler, which is the same in every process.

    There are as many as there are batches, so that all processes take the same steps. A batch of fewer rows than there
    are processes is given whole to each of them: no row weighs more than another then either.

    Args:
        batches: of row numbers; has a `sampler` that is told the epoch, as Lightning expects of a batch sampler.
        part: which is this process's.
    """

    def __init__(self, batches: Any, part: Part) -> None:
        self.batches = batches
        self.part = part

    @property
    def sampler(self) -> Any:
        return self.batches.sampler

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            yield self.part.take(batch) if len(batch) >= self.part.world else batch


class Resumable(Sampler[list[int]]):
    """The batches of a sampler, of which the next pass leaves out the first `skip`, once.

    Args:
        batches: of row numbers; has a `sampler` that is told the epoch, as Lightning expects of a batch sampler.
    """

    def __init__(self, batches: Any) -> None:
        self.batches = batches
        self.skip = 0

    @property
    def sampler(self) -> Any:
        return self.batches.sampler

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        first, self.skip = self.skip, 0
        yield from islice(self.batches, first, None)


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
