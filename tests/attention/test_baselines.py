import pytest
import torch

from attnlab.attention.baselines import LeaveOneOut, MovingAverage, NoBaseline

MASK = torch.tensor([[True, True, False]])


def rewards(*rows):
    """Rewards [K, 1, T] with 0 at the masked position."""
    return torch.tensor([[[*row, 0.0]] for row in rows])


def test_no_baseline_is_0():
    assert torch.equal(NoBaseline()(rewards((1.0, 2.0)), MASK), torch.zeros(1, 1, 3))


def test_leave_one_out_is_the_mean_of_the_other_draws_of_the_step():
    found = LeaveOneOut()(rewards((1.0, 2.0), (3.0, 4.0), (8.0, 0.0)), MASK)
    expected = rewards((5.5, 2.0), (4.5, 1.0), (2.0, 3.0))
    torch.testing.assert_close(found, expected)


def test_the_moving_average_leaves_the_current_batch_out_and_corrects_for_its_start_at_0():
    baseline = MovingAverage(decay=0.9)
    assert baseline(rewards((2.0, 4.0)), MASK) == 0
    # one batch seen: its mean over the two real positions, whatever the decay
    assert baseline(rewards((100.0, 100.0)), MASK).item() == pytest.approx(3)
    weights = (0.9 * 0.1, 0.1)
    expected = (3 * weights[0] + 100 * weights[1]) / sum(weights)
    assert baseline(rewards((0.0, 0.0)), MASK).item() == pytest.approx(expected, rel=1e-6)


def test_the_moving_average_means_over_samples_and_real_positions():
    baseline = MovingAverage(decay=0.5)
    baseline(rewards((1.0, 2.0), (3.0, 6.0)), MASK)
    assert baseline(rewards((0.0, 0.0)), MASK).item() == pytest.approx(3)


def test_the_moving_average_is_not_updated_in_evaluation():
    baseline = MovingAverage()
    baseline(rewards((2.0, 4.0)), MASK)
    before = {name: value.clone() for name, value in baseline.state_dict().items()}
    baseline.eval()
    for _ in range(2):
        assert baseline(rewards((50.0, 50.0)), MASK).item() == pytest.approx(3)
    assert all(torch.equal(value, before[name]) for name, value in baseline.state_dict().items())


def test_what_the_moving_average_returned_does_not_change_under_later_updates():
    baseline = MovingAverage(decay=0.5)
    baseline(rewards((2.0, 2.0)), MASK)
    returned = baseline(rewards((8.0, 8.0)), MASK)
    baseline(rewards((9.0, 9.0)), MASK)
    assert returned.item() == pytest.approx(2)


def test_a_moving_average_without_memory_is_the_mean_of_the_last_batch():
    baseline = MovingAverage(decay=0.0)
    baseline(rewards((2.0, 2.0)), MASK)
    baseline(rewards((5.0, 7.0)), MASK)
    assert baseline(rewards((0.0, 0.0)), MASK).item() == pytest.approx(6)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_a_decay_outside_0_to_1_is_refused_with_a_sentence(decay):
    with pytest.raises(ValueError, match=rf"decay .+ found {decay}\."):
        MovingAverage(decay)
