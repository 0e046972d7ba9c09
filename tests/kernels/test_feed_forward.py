"""The kernel of the feed-forward layer is its equation in double precision, gradients included."""

import pytest
import torch

from attnlab.kernels import feed_forward as module
from attnlab.kernels.dropout import Kept
from attnlab.kernels.feed_forward import feed_forward, naive_feed_forward

PRECISION = 2e-6  # relative


@pytest.fixture
def compiled(monkeypatch, only_kernel):
    """Only the kernel answers."""
    monkeypatch.setattr(module, "_LEAST", 1)
    only_kernel(module, "naive_feed_forward")


@pytest.fixture
def uncompiled(monkeypatch, refuse):
    """Only the reference answers."""
    monkeypatch.setattr(module._FeedForward, "apply", refuse)


def draw(rows=70, width=32, hidden=48, scale=1.0, dtype=torch.float32):
    """Inputs, both weights and both biases."""
    random = torch.Generator().manual_seed(rows)
    shapes = (rows, width), (hidden, width), (hidden,), (width, hidden), (width,)
    scales = scale, width**-0.5, 1.0, hidden**-0.5, 1.0
    return [
        (by * torch.randn(shape, generator=random)).to(dtype).requires_grad_()
        for shape, by in zip(shapes, scales, strict=True)
    ]


def relative(found, expected):
    found, expected = found.detach().double(), expected.detach()
    return float((found - expected).norm() / expected.norm())


def assert_is_the_equation(given, kept=None, precision=PRECISION):
    outputs = feed_forward(*given, kept)
    exact = [x.detach().double().requires_grad_() for x in given]
    expected = naive_feed_forward(*exact, kept)
    assert outputs.shape == expected.shape
    assert outputs.dtype == torch.float32
    assert relative(outputs, expected) < precision
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(5))
    found = torch.autograd.grad(outputs, given, upstream)
    for gradient, right in zip(found, torch.autograd.grad(expected, exact, upstream.double()), strict=True):
        assert gradient.shape == right.shape
        assert relative(gradient, right) < precision


@pytest.mark.parametrize("rows", [1, 5, 96, 97, 500])
@pytest.mark.parametrize(("width", "hidden"), [(16, 16), (32, 48), (48, 32), (96, 384), (256, 512)])
def test_outputs_and_gradients_are_those_of_the_equation(compiled, rows, width, hidden):
    assert_is_the_equation(draw(rows, width, hidden))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_is_that_of_the_reference(compiled, probability):
    torch.manual_seed(0)
    kept = Kept.draw(70 * 48, probability, torch.device("cpu"))
    assert_is_the_equation(draw(), kept)


@pytest.mark.parametrize("scale", [1e-3, 5.0, 30.0])
def test_precision_is_the_same_at_every_scale(compiled, scale):
    assert_is_the_equation(draw(scale=scale))


def reach(numbers):
    """Inputs and weights that make the hidden layer and the outputs of each row one of the numbers and its GELU."""
    inputs = torch.zeros(len(numbers), 16)
    inputs[:, 0] = numbers
    return inputs.requires_grad_(), torch.eye(16), torch.zeros(16), torch.eye(16), torch.zeros(16)


def test_the_activation_keeps_its_relative_precision_far_below_zero(compiled):
    """Where torch's own, 1 + erf, has nothing left."""
    numbers = torch.cat([torch.linspace(-8, 8, 4001), torch.tensor([0.0, -1e-30, 1e-30, -11.0])])
    given = reach(numbers)
    outputs = feed_forward(*given)[:, 0]
    exact = numbers.double()
    phi = 0.5 * torch.erfc(-exact / 2**0.5)
    torch.testing.assert_close(outputs.double(), exact * phi, rtol=1e-5, atol=0)
    gradient = torch.autograd.grad(outputs.sum(), given[0])[0][:, 0]
    slope = phi + exact * torch.exp(-exact.square() / 2) / (2 * torch.pi) ** 0.5
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-5, atol=3e-7)


def test_large_numbers_are_limits_and_what_is_not_a_number_stays_in_its_row(compiled):
    numbers = torch.tensor([1e4, 3e38, -13.5, -1e4, -3e38, float("nan"), 1.0])
    given = reach(numbers)
    outputs = feed_forward(*given)
    assert outputs[:5, 0].tolist() == [1e4, pytest.approx(3e38), 0.0, 0.0, 0.0]
    assert outputs[5, 0].isnan()
    assert outputs[6].isfinite().all()
    gradient = torch.autograd.grad(outputs[:, 0].sum(), given[0])[0][:, 0]
    assert gradient[:5].tolist() == pytest.approx([1.0, 1.0, 0.0, 0.0, 0.0], abs=1e-30)
    assert gradient[5].isnan()
    assert gradient[6].isfinite()


def test_leading_dimensions_and_strides_do_not_matter(compiled):
    inputs, *rest = draw()
    spread = inputs.detach().view(7, 10, 32).transpose(0, 1).requires_grad_()
    given = [spread, *(x.detach().t().contiguous().t().requires_grad_() for x in rest)]
    assert_is_the_equation(given)
    feed_forward(*given).sum().backward()  # a gradient of stride 0
    assert given[0].grad.shape == spread.shape


def test_results_repeat_and_those_of_rows_do_not_depend_on_the_number_of_threads(compiled, threads):
    outcomes = []
    for number in (1, 2, 2, 3):
        threads(number)
        given = draw(rows=700)
        outputs = feed_forward(*given)
        outcomes.append((outputs, *torch.autograd.grad(outputs.square().sum(), given)))
    for outcome in outcomes[1:]:
        assert all(torch.equal(*pair) for pair in zip(outcome[:2], outcomes[0][:2], strict=True))
        for found, first in zip(outcome, outcomes[0], strict=True):
            assert relative(found, first.double()) < PRECISION
    assert all(torch.equal(*pair) for pair in zip(outcomes[1], outcomes[2], strict=True))


@pytest.mark.parametrize("dropped", [False, True])
def test_a_gradient_has_a_gradient(compiled, monkeypatch, dropped):
    monkeypatch.setattr(module, "naive_feed_forward", naive_feed_forward)
    torch.manual_seed(0)
    kept = Kept.draw(70 * 48, 0.3, torch.device("cpu")) if dropped else None
    given = draw()
    exact = [x.detach().double().requires_grad_() for x in given]
    found = []
    for function, leaves in ((feed_forward, given), (naive_feed_forward, exact)):
        first = torch.autograd.grad(function(*leaves, kept).square().sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(gradient.square().sum() for gradient in first), leaves))
    for gradient, right in zip(*found, strict=True):
        assert relative(gradient, right) < 1e-5


def test_of_the_hidden_layer_one_tensor_is_kept(compiled):
    given, kept = draw(rows=500), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        feed_forward(*given)
    assert sum(x.numel() for x in kept) == 500 * 48 + sum(x.numel() for x in given)


@pytest.mark.parametrize(
    "given",
    [
        draw(700, dtype=torch.float64),
        draw(700, dtype=torch.bfloat16),
        draw(700, 24),
        draw(700, hidden=40),
        draw(399),
        draw(0),
    ],
    ids=["double", "bfloat16", "width", "hidden width", "few rows", "empty"],
)
def test_the_reference_serves_everything_else(uncompiled, given):
    torch.testing.assert_close(feed_forward(*given), naive_feed_forward(*given))


@pytest.mark.filterwarnings("ignore")
def test_the_reference_serves_autocast_transforms_graphs_and_tensors_without_numbers(uncompiled):
    given = [x.detach() for x in draw(rows=700)]
    expected = naive_feed_forward(*given)
    with torch.autocast("cpu", torch.bfloat16):
        assert feed_forward(*given).dtype == torch.bfloat16
    mapped = torch.func.vmap(feed_forward, in_dims=(0, *4 * [None]))(given[0].view(7, 100, 32), *given[1:])
    graph = torch.compile(feed_forward, backend="eager", fullgraph=True)(*given)
    traced = torch.jit.trace(feed_forward, given, check_trace=False)(*given)
    for found in (mapped.flatten(0, 1), graph, traced):
        torch.testing.assert_close(found, expected)
    assert feed_forward(*(x.to("meta") for x in given)).shape == expected.shape


def test_without_a_compiler_the_reference_serves(uncompiled, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module._kernel.cache_clear()
    given = draw(rows=700)
    torch.testing.assert_close(feed_forward(*given), naive_feed_forward(*given))
    module._kernel.cache_clear()
