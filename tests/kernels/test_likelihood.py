"""The kernel of log-likelihoods is its reference, in double precision."""

import pytest
import torch
import torch.nn.functional as F

from attnlab.kernels import likelihood
from attnlab.kernels.likelihood import (
    log_likelihoods,
    logit_gradients,
    naive_log_likelihoods,
    naive_logit_gradients,
)

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 8e-3}
SMOOTHING = pytest.mark.parametrize("smoothing", [0.0, 0.1])


@pytest.fixture
def compiled(only_kernel):
    """Only the kernels answer."""
    only_kernel(likelihood, "naive_log_likelihoods", "naive_logit_gradients")


def draw(rows, types, width, scale=1.0, dtype=torch.float32):
    """Logits, which are -inf beyond the types, targets, and gradients."""
    random = torch.Generator().manual_seed(rows + types)
    logits = torch.randn(rows, width, generator=random) * scale
    logits[:, types:] = float("-inf")
    return logits.to(dtype), torch.randint(types, (rows,), generator=random), torch.randn(rows, generator=random)


@SMOOTHING
@DTYPES
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
@pytest.mark.parametrize(("rows", "types", "width"), [(1, 1, 1), (3, 5, 16), (70, 33, 48), (33, 8208, 8208)])
def test_values_and_gradients(compiled, rows, types, width, scale, smoothing, dtype):
    logits, targets, grad = draw(rows, types, width, scale, dtype)
    exact, given = logits.double(), (targets, smoothing, types)
    found, normalizers = log_likelihoods(logits, *given)
    expected, exact_normalizers = naive_log_likelihoods(exact, *given)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=2e-6 * max(1, scale))
    to_logits, to_bias = logit_gradients(logits, targets, normalizers, grad, smoothing, types)
    right, shares = naive_logit_gradients(exact, targets, exact_normalizers, grad.double(), smoothing, types)
    assert to_logits.dtype == dtype
    rounding = 2e-6 * max(1, scale)  # of log Z
    torch.testing.assert_close(to_logits.double(), right, rtol=ROUNDING[dtype] + rounding, atol=rounding)
    torch.testing.assert_close(to_bias.double(), shares, rtol=rounding, atol=5 * rounding)
    assert not to_logits[:, types:].any()


@SMOOTHING
def test_the_reference_is_torch_s_cross_entropy(smoothing):
    logits, targets, grad = draw(9, 7, 7)
    logits, grad = logits.double().requires_grad_(), grad.double()
    expected = -F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    found, normalizers = naive_log_likelihoods(logits.detach(), targets, smoothing, 7)
    torch.testing.assert_close(found, expected)
    (slope,) = torch.autograd.grad(expected, logits, grad)
    to_logits, to_bias = naive_logit_gradients(logits.detach(), targets, normalizers, grad, smoothing, 7)
    torch.testing.assert_close(to_logits, slope)
    torch.testing.assert_close(to_bias, slope.sum(0))


def test_a_row_without_numbers_does_not_reach_others(compiled):
    logits, targets, grad = draw(3, 40, 48)
    logits[1, 5] = torch.nan
    found, normalizers = log_likelihoods(logits, targets, 0.1, 40)
    assert found.isfinite().tolist() == [True, False, True]
    to_logits, _ = logit_gradients(logits, targets, normalizers, grad, 0.1, 40)
    assert to_logits.isfinite().all(1).tolist() == [True, False, True]


@pytest.mark.parametrize("wrong", [-100, 40, 3_000_000])
def test_a_target_that_is_no_type_is_torch_s_error(wrong):
    logits, targets, _ = draw(3, 40, 48)
    targets[1] = wrong
    with pytest.raises(RuntimeError, match=f"index {wrong} is out of bounds"):
        log_likelihoods(logits, targets, 0.1, 40)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(compiled, threads, count):
    def found():
        logits, targets, grad = draw(90, 900, 912)
        values, normalizers = log_likelihoods(logits, targets, 0.1, 900)
        return values, *logit_gradients(logits, targets, normalizers, grad, 0.1, 900)

    before = found()
    threads(count)
    assert all(map(torch.equal, before, found()))
