import pytest
import torch

from attnlab.attention import LastPosition, LocalPredictive, Softmax

SCORES = torch.tensor([[0.3, -1.2, 2.0, 0.7]], dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_softmax_is_its_equation_over_allowed_positions(temperature):
    mask = torch.tensor([True, False, True, True])
    terms = [(SCORES[0, s] / temperature).exp() if mask[s] else torch.tensor(0.0) for s in range(4)]
    expected = torch.stack([term.double() for term in terms]) / sum(terms)
    torch.testing.assert_close(Softmax(temperature)(SCORES, mask)[0], expected)


def test_a_low_temperature_sharpens_and_a_high_one_flattens():
    cold, plain, hot = (Softmax(temperature)(SCORES).max() for temperature in (0.1, 1.0, 10.0))
    assert cold > 0.99
    assert cold > plain > hot
    assert hot < 0.35


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused_with_a_sentence(temperature):
    with pytest.raises(ValueError, match=rf"temperature must be positive, found {temperature}\."):
        Softmax(temperature)


def test_softmax_has_no_gradient_at_masked_positions():
    scores = SCORES.clone().requires_grad_()
    weights = Softmax()(scores, torch.tensor([True, False, True, False]))
    weights[0, 0].backward()
    assert scores.grad.isfinite().all()
    assert scores.grad[0, [1, 3]].tolist() == [0, 0]


def test_last_position_puts_all_weight_on_the_last_allowed_position_of_each_row():
    mask = torch.tensor([[[True, True, False]], [[False, True, True]], [[True, False, False]]])  # [3, 1, 3]
    weights = LastPosition()(torch.randn(3, 2, 3), mask)
    expected = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]).unsqueeze(1).expand(3, 2, 3)
    assert torch.equal(weights, expected)
    assert torch.equal(LastPosition()(torch.randn(2, 3)), torch.tensor([[0.0, 0, 1], [0, 0, 1]]))


@pytest.mark.parametrize("normalizer", [Softmax, LastPosition])
def test_one_empty_row_among_full_ones_is_named(normalizer):
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    mask[1, 2] = False
    with pytest.raises(ValueError, match=r"row \[1, 2\] is fully masked"):
        normalizer()(torch.zeros(2, 3, 4), mask)


def test_a_mask_that_was_emptied_after_it_was_passed_is_refused():
    mask = torch.ones(2, 3, dtype=torch.bool)
    Softmax()(torch.zeros(2, 3), mask)
    mask[1] = False
    with pytest.raises(ValueError, match=r"row \[1\] is fully masked"):
        Softmax()(torch.zeros(2, 3), mask)


def test_centers_of_local_attention_are_predicted_in_single_precision():
    torch.manual_seed(0)
    normalizer, scores = LocalPredictive(window=1, query_size=8), torch.zeros(64, 1, 4000)
    query = torch.randn(64, 1, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        halved = normalizer(scores, None, query)
    assert torch.equal(halved, normalizer(scores, None, query.float()))


def test_masks_may_be_mapped_over():
    scores, mask = torch.randn(4, 2, 3), torch.rand(4, 1, 3) < 0.7
    mask[..., 0] = True
    assert torch.equal(torch.vmap(Softmax())(scores, mask), Softmax()(scores, mask))
