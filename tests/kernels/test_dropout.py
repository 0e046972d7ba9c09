"""The kernels of dropout are their references, gradients included."""

import pytest
import torch

from attnlab.kernels import dropout
from attnlab.kernels.dropout import Kept, naive_apply

CPU = torch.device("cpu")


@pytest.fixture
def compiled(only_kernel):
    """Only the kernel answers."""
    only_kernel(dropout, "naive_apply")


def draw(size, seed=0, probability=0.3):
    torch.manual_seed(seed)
    return Kept.draw(size, probability, CPU)


@pytest.mark.parametrize("shape", [(1,), (7, 5), (3, 11, 17), (300, 400), (0, 4)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_kept_and_its_gradient_are_the_reference_s(compiled, shape, dtype):
    inputs = torch.randn(shape).to(dtype).requires_grad_()
    kept = draw(inputs.numel())
    outputs = kept.apply(inputs)
    exact = inputs.detach().double().requires_grad_()
    expected = naive_apply(exact, kept)
    grad = torch.randn(shape).to(dtype)
    (found,) = torch.autograd.grad(outputs, inputs, grad)
    (right,) = torch.autograd.grad(expected, exact, grad.double())
    for one, other in ((outputs, expected), (found, right)):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, rtol=torch.finfo(dtype).eps, atol=0)


def test_strides_do_not_matter_and_a_gradient_has_a_gradient(compiled):
    inputs = torch.randn(6, 4).t().requires_grad_()
    kept = draw(24)
    outputs = kept.apply(inputs)
    torch.testing.assert_close(outputs, naive_apply(inputs, kept))
    (first,) = torch.autograd.grad(outputs.square().sum(), inputs, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), inputs)
    torch.testing.assert_close(second, 2 * naive_apply(torch.ones(4, 6), kept).square())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_stays_none(compiled, dtype):
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, 3e38, -1e-40]).to(dtype).repeat(500)
    kept = draw(len(special))
    torch.testing.assert_close(kept.apply(special), naive_apply(special, kept), equal_nan=True)


def test_draws_repeat_under_a_seed_with_any_number_of_threads(compiled, threads):
    size = 200_001
    drawn = []
    for number in (1, 2, 3):
        threads(number)
        drawn.append(draw(size).bits)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], draw(size, seed=1).bits)
    torch.manual_seed(0)
    first, second = (Kept.draw(size, 0.3, CPU).bits for _ in range(2))
    assert (first == second).double().mean() < 1e-3, "a draw is not the one before"


def test_bits_are_even(compiled):
    """Each of the 16 bits is set half the time, and no two go together."""
    bits = draw(400_000).bits.int()
    each = torch.stack([(bits >> place) & 1 for place in range(16)]).double()
    assert (each.mean(1) - 0.5).abs().max() < 0.005
    together = torch.corrcoef(each) - torch.eye(16, dtype=torch.float64)
    assert together.abs().max() < 0.01


def test_without_the_kernel_torch_draws_and_applies(monkeypatch):
    monkeypatch.setenv("ATTNLAB_KERNELS", "off")
    dropout._kernel.cache_clear()
    kept = draw(10_000)
    dropout._kernel.cache_clear()
    assert (kept.bits >= kept.threshold).double().mean() == pytest.approx(0.7, abs=0.03)
    inputs = torch.randn(10_000, dtype=torch.float64)
    assert torch.equal(kept.apply(inputs), naive_apply(inputs, kept))
