import math

import pytest
import torch

from attnlab.evaluation.alignment import (
    AlignmentScores,
    alignment_error_rate,
    argmax_links,
    entropy,
    shift_profile,
    word_weights,
)


def test_word_weights_sum_the_source_and_average_the_target():
    weights = torch.tensor(
        [
            [0.1, 0.2, 0.3, 0.4],
            [0.5, 0.1, 0.2, 0.2],
            [0.0, 0.0, 1.0, 0.0],
            [0.9, 0.1, 0.0, 0.0],  # a target token of no word
        ]
    )
    words = word_weights(weights, [0, 0, 1, -1], [0, 0, 1, -1], n_source=2, n_target=2)
    torch.testing.assert_close(words, torch.tensor([[0.45, 0.25], [0.0, 1.0]]))


def test_word_weights_of_words_whose_tokens_are_not_neighbours_or_missing():
    weights = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.4, 0.0]], dtype=torch.float64)
    words = word_weights(weights, [2, 0, 2], [1, 1], n_source=3, n_target=3)
    expected = torch.tensor([[0, 0, 0], [0.35, 0, 0.65], [0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(words, expected)


def test_word_weights_of_half_precision_and_of_nothing():
    weights = torch.full((300, 1), 1.0, dtype=torch.bfloat16, requires_grad=True)
    words = word_weights(weights, [0], [0] * 300, n_source=1, n_target=1)
    assert words.dtype == torch.float32
    assert not words.requires_grad
    assert words.item() == 1.0  # bfloat16 cannot count to 300
    assert word_weights(torch.zeros(0, 0), [], [], n_source=2, n_target=3).shape == (3, 2)
    assert word_weights(torch.ones(1, 2), [-1, -1], [-1], n_source=0, n_target=0).shape == (0, 0)


def test_word_weights_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"shape \(2, 3\), but there are 3 target and 2 source"):
        word_weights(torch.ones(2, 3), [0, 1], [0, 1, 2], 3, 3)
    with pytest.raises(ValueError, match="source token belongs to a word from 0 to 1"):
        word_weights(torch.ones(1, 2), [0, 2], [0], 2, 1)
    with pytest.raises(ValueError, match="target token"):
        word_weights(torch.ones(1, 2), [0, 1], [-2], 2, 1)


def test_argmax_links():
    words = torch.tensor([[0.1, 0.7], [0.0, 0.0], [0.4, 0.4]])
    assert argmax_links(words) == {(1, 0), (0, 2)}
    assert argmax_links(torch.zeros(3, 0)) == set()
    assert argmax_links(torch.zeros(0, 3)) == set()
    with pytest.raises(ValueError, match="NaN"):
        argmax_links(torch.tensor([[math.nan, 1.0]]))


# |A| = 4, |S| = 3; A∩S = {(0,0), (1,1)}, A∩P = {(0,0), (1,1), (2,3)}.
A = {(0, 0), (1, 1), (2, 3), (4, 4)}
S = {(0, 0), (1, 1), (3, 3)}
P = S | {(2, 3), (3, 2)}


def test_alignment_error_rate_by_hand():
    scores = alignment_error_rate([A], [S], [P])
    assert scores.aer == pytest.approx(1 - (2 + 3) / (4 + 3))
    assert scores.precision == pytest.approx(3 / 4)
    assert scores.recall == pytest.approx(2 / 3)


def test_possible_links_include_the_sure_ones():
    assert alignment_error_rate([A], [S], [P - S]) == alignment_error_rate([A], [S], [P])


def test_the_corpus_is_counted_together():
    # A second pair with A = S = P = {(0, 0)}: (5 + 2) / (7 + 2), not the mean of 2/7 and 0.
    scores = alignment_error_rate([A, {(0, 0)}], [S, {(0, 0)}], [P, {(0, 0)}])
    assert scores.aer == pytest.approx(1 - 7 / 9)
    assert scores.precision == pytest.approx(4 / 5)
    assert scores.recall == pytest.approx(3 / 4)


def test_the_best_and_the_worst():
    assert alignment_error_rate([S], [S], [P]) == AlignmentScores(0.0, 1.0, 1.0)
    assert alignment_error_rate([P], [S], [P]) == AlignmentScores(0.0, 1.0, 1.0)
    assert alignment_error_rate([{(9, 9)}], [S], [P]) == AlignmentScores(1.0, 0.0, 0.0)
    # A link is (source, target); a transposed alignment is wrong.
    assert alignment_error_rate([{(1, 0)}], [{(0, 1)}], [{(0, 1)}]).aer == 1


def test_what_is_undefined_is_nan():
    silent = alignment_error_rate([set()], [S], [P])
    assert silent.aer == 1
    assert silent.recall == 0
    assert math.isnan(silent.precision)
    assert math.isnan(alignment_error_rate([], [], []).aer)


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="2, 1 and 1"):
        alignment_error_rate([S, S], [S], [P])


def test_shift_profile_finds_a_displaced_alignment():
    gold = {(i, i) for i in range(5)}
    one_too_far = {(i + 1, j) for i, j in gold}
    profile = shift_profile([one_too_far], [gold], [gold])
    assert list(profile) == [-2, -1, 0, 1, 2]
    assert profile[-1] == 0
    assert profile[0] == 1
    assert min(profile, key=profile.get) == -1
    straight = shift_profile([A], [S], [P], shifts=(0, 1))
    assert straight[0] == alignment_error_rate([A], [S], [P]).aer
    # A shifted by 1: (1,0) (2,1) (3,3) (5,4), of which (3,3) is sure.
    assert straight[1] == pytest.approx(1 - 2 / 7)


def test_entropy():
    weights = torch.tensor([[[1.0, 0, 0, 0], [0.25] * 4], [[0.5, 0.5, 0, 0], [0.5, 0.25, 0.25, 0]]])
    expected = torch.tensor([[0, math.log(4)], [math.log(2), 1.5 * math.log(2)]])
    torch.testing.assert_close(entropy(weights), expected)
    assert entropy(weights.to(torch.bfloat16)).dtype == torch.float32
    assert entropy(weights.double()).dtype == torch.float64
