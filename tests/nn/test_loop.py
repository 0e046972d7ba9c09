import pytest
import torch
import torch.nn.functional as F

from attnlab.nn.loop import LoopLinear


def run(make, steps=5):
    """A recurrence h <- tanh(W h + x) and the gradients of its sum."""
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 4, generator=random, dtype=torch.float64).requires_grad_()
    hidden = torch.randn(3, 4, generator=random, dtype=torch.float64).requires_grad_()
    linear, state, total = make(weight), hidden, 0.0
    for _ in range(steps):
        state = (linear(state) + 0.1).tanh()
        total = total + state.square().sum()
    return total, torch.autograd.grad(total, (weight, hidden))


@pytest.mark.parametrize("steps", [1, 5])
def test_a_loop_equals_a_linear_map_a_step_gradients_included(steps):
    plain = run(lambda weight: lambda inputs: F.linear(inputs, weight), steps)
    torch.testing.assert_close(run(LoopLinear, steps), plain)


def test_a_map_that_the_loss_does_not_depend_on_has_no_gradient():
    weight = torch.randn(2, 2, requires_grad=True)
    inputs = torch.randn(1, 2, requires_grad=True)
    LoopLinear(weight)(inputs)
    (inputs.sum() + weight.sum()).backward()
    assert torch.equal(weight.grad, torch.ones(2, 2))


def test_under_autocast_the_weight_is_cast_and_its_gradient_is_not():
    weight = torch.randn(4, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = LoopLinear(weight)(torch.randn(3, 4))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert weight.grad.dtype == torch.float32
