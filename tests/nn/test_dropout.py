import pytest
import torch

from attnlab.nn.dropout import Dropout


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_rate_is_the_probability_and_what_is_kept_is_scaled_so_that_the_mean_stays(probability):
    torch.manual_seed(0)
    outputs = Dropout(probability)(torch.ones(100_001))
    kept = outputs[outputs != 0]
    assert kept.unique().numel() == 1
    assert kept[0].item() == pytest.approx(1 / (1 - probability), rel=1e-3)
    assert abs(len(kept) / len(outputs) - (1 - probability)) < 5 * (probability * (1 - probability) / 1e5) ** 0.5


def test_elements_are_dropped_independently_of_their_neighbours():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(40_000)) != 0).double()
    for distance in (1, 2, 3, 4):  # one random number decides four neighbours
        pairs = torch.stack([kept[:-distance], kept[distance:]])
        assert abs(torch.corrcoef(pairs)[0, 1]) < 0.025


def test_evaluation_and_probability_0_return_the_input_itself():
    inputs = torch.randn(3, 5)
    assert Dropout(0.5).eval()(inputs) is inputs
    assert Dropout(0.0)(inputs) is inputs


def test_a_seed_repeats_the_mask_and_calls_differ():
    inputs = torch.ones(500)
    dropout = Dropout(0.5)
    torch.manual_seed(3)
    first, second = dropout(inputs), dropout(inputs)
    torch.manual_seed(3)
    assert torch.equal(dropout(inputs), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3, 5), (0, 4)])
def test_every_shape_and_type_is_kept(shape):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        outputs = Dropout(0.5)(torch.ones(shape, dtype=dtype))
        assert outputs.shape == shape
        assert outputs.dtype == dtype
    assert Dropout(0.5)(torch.ones(4, 6).t()).shape == (6, 4)


def test_the_gradient_passes_where_the_input_was_kept():
    torch.manual_seed(0)
    inputs = torch.randn(50, requires_grad=True)
    outputs = Dropout(0.3)(inputs)
    outputs.sum().backward()
    torch.testing.assert_close(inputs.grad * inputs.detach(), outputs.detach())


@pytest.mark.parametrize("probability", [1e-9, 1 - 1e-9])
def test_extreme_probabilities_give_finite_outputs(probability):
    assert Dropout(probability)(torch.ones(1000)).isfinite().all()


@pytest.mark.parametrize("probability", [-0.1, 1.0, 2.0])
def test_a_probability_outside_0_to_1_is_refused_with_a_sentence(probability):
    with pytest.raises(ValueError, match=rf"dropout probability .+ found {probability}\."):
        Dropout(probability)


@pytest.mark.filterwarnings("ignore")
def test_dropout_can_be_compiled():
    """Drawn by other means, to the same effect."""
    torch.manual_seed(0)
    outputs = torch.compile(Dropout(0.25), backend="aot_eager", fullgraph=True)(torch.ones(40_000))
    assert outputs.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (outputs == 0).double().mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_it_is_torch_s_own():
    torch.manual_seed(0)
    inputs = torch.ones(40_000, device="cuda", requires_grad=True)
    outputs = Dropout(0.25)(inputs)
    outputs.sum().backward()
    assert outputs.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (outputs == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(inputs.grad, outputs)
    assert Dropout(0.25).eval()(inputs) is inputs
