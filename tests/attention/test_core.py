from functools import partial

import pytest
import torch
from torch import nn

from attnlab.attention import (
    AdditiveScore,
    Attention,
    DotScore,
    ExactMarginal,
    Expectation,
    Reinforce,
    Softmax,
    reading,
)
from attnlab.attention.baselines import NoBaseline


def attention(estimator=Expectation, score=DotScore):
    return Attention(score, Softmax, estimator, query_size=4, key_size=4)


def tensors():
    random = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 4, generator=random), torch.randn(2, 5, 4, generator=random)


HARD = partial(Reinforce, NoBaseline, 3)


def test_training_selects_with_the_estimator_and_evaluation_with_its_test_mode():
    query, values = tensors()
    hard = attention(HARD)
    memory = hard.prepare(values)
    assert hard(query, memory).contexts.shape[0] == 3
    assert hard(query, memory, follow=True).contexts.shape[0] == 1
    hard.eval()
    assert torch.equal(hard(query, memory).positions[0], hard.weights(query, memory).argmax(-1))
    assert attention(ExactMarginal).eval()(query, memory).contexts.shape[0] == 5


def test_keys_may_differ_from_values():
    query, values = tensors()
    module, keys = attention(), values.flip(1)
    memory = module.prepare(values, keys=keys)
    torch.testing.assert_close(module.weights(query, memory), (query @ keys.transpose(1, 2)).softmax(-1))
    torch.testing.assert_close(module(query, memory).contexts[0], module.weights(query, memory) @ values)


def test_reading_sets_every_attention_and_restores_what_was_there():
    model = nn.ModuleList([attention(HARD), nn.Sequential(attention(HARD))]).eval()
    inner = model[1][0]
    with reading(model, "soft"):
        assert model[0].mode == inner.mode == "soft"
        with reading(inner, "sample"):
            assert (model[0].mode, inner.mode) == ("soft", "sample")
        assert inner.mode == "soft"
    assert model[0].mode is None
    assert inner.mode is None


def test_reading_restores_the_modes_when_the_block_fails():
    model = attention().eval()
    with pytest.raises(RuntimeError, match="broken"), reading(model, "argmax"):
        raise RuntimeError("broken")
    assert model.mode is None


def test_reading_changes_what_is_read_in_evaluation_and_nothing_in_training():
    query, values = tensors()
    module = attention(HARD)
    memory = module.prepare(values)
    with reading(module, "soft"):
        assert module(query, memory).positions is not None
        soft = module.eval()(query, memory)
    assert soft.positions is None
    torch.testing.assert_close(soft.contexts[0], soft.weights @ values)


def test_an_unknown_mode_is_refused_with_the_modes_there_are():
    with (
        pytest.raises(ValueError, match="no test mode 'hard'; the modes are soft, argmax, sample, exact"),
        reading(attention(), "hard"),
    ):
        pass


def test_half_precision_values_are_read_with_single_precision_weights():
    query, values = tensors()
    module = attention(score=partial(AdditiveScore, size=6)).bfloat16()
    candidates = module(query.bfloat16(), module.prepare(values.bfloat16()))
    assert candidates.contexts.dtype == torch.bfloat16
    assert candidates.weights.dtype == torch.float32
