"""A linear map by oneDNN is torch's own."""

import pytest
import torch
import torch.nn.functional as F

from attnlab.kernels import products
from attnlab.kernels.products import Linear, linear

needs_one_dnn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this build of torch has no oneDNN"
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def served(monkeypatch):
    """Tells which calls oneDNN has answered."""
    monkeypatch.delenv("ATTNLAB_KERNELS", raising=False)
    answers = []
    chosen = products._is_served
    monkeypatch.setattr(products, "_is_served", lambda *given: answers.append(chosen(*given)) or answers[-1])
    return answers


@needs_one_dnn
@pytest.mark.parametrize("leading", [(1,), (64,), (3, 7), (2, 1, 5)], ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_it_is_torch_s_own(served, leading, biased):
    inputs, weight, bias = draw(*leading, 48), draw(37, 48, seed=1), draw(37, seed=2) if biased else None
    found = linear(inputs, weight, bias)
    expected = F.linear(inputs.double(), weight.double(), None if bias is None else bias.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert found.is_contiguous()
    assert served == [True]


def test_what_wants_a_gradient_is_torch_s_own(served):
    layer, inputs = Linear(8, 5), draw(3, 8)
    layer(inputs).sum().backward()
    assert torch.equal(layer.weight.grad, inputs.sum(0).expand(5, -1))
    with torch.no_grad():
        torch.testing.assert_close(layer(inputs), F.linear(inputs, layer.weight, layer.bias))
    assert served[0] is False


@pytest.mark.parametrize(
    "change",
    [
        lambda inputs, weight, _: (inputs.double(), weight.double()),
        lambda inputs, weight, _: (inputs, weight[:, ::2].repeat_interleave(2, 1)[:, :8].t().contiguous().t()),
        lambda inputs, weight, _: (inputs[:0], weight),
        lambda inputs, weight, patch: (patch.setenv("ATTNLAB_KERNELS", "off"), (inputs, weight))[1],
    ],
    ids=["double precision", "part of a matrix", "nothing", "off"],
)
def test_the_rest_is_torch_s_own(served, monkeypatch, change):
    inputs, weight = change(draw(3, 8), draw(5, 8, seed=1), monkeypatch)
    torch.testing.assert_close(linear(inputs, weight), F.linear(inputs, weight))
    assert served == [False]


def test_autocast_is_torch_s_own(served):
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(draw(3, 8), draw(5, 8, seed=1)).dtype == torch.bfloat16
    assert served == [False]
