"""What processes tell each other, played by one process that knows what the other would say."""

import pytest
import torch

from attnlab.tasks import distributed as told
from attnlab.tasks.distributed import merged, weighted


@pytest.fixture
def two(monkeypatch):
    """Makes this process one of two; the other's share of an exchange is what is given."""

    def be(other):
        def all_reduce(sums):
            sums += other

        def all_gather_object(parts, own):
            parts[:] = [own, other]

        monkeypatch.setattr(told.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(told.distributed, "get_world_size", lambda: 2)
        monkeypatch.setattr(told.distributed, "all_reduce", all_reduce)
        monkeypatch.setattr(told.distributed, "all_gather_object", all_gather_object)

    return be


def test_one_process_is_left_alone():
    loss, metrics = torch.tensor(2.0, requires_grad=True), {"nll": torch.tensor(3.0)}
    found = weighted(loss, metrics, 7)
    assert found[0] is loss
    assert found[1:] == (metrics, 7)
    assert merged({3: "a"}) == {3: "a"}


def test_the_mean_of_weighted_gradients_is_the_gradient_of_the_mean_over_all_targets(two):
    values = torch.randn(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def loss_of(part):
        return (weight * part).sin().mean()

    whole = torch.autograd.grad(loss_of(values), weight)[0]
    gradients = []
    for own, other in ((values[:3], values[3:]), (values[3:], values[:3])):
        mean, theirs = loss_of(own), loss_of(other).detach()
        two(torch.stack([torch.tensor(1.0), theirs, 2 * theirs]) * len(other))
        loss, metrics, count = weighted(mean, {"nll": mean.detach(), "twice": 2 * mean.detach()}, len(own))
        gradients.append(torch.autograd.grad(loss, weight)[0])
        assert count == 10
        torch.testing.assert_close(metrics["nll"], loss_of(values).detach())
        torch.testing.assert_close(metrics["twice"], 2 * loss_of(values).detach())
    torch.testing.assert_close(sum(gradients) / 2, whole)


def test_each_row_is_merged_once(two):
    two({1: [5], 3: [6, 7]})
    assert merged({0: [1], 2: []}) == {0: [1], 1: [5], 2: [], 3: [6, 7]}
