"""The equations of the papers, written as loops over positions."""

import math

import pytest
import torch

from attnlab.attention import AdditiveScore, DotScore, GeneralScore, ScaledDotScore

B, T, S, Q, D = 2, 3, 4, 5, 6


def tensors(query_size=Q, key_size=D):
    random = torch.Generator().manual_seed(0)
    query = torch.randn(B, T, query_size, generator=random, dtype=torch.float64)
    keys = torch.randn(B, S, key_size, generator=random, dtype=torch.float64)
    return query, keys


def assert_equals(score, query, keys, equation):
    found = score.double()(query, score.prepare(keys))
    for b in range(B):
        for t in range(T):
            for s in range(S):
                torch.testing.assert_close(found[b, t, s], equation(query[b, t], keys[b, s]))


def test_additive_is_equation_of_bahdanau():
    torch.manual_seed(0)
    score = AdditiveScore(Q, D, size=7)
    w, u, b, v = score.query.weight, score.key.weight, score.key.bias, score.energy.weight[0]
    assert_equals(score, *tensors(), lambda q, k: v.double() @ (w.double() @ q + u.double() @ k + b.double()).tanh())


def test_dot_is_equation_of_luong():
    assert_equals(DotScore(D, D), *tensors(D, D), lambda q, k: q @ k)


def test_general_is_equation_of_luong_with_a_matrix():
    score = GeneralScore(Q, D)
    assert_equals(score, *tensors(), lambda q, k: q @ score.key.weight.double() @ k / math.sqrt(Q))


def test_scaled_is_equation_of_vaswani():
    assert_equals(ScaledDotScore(D, D), *tensors(D, D), lambda q, k: q @ k / math.sqrt(D))


def test_what_depends_on_the_keys_alone_is_prepared():
    _, keys = tensors()
    assert AdditiveScore(Q, D, size=7).double().prepare(keys).shape == (B, S, 7)
    assert GeneralScore(Q, D).double().prepare(keys).shape == (B, S, Q)
    assert DotScore(D, D).prepare(keys) is keys


@pytest.mark.parametrize("score", [DotScore, ScaledDotScore])
def test_products_of_unequal_widths_are_refused_with_the_widths_and_a_way_out(score):
    with pytest.raises(ValueError, match=rf"{score.__name__} .+ are 5 wide and the keys 6; .+general\."):
        score(5, 6)
