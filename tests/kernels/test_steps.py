"""The kernels of a search's steps are their references, in double precision."""

import pytest
import torch

from attnlab.kernels import steps
from attnlab.kernels.loops import Loop
from attnlab.kernels.steps import (
    attend_one,
    dots,
    largest,
    log_softmax,
    lstm_cell,
    mix,
    naive_attend_one,
    naive_dots,
    naive_largest,
    naive_log_softmax,
    naive_lstm_cell,
    naive_mix,
)

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 8e-3}
REFERENCES = ("naive_attend_one", "naive_mix", "naive_dots", "naive_lstm_cell", "naive_log_softmax", "naive_largest")


@pytest.fixture
def compiled(only_kernel):
    """Only the kernels answer."""
    only_kernel(steps, *REFERENCES)


def draw(*shape, seed=0, scale=1.0, dtype=torch.float32):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * scale).to(dtype)


def assert_close(found, expected, rounding):
    torch.testing.assert_close(found.double(), expected.double(), rtol=rounding, atol=rounding)


@DTYPES
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("rows", "heads", "keys", "width"), [(1, 1, 1, 1), (3, 2, 20, 24), (64, 4, 17, 64)])
def test_attention_of_one_query(compiled, rows, heads, keys, width, masked, dtype):
    query, key, value = (draw(rows, heads, n, width, seed=n + s, dtype=dtype) for s, n in enumerate((1, keys, keys)))
    mask = draw(rows, 1, 1, keys) > 0 if masked else None
    if masked:
        mask[..., 0] = True
    contexts, weights = attend_one(query, key, value, mask)
    expected = naive_attend_one(query.double(), key.double(), value.double(), mask)
    assert contexts.dtype == dtype
    assert weights.dtype == torch.float32
    assert_close(contexts, expected[0], ROUNDING[dtype])
    assert_close(weights, expected[1], 2e-6)
    if masked:
        assert not weights[~mask.expand_as(weights)].any()


def test_heads_may_be_parts_of_a_projection(compiled):
    """As views of [N, S, 2 H d]."""
    query, whole = draw(3, 2, 1, 8), draw(3, 5, 32)
    key, value = (part.unflatten(2, (2, 8)).transpose(1, 2) for part in whole.chunk(2, 2))
    found, expected = attend_one(query, key, value), naive_attend_one(query.double(), key.double(), value.double())
    for mine, right in zip(found, expected, strict=True):
        assert_close(mine, right, 2e-6)


@DTYPES
@pytest.mark.parametrize("mask_rows", [0, 1, 3])
def test_rows_may_share_keys(compiled, mask_rows, dtype):
    query, key, value = (
        draw(7, 2, 1, 8, dtype=dtype),
        draw(3, 2, 5, 8, dtype=dtype),
        draw(3, 2, 5, 8, seed=1, dtype=dtype),
    )
    mask = draw(mask_rows, 1, 1, 5) > -0.5 if mask_rows else None
    rows = torch.tensor([2, 0, 0, 1, 2, 1, 0])
    found = attend_one(query, key, value, mask, rows)
    apart = None if mask is None else mask.expand(3, 1, 1, 5)[rows]
    expected = naive_attend_one(query.double(), key[rows].double(), value[rows].double(), apart)
    for mine, right in zip(found, expected, strict=True):
        assert_close(mine, right, ROUNDING[dtype])
    same = naive_attend_one(query.double(), key.double(), value.double(), mask, rows)
    assert all(map(torch.equal, same, expected))


@DTYPES
@pytest.mark.parametrize(("rows", "positions", "width"), [(1, 1, 1), (3, 20, 24), (64, 17, 512)])
def test_weighted_sums(compiled, rows, positions, width, dtype):
    weights, values = draw(rows, 1, positions).softmax(-1), draw(rows, positions, width, dtype=dtype)
    found = mix(weights, values)
    assert found.dtype == dtype
    assert_close(found, naive_mix(weights.double(), values.double()), ROUNDING[dtype])


@DTYPES
@pytest.mark.parametrize(("rows", "positions", "width"), [(1, 1, 1), (3, 20, 24), (64, 17, 512)])
def test_products_of_one_query(compiled, rows, positions, width, dtype):
    query, keys = draw(rows, 1, width, dtype=dtype), draw(rows, 2 * positions, width, dtype=dtype)[:, ::2]
    found = dots(query, keys)
    assert found.dtype == torch.float32
    assert_close(found, naive_dots(query.double(), keys.double()), 2e-6 * width)


@DTYPES
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize(("rows", "size"), [(1, 1), (7, 24), (64, 512)])
def test_gradients_of_gates(compiled, rows, size, scale, dtype):
    gates = [draw(rows, 4 * size, seed=seed, scale=scale, dtype=dtype) for seed in (1, 2)]
    given = [x.requires_grad_() for x in (*gates, draw(rows, size, dtype=dtype))]
    exact = [x.detach().double().requires_grad_() for x in given]
    slopes = [draw(rows, size, seed=seed, dtype=dtype) for seed in (3, 4)]
    with Loop():
        found = torch.autograd.grad(lstm_cell(*given), given, slopes)
    expected = torch.autograd.grad(naive_lstm_cell(*exact), exact, [x.double() for x in slopes])
    for mine, right in zip(found, expected, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.double(), right, rtol=5 * ROUNDING[dtype], atol=1e-6)


@DTYPES
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize(("rows", "size"), [(1, 1), (7, 24), (64, 512)])
def test_gates(compiled, rows, size, scale, dtype):
    inputs, recurrent = (draw(rows, 4 * size, seed=seed, scale=scale, dtype=dtype) for seed in (1, 2))
    cell = draw(rows, 3, size, dtype=dtype)[:, 1]  # of one layer of several
    found, expected = lstm_cell(inputs, recurrent, cell), naive_lstm_cell(
        inputs.double(), recurrent.double(), cell.double()
    )  # fmt: skip
    for mine, right in zip(found, expected, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.double(), right, rtol=5 * ROUNDING[dtype], atol=1e-7)


@DTYPES
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3, 7), (64, 8211)])
def test_log_probabilities(compiled, shape, scale, dtype):
    logits = draw(*shape, scale=scale, dtype=dtype)
    logits[..., 1:2] = float("-inf")
    found = log_softmax(logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), naive_log_softmax(logits.double()), rtol=2e-6, atol=2e-6 * scale)


def test_a_row_without_numbers_does_not_reach_others(compiled):
    logits = draw(3, 40)
    logits[1, 5] = torch.nan
    assert log_softmax(logits).isfinite().all(1).tolist() == [True, False, True]


@pytest.mark.parametrize("count", [1, 2, 10, 64, 500])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (4, 5, 1000), (3, 1, 8211)])
def test_the_largest(compiled, monkeypatch, shape, count):
    if count > steps._MOST:
        monkeypatch.setattr(steps, "naive_largest", naive_largest)
    values, offsets = draw(*shape), draw(*shape[:2], seed=1)
    offsets[0, 1:] = float("-inf")
    found, places = largest(offsets, values, count)
    sums = (offsets.unsqueeze(-1) + values).flatten(1)
    assert torch.equal(found, sums.topk(min(count, sums.shape[1]), 1).values)
    assert torch.equal(sums.gather(1, places), found)
    assert all(len(set(row)) == len(row) for row in places.tolist())


def test_of_equals_the_first_is_taken(compiled):
    _, places = largest(torch.zeros(1, 2), torch.zeros(1, 2, 300), 3)
    assert places.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(compiled, threads, count):
    logits, query, keys = draw(50, 900), draw(50, 4, 1, 16), draw(50, 4, 9, 16)
    before = log_softmax(logits), *attend_one(query, keys, keys)
    threads(count)
    assert all(map(torch.equal, before, (log_softmax(logits), *attend_one(query, keys, keys))))


def calls(dtype, **options):
    """Each function, its reference, and arguments."""
    query, keys, values, cell = (draw(*s, dtype=dtype) for s in ((2, 2, 1, 4), (2, 2, 3, 4), (2, 3, 4), (2, 4)))
    given = [
        (attend_one, naive_attend_one, (query, keys, keys)),
        (mix, naive_mix, (draw(2, 1, 3, dtype=torch.promote_types(dtype, torch.float32)).softmax(-1), values)),
        (lstm_cell, naive_lstm_cell, (draw(2, 16, dtype=dtype), draw(2, 16, seed=1, dtype=dtype), cell)),
        (log_softmax, naive_log_softmax, (values,)),
        (largest, naive_largest, (draw(2, 3, dtype=dtype), values, 2)),
    ]
    return [(f, r, tuple(x.requires_grad_(**options) if torch.is_tensor(x) else x for x in a)) for f, r, a in given]


@pytest.mark.parametrize("reason", ["gradients", "double precision", "off"])
def test_the_reference_serves_the_rest(monkeypatch, refuse, reason):
    if reason == "off":
        monkeypatch.setenv("ATTNLAB_KERNELS", "off")
        steps._kernel.cache_clear()
    else:
        monkeypatch.setattr(steps, "_kernel", refuse)
    dtype = torch.float64 if reason == "double precision" else torch.float32
    for function, reference, arguments in calls(dtype, requires_grad=reason == "gradients"):
        found, expected = function(*arguments), reference(*arguments)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    if reason == "off":
        steps._kernel.cache_clear()


@pytest.mark.parametrize("wrong", [3, 2**40])
def test_a_row_that_is_not_there_is_an_error(wrong):
    query, key = draw(2, 2, 1, 8), draw(3, 2, 5, 8)
    with pytest.raises(IndexError, match="out of bounds"):
        attend_one(query, key, key, None, torch.tensor([0, wrong]))


def test_shapes_that_broadcast_are_the_reference_s():
    inputs, cell = draw(3, 32), draw(3, 8)
    for mine, right in zip(lstm_cell(inputs, inputs[:1], cell), naive_lstm_cell(inputs, inputs[:1], cell), strict=True):
        assert torch.equal(mine, right)
    query, key = draw(2, 2, 3, 8), draw(2, 2, 5, 8)
    assert attend_one(query, key, key)[0].shape == query.shape
