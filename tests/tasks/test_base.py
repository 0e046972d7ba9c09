"""What the tasks share."""

from types import SimpleNamespace

import pytest
import torch

from attnlab.tasks.base import Task


@pytest.mark.parametrize(("how", "expected"), [("norm", [0.6, 0.8]), (None, [0.6, 0.8]), ("value", [1.0, 1.0])])
def test_gradients_are_clipped_by_the_norm_or_one_by_one(how: str | None, expected: list[float]) -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    Task.configure_gradient_clipping(SimpleNamespace(parameters=lambda: [weight]), None, 1.0, how)
    torch.testing.assert_close(weight.grad, torch.tensor(expected))
