"""A linear map by oneDNN is torch's own."""

import pytest
import torch
import torch.nn.functional as F

from attnlab.kernels import products
from attnlab.kernels.products import Linear, Packing, kept, linear, side_by_side

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


@needs_one_dnn
def test_a_weight_may_be_a_transpose(served):
    inputs, weight = draw(64, 37), draw(37, 48, seed=1).t()
    torch.testing.assert_close(linear(inputs, weight), F.linear(inputs, weight))
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
        lambda inputs, weight, _: (inputs[:, :4].contiguous(), weight[:, :4]),
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


@needs_one_dnn
class TestPacking:
    """Weights that are laid out once give what they give otherwise."""

    @pytest.fixture(autouse=True)
    def without_gradients(self, monkeypatch):
        monkeypatch.delenv("ATTNLAB_KERNELS", raising=False)
        with torch.no_grad():
            yield

    @pytest.mark.parametrize("columns", [slice(None), slice(0, 7), slice(7, None)], ids=str)
    @pytest.mark.parametrize("leading", [(1,), (64,), (3, 7)], ids=str)
    @pytest.mark.parametrize("half", [False, True])
    def test_products_are_torch_s(self, leading, columns, half):
        layer = torch.nn.Linear(20, 37)
        part = layer.weight[:, columns]
        inputs = draw(*leading, part.shape[1])
        expected = F.linear(inputs, part, layer.bias)
        with torch.autocast("cpu", torch.bfloat16, enabled=half), Packing():
            for _ in range(2):
                found = linear(inputs, layer.weight, layer.bias, columns)
                assert found.dtype == (torch.bfloat16 if half else torch.float32)
                torch.testing.assert_close(found.float(), expected, **({"rtol": 0.02, "atol": 0.03} if half else {}))
            assert len(kept()) == (2 if half else 1)  # in half the precision the bias too

    def test_maps_of_the_same_inputs_stand_side_by_side(self):
        layers, inputs = [torch.nn.Linear(6, 3), torch.nn.Linear(6, 5)], draw(4, 6)
        expected = torch.cat([layer(inputs) for layer in layers], 1)
        torch.testing.assert_close(side_by_side(inputs, *layers), expected)
        with Packing():
            torch.testing.assert_close(side_by_side(inputs, *layers), expected)

    def test_what_is_made_at_each_call_is_not_kept(self):
        with Packing():
            linear(draw(2, 6), draw(3, 6))
            assert not kept()

    def test_it_ends_with_the_outermost_context_and_may_be_entered_again(self):
        layer, inputs, packing = torch.nn.Linear(6, 3), draw(2, 6), Packing()
        with packing, Packing():
            before = linear(inputs, layer.weight, layer.bias)
        layer.weight.mul_(2)
        with packing:
            assert torch.equal(linear(inputs, layer.weight, layer.bias), before)
        with Packing():
            assert not torch.allclose(linear(inputs, layer.weight, layer.bias), before)
        assert kept() is None

    def test_gradients_read_the_weights_themselves(self):
        layer, inputs = Linear(6, 3), draw(2, 6)
        with Packing():
            layer(inputs)
            layer.weight.zero_()
            with torch.enable_grad():
                layer(inputs).sum().backward()
                assert torch.equal(layer(inputs), layer.bias.expand(2, -1))
        assert torch.equal(layer.weight.grad, inputs.sum(0).expand(3, -1))
