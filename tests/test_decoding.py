"""Search against enumeration: a random model so small that every output can be listed."""

import itertools
import math
from typing import NamedTuple

import pytest
import torch

from attnlab.decoding import beam, greedy, length_limits, length_penalty

PAD, BEGIN, END, V = 0, 1, 2, 5


class TableState(NamedTuple):
    source: torch.Tensor  # [N, S]
    prefix: torch.Tensor  # [N, t]

    def select(self, rows, same_sources=False):
        if same_sources:
            assert torch.equal(self.source[rows], self.source)
        return TableState(self.source[rows], self.prefix[rows])


class TableModel:
    """log p(next | source, prefix) from a generator that is seeded by source and prefix; weights on prefix length."""

    def __init__(self, seed=0, sharpness=2.0):
        self.seed = seed
        self.sharpness = sharpness
        self.calls = []

    def next(self, source, prefix):
        real = [token for token in source if token != PAD]
        number = self.seed
        for token in [*real, 77, *prefix]:
            number = (number * 1_000_003 + token + 1) % (2**61 - 1)
        random = torch.Generator().manual_seed(number)
        return (torch.randn(V, generator=random, dtype=torch.float64) * self.sharpness).log_softmax(0)

    def start(self, source):
        return TableState(source, source.new_empty(len(source), 0))

    def step(self, tokens, state):
        self.calls.append(len(tokens))
        prefix = torch.cat([state.prefix, tokens.unsqueeze(1)], 1)
        rows = zip(state.source.tolist(), prefix.tolist(), strict=True)
        log_probs = torch.stack([self.next(source, tokens[1:]) for source, tokens in rows])
        length = state.source.shape[1]
        steps = prefix.shape[1] - 1
        # where a hypothesis looks says which step it was and which token came before, so mixed-up rows show
        weights = torch.zeros(len(tokens), length)
        weights[:, steps % length] = 1 + tokens.float()
        return log_probs, weights, TableState(state.source, prefix)


def outputs(limit):
    """Every output: ended within the limit, or cut at it."""
    others = [token for token in range(V) if token != END]
    for length in range(limit):
        for tokens in itertools.product(others, repeat=length):
            yield [*tokens, END]
    yield from (list(tokens) for tokens in itertools.product(others, repeat=limit))


def log_prob(model, source, tokens):
    return sum(model.next(source, tokens[:t])[token].item() for t, token in enumerate(tokens))


def best_output(model, source, limit, alpha):
    scored = ((log_prob(model, source, tokens), tokens) for tokens in outputs(limit))
    return max(scored, key=lambda pair: pair[0] / ((5 + len(pair[1])) / 6) ** alpha)


SOURCES = torch.tensor([[3, 4, 3], [4, 0, 0], [3, 3, 0]])


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_beam_as_wide_as_the_space_finds_the_best_output(alpha, seed):
    model = TableModel(seed)
    limits = torch.tensor([3, 2, 3])
    found = beam(model, SOURCES, limits, BEGIN, END, width=100, alpha=alpha)
    for row, hypothesis in enumerate(found):
        score, tokens = best_output(model, SOURCES[row].tolist(), int(limits[row]), alpha)
        assert hypothesis.tokens == [token for token in tokens if token != END]
        assert hypothesis.score == pytest.approx(score, abs=1e-5)


def test_a_beam_as_wide_as_the_space_finds_the_best_output_of_four_steps():
    model = TableModel(3)
    found = beam(model, SOURCES[:1], torch.tensor([4]), BEGIN, END, width=330, alpha=1.0)[0]
    score, tokens = best_output(model, SOURCES[0].tolist(), 4, 1.0)
    assert found.tokens == [token for token in tokens if token != END]
    assert found.score == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_the_score_of_a_hypothesis_is_the_log_probability_of_its_tokens(seed):
    model, limits = TableModel(seed), torch.tensor([6, 5, 4])
    for width in (1, 2, 3, 5):
        for row, found in enumerate(beam(model, SOURCES, limits, BEGIN, END, width)):
            ended = [*found.tokens, END] if len(found.tokens) < len(found.weights) else found.tokens
            assert found.score == pytest.approx(log_prob(model, SOURCES[row].tolist(), ended), abs=1e-5)


def test_a_length_penalty_prefers_longer_outputs():
    model, limits = TableModel(5, sharpness=0.3), torch.tensor([4, 4, 4])
    short, long = (
        sum(len(found.weights) for found in beam(model, SOURCES, limits, BEGIN, END, 100, alpha))
        for alpha in (0.0, 8.0)
    )
    assert short < long
    assert length_penalty(1, 3.0) == 1
    assert length_penalty(7, 0.5) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("seed", range(4))
def test_greedy_takes_the_most_probable_token_at_every_step(seed):
    model, limits = TableModel(seed), torch.tensor([7, 3, 5])
    for row, found in enumerate(greedy(model, SOURCES, limits, BEGIN, END)):
        tokens, score = [], 0.0
        while len(tokens) < limits[row] and END not in tokens:
            best = model.next(SOURCES[row].tolist(), tokens)
            tokens.append(int(best.argmax()))
            score += best.max().item()
        assert found.tokens == [token for token in tokens if token != END]
        assert found.score == pytest.approx(score)
        assert found.weights.shape == (len(tokens), 3)


@pytest.mark.parametrize("seed", range(8))
def test_a_beam_of_width_1_is_greedy(seed):
    model, limits = TableModel(seed), torch.tensor([7, 3, 5])
    for one, other in zip(
        beam(model, SOURCES, limits, BEGIN, END, width=1), greedy(model, SOURCES, limits, BEGIN, END), strict=True
    ):
        assert one.tokens == other.tokens
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert torch.equal(one.weights, other.weights)


def searches():
    return [
        pytest.param(greedy, id="greedy"),
        *(pytest.param(lambda *args, width=width: beam(*args, width=width), id=f"beam {width}") for width in (1, 3)),
    ]


@pytest.mark.parametrize("search", searches())
def test_a_source_s_output_does_not_depend_on_its_batch_or_place(search):
    for seed in range(4):
        model, limits = TableModel(seed), torch.tensor([8, 4, 6])
        together = search(model, SOURCES, limits, BEGIN, END)
        order = torch.tensor([2, 0, 1, 0])
        shuffled = search(model, SOURCES[order], limits[order], BEGIN, END)
        for place, row in enumerate(order.tolist()):
            alone = search(model, SOURCES[row : row + 1], limits[row : row + 1], BEGIN, END)[0]
            for other in (together[row], shuffled[place]):
                assert other.tokens == alone.tokens
                assert other.score == pytest.approx(alone.score, abs=1e-9)
                assert torch.equal(other.weights, alone.weights)


@pytest.mark.parametrize("search", searches())
def test_weights_follow_the_hypothesis_one_row_a_token_and_one_for_the_end(search):
    model, limits = TableModel(2), torch.tensor([9, 9, 9])
    for found in search(model, SOURCES, limits, BEGIN, END):
        ended = len(found.tokens) < 9
        assert found.weights.shape == (len(found.tokens) + ended, 3)
        for step, token in enumerate([BEGIN, *found.tokens][: len(found.weights)]):
            expected = torch.zeros(3)
            expected[step % 3] = 1 + token
            assert torch.equal(found.weights[step], expected)


@pytest.mark.parametrize("search", searches())
def test_every_source_has_its_own_limit(search):
    class Endless(TableModel):
        def next(self, source, prefix):
            log_probs = super().next(source, prefix)
            log_probs[END] = float("-inf")
            return log_probs

    limits = torch.tensor([1, 5, 3])
    found = search(Endless(), SOURCES, limits, BEGIN, END)
    assert [len(hypothesis.tokens) for hypothesis in found] == [1, 5, 3]
    assert [len(hypothesis.weights) for hypothesis in found] == [1, 5, 3]
    assert all(math.isfinite(hypothesis.score) for hypothesis in found)


@pytest.mark.parametrize("search", searches())
def test_a_model_that_can_only_end_gives_empty_outputs(search):
    class Mute(TableModel):
        def next(self, source, prefix):
            log_probs = torch.full((V,), float("-inf"), dtype=torch.float64)
            log_probs[END] = 0.0
            return log_probs

    for found in search(Mute(), SOURCES, torch.tensor([4, 4, 4]), BEGIN, END):
        assert found.tokens == []
        assert found.score == 0
        assert found.weights.shape == (1, 3)


@pytest.mark.parametrize("width", [1, 4])
def test_finished_sources_leave_the_batch(width):
    model = TableModel()
    beam(model, SOURCES, torch.tensor([1, 2, 2]), BEGIN, END, width, 0.0)
    assert model.calls[0] == 3  # the beam opens behind the first step
    assert model.calls[1] <= 2 * width
    model.calls.clear()
    greedy(model, SOURCES, torch.tensor([1, 2, 6]), BEGIN, END)
    assert model.calls[0] == 3
    assert all(calls <= 1 for calls in model.calls[2:])


def test_a_batch_without_sources_gives_no_outputs():
    source, limits = SOURCES[:0], torch.empty(0, dtype=torch.long)
    model = TableModel()
    assert greedy(model, source, limits, BEGIN, END) == beam(model, source, limits, BEGIN, END, 3) == []
    assert model.calls == []


def test_a_beam_without_width_is_refused():
    with pytest.raises(ValueError, match="found 0"):
        beam(TableModel(), SOURCES, torch.tensor([4, 4, 4]), BEGIN, END, width=0)


def test_length_limits_count_real_tokens_only():
    assert length_limits(SOURCES, PAD, ratio=1.5, extra=2).tolist() == [6, 3, 5]
    assert length_limits(SOURCES[1:2, :1], PAD, 1.5, 2).tolist() == [3]
