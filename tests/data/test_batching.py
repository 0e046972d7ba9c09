import numpy as np
import pytest
import torch

from attnlab.data.batching import Part, SharedBatches, TokenBatchSampler, collate
from attnlab.data.ragged import Ragged, RaggedWriter
from attnlab.data.tokenizers import BOS, EOS, PAD
from attnlab.errors import UserError

ROWS = [[5, 6, 7], [], [8], [9, 10]]


def lengths(rows=3000, seed=0):
    """Source and target lengths that go together, as those of translations do."""
    random = np.random.default_rng(seed)
    source = np.clip(random.normal(13, 4, rows).round().astype(int), 1, None)
    return source, np.clip(source + random.normal(0, 2, rows).round().astype(int), 1, None)


def sampler(source, target, **options):
    return TokenBatchSampler(source, target, **({"max_tokens": 500, "max_sentences": None} | options))


def batches_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def test_ragged_rows():
    ragged = Ragged.from_lists(ROWS)
    assert len(ragged) == 4
    assert [row.tolist() for row in ragged] == ROWS
    assert ragged[-1].tolist() == [9, 10]
    assert ragged.lengths.tolist() == [3, 0, 1, 2]
    assert (ragged.values.dtype, ragged.starts.dtype, ragged.ends.dtype) == (np.int32, np.int64, np.int64)
    assert np.shares_memory(ragged[0], ragged.values)
    for row in (4, -5):
        with pytest.raises(IndexError):
            ragged[row]
    assert [row.tolist() for row in ragged.take(np.array([3, 1, 0]))] == [[9, 10], [], [5, 6, 7]]
    assert len(ragged.take(np.array([], dtype=int))) == len(Ragged.from_lists([])) == 0
    taken = ragged.take(np.array([3, 1, 0]))
    assert taken.values is ragged.values
    assert taken.take(np.array([0, 2])).padded(np.array([1, 0]), after=EOS).tolist() == [
        [5, 6, 7, EOS],
        [9, 10, EOS, PAD],
    ]


def test_rows_written_part_by_part_are_those_that_were_given(tmp_path):
    stem = tmp_path / "train.source"
    parts = [ROWS, [], [[1]], [[]], [list(range(70_000))]]
    with RaggedWriter(stem) as writer:
        for part in parts:
            writer.append(Ragged.from_lists(part))
    ragged = Ragged.open(stem)
    assert isinstance(ragged.values.base, np.memmap)
    assert [row.tolist() for row in ragged] == [row for part in parts for row in part]
    assert ragged.padded(np.array([4, 2])).tolist() == [[1], [8]]
    assert np.array_equal(np.load(f"{stem}.values.npy"), ragged.values)
    with RaggedWriter(tmp_path / "empty"):
        pass
    assert len(Ragged.open(tmp_path / "empty")) == 0


def test_a_file_of_rows_that_was_cut_off_is_refused(tmp_path):
    with RaggedWriter(tmp_path / "cut") as writer:
        writer.append(Ragged.from_lists(ROWS))
    values = tmp_path / "cut.values.npy"
    values.write_bytes(values.read_bytes()[:-4])
    with pytest.raises(ValueError, match="mmap"):
        Ragged.open(tmp_path / "cut")
    with RaggedWriter(tmp_path / "mixed") as writer:
        writer.append(Ragged.from_lists(ROWS[:1]))
    (tmp_path / "cut.offsets.npy").replace(tmp_path / "mixed.offsets.npy")
    with pytest.raises(ValueError, match="not as many"):
        Ragged.open(tmp_path / "mixed")


def test_ragged_concatenation_of_parts():
    parts = [Ragged.from_lists(ROWS), Ragged.from_lists([]), Ragged.from_lists([[1]])]
    assert [row.tolist() for row in Ragged.concatenate(parts)] == [*ROWS, [1]]
    assert len(Ragged.concatenate([])) == 0


def test_collate():
    source, target = Ragged.from_lists(ROWS), Ragged.from_lists([[4], [4, 5], [], [6]])
    batch = collate(source, target, [2, 0, 1])
    assert batch.source.tolist() == [[8, EOS, PAD, PAD], [5, 6, 7, EOS], [EOS, PAD, PAD, PAD]]
    assert batch.target_in.tolist() == [[BOS, PAD, PAD], [BOS, 4, PAD], [BOS, 4, 5]]
    assert batch.target_out.tolist() == [[EOS, PAD, PAD], [4, EOS, PAD], [4, 5, EOS]]
    assert batch.index.tolist() == [2, 0, 1]
    assert all(tensor.dtype == torch.int64 for tensor in batch)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("limits", [{}, {"max_sentences": 16}, {"max_tokens": 60}, {"max_tokens": 10**6}])
def test_each_row_once_within_the_limits(shuffle, limits):
    source, target = lengths()
    source[7] = target[11] = 900  # longer than most limits
    it = sampler(source, target, shuffle=shuffle, **limits)
    most = {"max_tokens": 500, "max_sentences": None} | limits
    for epoch in range(3):
        batches = batches_of(it, epoch)
        assert len(batches) == len(it)
        assert sorted(row for batch in batches for row in batch) == list(range(len(source)))
        for batch in batches:
            assert len(batch) <= (most["max_sentences"] or len(source))
            cells = len(batch) * max(source[batch].max(), target[batch].max())
            assert len(batch) == 1 or cells <= most["max_tokens"]


def test_batches_are_as_full_as_the_limits_allow():
    it = sampler(np.full(100, 10), np.full(100, 8), max_tokens=200)
    assert [len(batch) for batch in it] == [20] * 5
    it = sampler(np.full(100, 10), np.full(100, 8), max_tokens=200, max_sentences=15)
    assert [len(batch) for batch in it] == [15] * 6 + [10]
    assert list(sampler([], [])) == []


def test_epochs_differ_and_depend_on_seed_and_epoch_only():
    source, target = lengths()
    it = sampler(source, target, shuffle=True, seed=1)
    first, second = batches_of(it, 0), batches_of(it, 1)
    assert batches_of(it, 0) == first
    assert batches_of(sampler(source, target, shuffle=True, seed=1), 1) == second
    assert batches_of(sampler(source, target, shuffle=True, seed=2), 0) != first
    # Not only the order of the batches changes, but who is in a batch with whom: how many of a batch's rows
    # share their batch of the next epoch, when all of them would if only the order changed.
    place = {row: number for number, batch in enumerate(second) for row in batch}
    together = np.mean([len(batch) / len({place[row] for row in batch}) for batch in first])
    assert together < np.mean([len(batch) for batch in first]) / 3


def test_without_shuffle_the_order_is_by_length_in_every_epoch():
    source, target = lengths()
    it = sampler(source, target)
    assert batches_of(it, 0) == batches_of(it, 1)
    longest = [max(source[batch].max(), target[batch].max()) for batch in it]
    assert longest == sorted(longest)


@pytest.mark.parametrize("shuffle", [False, True])
def test_little_padding(shuffle):
    source, target = lengths(20_000)
    for limits in ({"max_tokens": 10**6, "max_sentences": 64}, {"max_tokens": 2000}):
        batches = batches_of(sampler(source, target, shuffle=shuffle, **limits), 3)
        cells = sum(len(b) * (source[b].max() + target[b].max()) for b in batches)
        assert (source.sum() + target.sum()) / cells > 0.93


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="lengths"):
        sampler([1, 2], [1])
    with pytest.raises(ValueError, match="positive"):
        sampler([1], [1], max_tokens=0)


@pytest.mark.parametrize("world", [2, 3, 7])
def test_processes_share_every_batch_and_take_as_many_steps(world):
    source, target = lengths(100)
    whole = sampler(source, target, shuffle=True, max_tokens=60)
    shared = [SharedBatches(sampler(source, target, shuffle=True, max_tokens=60), Part(r, world)) for r in range(world)]
    for epoch in (0, 1):
        for it in (whole, *shared):
            it.sampler.set_epoch(epoch)  # as Lightning does
        assert {len(it) for it in shared} == {len(whole)}
        small = 0
        for batch, *parts in zip(whole, *shared, strict=True):
            assert all(parts)
            if len(batch) < world:
                small += 1
                assert parts == [batch] * world  # of equal weight in each process, so in the mean as well
            else:
                assert sorted(row for part in parts for row in part) == sorted(batch)
                assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert small or world < 7


def test_a_split_too_small_to_share_is_refused():
    assert [list(Part(rank, 2).rows(5)) for rank in range(2)] == [[0, 2, 4], [1, 3]]
    assert list(Part().rows(0)) == []
    for rank in range(3):  # in every process, lest one wait for another
        with pytest.raises(UserError, match=r"A split of 2 examples cannot be shared by 3 processes"):
            Part(rank, 3).rows(2)
