from functools import partial

import pytest
import torch

from attnlab.attention import (
    Attention,
    ExactMarginal,
    Expectation,
    GeneralScore,
    GumbelSoftmax,
    ImportanceWeighted,
    LastPosition,
    Reinforce,
    Softmax,
    Variational,
)
from attnlab.attention.baselines import LeaveOneOut, MovingAverage, NoBaseline
from attnlab.callbacks import diagnostics
from attnlab.callbacks.diagnostics import collapsed, draws
from attnlab.data.batching import Batch
from attnlab.nn.decoders import LuongDecoder
from attnlab.nn.seq2seq import RNNSeq2Seq
from attnlab.tasks.base import Likelihoods, frequency_entropy

BATCH = Batch(
    source=torch.tensor([[3, 4, 5, 6], [5, 3, 0, 0]]),
    target_in=torch.tensor([[1, 4, 5], [1, 6, 0]]),
    target_out=torch.tensor([[4, 5, 2], [6, 2, 0]]),
    index=torch.arange(2),
)


def diagnose(seq2seq):
    def score():
        return Likelihoods(*seq2seq(BATCH.source, BATCH.target_in, BATCH.target_out), BATCH.target_out != 0)

    return diagnostics.diagnose(seq2seq, score)


def model(estimator, feeding=False, layers=1, normalizer=Softmax):
    torch.manual_seed(0)
    return RNNSeq2Seq(
        attention=partial(Attention, GeneralScore, normalizer, estimator),
        decoder=partial(LuongDecoder, input_feeding=feeding), source_vocabulary=7, target_vocabulary=7, embedding=6,
        encoder_size=4, decoder_size=5, dropout=0.3, layers=layers,
    ).train()  # fmt: skip


@pytest.mark.parametrize(
    "estimator",
    [partial(Reinforce, MovingAverage, 2), GumbelSoftmax, ExactMarginal, Variational, ImportanceWeighted],
)
def test_the_numbers_of_an_estimator_that_has_test_modes(estimator):
    seq2seq = model(estimator)
    before = {name: value.clone() for name, value in seq2seq.state_dict().items()}
    random = torch.random.get_rng_state()
    values = diagnose(seq2seq)
    assert values["bound_gap"] > 0, "Jensen: single draws explain less than the marginal"
    assert values["gradient_variance"] >= 0
    drawn = estimator not in (ExactMarginal, Variational)
    assert (values["gradient_variance"] > 0) == drawn == draws(seq2seq)
    assert seq2seq.training
    assert torch.equal(random, torch.random.get_rng_state())
    for name, value in seq2seq.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in seq2seq.parameters())
    assert diagnose(seq2seq) == values, "the same draws every time"


def test_parts_that_do_not_train_are_left_so_even_by_an_error(monkeypatch):
    seq2seq = model(partial(Reinforce, MovingAverage, 2))
    seq2seq.encoder.eval()
    diagnose(seq2seq)
    monkeypatch.setattr(seq2seq, "objective", None)
    with pytest.raises(TypeError):
        diagnose(seq2seq)
    assert seq2seq.training
    assert not seq2seq.encoder.training


def test_soft_attention_has_an_entropy_and_a_likelihood():
    assert set(diagnose(model(Expectation))) == {"entropy", "nll"}


def test_where_contexts_are_fed_back_there_is_no_exact_marginal_to_compare_with():
    assert set(diagnose(model(partial(Reinforce, NoBaseline, 2), True))) == {
        "entropy",
        "nll",
        "gradient_variance",
    }


def test_more_draws_have_less_variance():
    few, many = (diagnose(model(partial(Reinforce, LeaveOneOut, k)))["gradient_variance"] for k in (2, 64))
    assert many < few / 4


def test_collapse_is_low_entropy_with_a_poor_likelihood_of_attention_that_draws():
    peaked = {"entropy": 0.01, "nll": 1.2}
    targets = frequency_entropy(torch.arange(1, 60))  # log 59 = 4.1 nats
    assert collapsed(peaked, targets)
    assert not collapsed(peaked | {"entropy": 0.3}, targets)
    assert not collapsed(peaked | {"nll": 0.2}, targets)
    assert not draws(model(Expectation)), "soft attention may be as sharp as it likes"


@pytest.mark.parametrize("feeding", [False, True])
def test_dropout_is_off_between_layers_too_and_on_again_afterwards(feeding):
    seq2seq = model(partial(GumbelSoftmax, temperature=1e4, straight_through=False), feeding, layers=2)
    assert diagnose(seq2seq)["gradient_variance"] < 1e-9
    rates = [getattr(m, n) for m in seq2seq.modules() for n in ("dropout", "probability") if hasattr(m, n)]
    assert 0.3 in rates


def test_where_no_gradient_reaches_the_scores_there_is_no_variance():
    seq2seq = model(partial(Reinforce, LeaveOneOut, 2), normalizer=LastPosition)
    assert "gradient_variance" not in diagnose(seq2seq)
