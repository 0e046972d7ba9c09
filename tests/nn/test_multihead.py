"""The multi-head block against torch's own, and its fused path against the explicit one."""

from functools import partial

import pytest
import torch
from torch import nn

from attnlab.attention import AdditiveScore, Attention, Expectation, Reinforce, ScaledDotScore, Softmax, reading
from attnlab.attention.baselines import LeaveOneOut
from attnlab.nn.multihead import SCALED, MultiHeadAttention

N, T, S, D, H = 3, 4, 5, 8, 2


def block(attention=SCALED, size=D, heads=H):
    torch.manual_seed(0)
    return MultiHeadAttention(attention, size, heads).double()


def twin(ours):
    """torch's module with the same weights."""
    theirs = nn.MultiheadAttention(D, H, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    return theirs


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("maps", [False, True])
def test_scaled_attention_equals_torch_s_module_in_values_gradients_and_weights(masked, maps):
    ours = block()
    for layer in (ours.query, ours.key_value, ours.out):
        nn.init.normal_(layer.bias)
    theirs = twin(ours)
    inputs = torch.randn(N, T, D, dtype=torch.float64, requires_grad=True)
    source = torch.randn(N, S, D, dtype=torch.float64, requires_grad=True)
    real = torch.arange(S) < torch.tensor([[5], [3], [1]])
    mask = real[:, None, None] if masked else None
    outputs, candidates = ours(inputs, ours.prepare(source, mask), maps=maps)
    expected, weights = theirs(
        inputs, source, source, key_padding_mask=~real if masked else None, average_attn_weights=False
    )
    torch.testing.assert_close(outputs[0], expected)
    if maps:
        torch.testing.assert_close(candidates.weights, weights)
    else:
        assert candidates.weights.shape == (N, H, T, 0), "a fused kernel hides them"
        assert candidates.entropy() is None
    upstream = torch.randn_like(expected)
    found = torch.autograd.grad(outputs[0], [inputs, source, *ours.parameters()], upstream)
    wanted = torch.autograd.grad(expected, [inputs, source, *theirs.parameters()], upstream)
    names = ["inputs", "source", *(name for name, _ in ours.named_parameters())]
    of = dict(zip(names, found, strict=True))
    also = dict(zip(["inputs", "source", *(name for name, _ in theirs.named_parameters())], wanted, strict=True))
    for name in ("inputs", "source"):
        torch.testing.assert_close(of[name], also[name])
    torch.testing.assert_close(torch.cat([of["query.weight"], of["key_value.weight"]]), also["in_proj_weight"])
    torch.testing.assert_close(torch.cat([of["query.bias"], of["key_value.bias"]]), also["in_proj_bias"])
    torch.testing.assert_close(of["out.weight"], also["out_proj.weight"])
    torch.testing.assert_close(of["out.bias"], also["out_proj.bias"])


@pytest.mark.parametrize(
    ("attention", "training", "fused"),
    [
        (SCALED, True, True),
        (SCALED, False, True),
        (partial(Attention, ScaledDotScore, partial(Softmax, temperature=2.0), Expectation), True, False),
        (partial(Attention, AdditiveScore, Softmax, Expectation), True, False),
        (partial(Attention, ScaledDotScore, Softmax, partial(Reinforce, LeaveOneOut, 2)), True, False),
        (partial(Attention, ScaledDotScore, Softmax, partial(Reinforce, LeaveOneOut, 2)), False, False),
    ],
)
def test_the_fused_kernel_serves_where_it_is_the_same_mathematics(attention, training, fused):
    assert block(attention).train(training).attention.fusible == fused


def test_a_sampled_mechanism_that_is_read_softly_may_be_fused():
    ours = block(partial(Attention, ScaledDotScore, Softmax, partial(Reinforce, LeaveOneOut, 2))).eval()
    inputs = torch.randn(N, T, D, dtype=torch.float64)
    with reading(ours, "soft"):
        assert ours.attention.fusible
        fused, explicit = (ours(inputs, ours.prepare(inputs), maps=maps)[0] for maps in (False, True))
    torch.testing.assert_close(fused, explicit)


@pytest.mark.parametrize("maps", [False, True])
def test_projecting_queries_keys_and_values_by_one_product_changes_nothing(maps):
    """In single precision too, where other kernels do the work."""
    mask = (torch.arange(T) < torch.tensor([[4], [3], [1]]))[:, None, None]
    found = []
    for dtype in (torch.float64, torch.float32):
        ours = block().to(dtype)
        for layer in (ours.query, ours.key_value, ours.out):
            nn.init.ones_(layer.bias)
        inputs = torch.randn(N, T, D, generator=torch.Generator().manual_seed(0)).to(dtype)
        for together in (False, True):
            leaf = inputs.clone().requires_grad_()
            if together:
                queries, memory = ours.project(leaf, mask)
                outputs = ours.attend(queries, memory, maps=maps)[0]
            else:
                outputs = ours(leaf, ours.prepare(leaf, mask), maps=maps)[0]
            gradients = torch.autograd.grad(outputs.square().sum(), [leaf, *ours.parameters()])
            found.append([part.double() for part in (outputs, *gradients)])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-4)


def test_under_autocast_both_paths_agree():
    ours = block().float()
    inputs = torch.randn(N, T, D)
    mask = (torch.arange(T) < torch.tensor([[4], [3], [1]]))[:, None, None]
    found = []
    for maps in (False, True):
        ours.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = ours(inputs, ours.prepare(inputs, mask), maps=maps)[0]
        outputs.float().square().sum().backward()
        assert outputs.dtype == torch.bfloat16
        found.append([outputs.detach().float(), *(parameter.grad for parameter in ours.parameters())])
    torch.testing.assert_close(*found, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("maps", [False, True])
def test_a_fully_masked_row_is_refused_on_both_paths(maps):
    ours = block()
    inputs = torch.randn(N, T, D, dtype=torch.float64)
    mask = torch.tensor([True, False, True])[:, None, None, None].expand(N, 1, 1, T)
    with pytest.raises(ValueError, match=r"Attention row \[1, 0, 0\] is fully masked"):
        ours(inputs, ours.prepare(inputs, mask), maps=maps)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match=r"3 heads do not divide a width of 8 evenly; choose model.heads .+\."):
        block(heads=3)
