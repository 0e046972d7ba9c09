"""What holds for every kernel: it answers only where torch asks for numbers, and its gradients are its own."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from attnlab.kernels import asked
from attnlab.kernels.additive import additive_scores, naive_additive_scores
from attnlab.kernels.dot_product import dot_product_attention, naive_dot_product_attention
from attnlab.kernels.dropout import Kept, naive_apply
from attnlab.kernels.feed_forward import feed_forward, naive_feed_forward
from attnlab.kernels.loops import Loop
from attnlab.kernels.products import linear
from attnlab.kernels.steps import dots, largest, log_softmax, mix

X = torch.randn(2, 4, 64, 32, generator=torch.Generator().manual_seed(0))


BITS = Kept.draw(X.numel(), 0.3, torch.device("cpu"))


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def by_dot_product(function, x):
    return function(x, F.layer_norm(x, (32,)), x)


def by_additive(function, x):
    key = x.sin()
    return function(key, key, x[0, 0, 0])


def by_feed_forward(function, x):
    weight = x[0, 0, :, :16]
    return function(x[..., :16], weight, weight[:, 0], weight.t(), x[0, 0, 0, :16])


def by_dropout(function, x):
    return function(x.sin(), BITS)


PAIRS = pytest.mark.parametrize(
    ("made", "served", "reference"),
    [
        (by_dot_product, dot_product_attention, naive_dot_product_attention),
        (by_additive, additive_scores, naive_additive_scores), (by_feed_forward, feed_forward, naive_feed_forward),
        (by_dropout, lambda x, bits: bits.apply(x), naive_apply),
    ],
    ids=["dot_product", "additive", "feed_forward", "dropout"],
)  # fmt: skip


@PAIRS
@pytest.mark.parametrize("again", [False, True])
def test_gradients_where_one_input_is_another_or_made_of_it(made, served, reference, again):
    x = X.clone().requires_grad_()
    slopes = [
        torch.autograd.grad(made(function, x).sin().sum(), x, create_graph=again)[0] for function in (served, reference)
    ]
    assert_close(*slopes)
    if again:
        curvatures = [torch.autograd.grad(slope.square().sum(), x)[0] for slope in slopes]
        assert_close(*curvatures)


@PAIRS
def test_many_gradients_at_once(made, served, reference):
    x = X.clone().requires_grad_()
    found, expected = (made(function, x) for function in (served, reference))
    many = torch.randn(3, *found.shape)
    slopes = [torch.autograd.grad(part, x, many, is_grads_batched=True)[0] for part in (found, expected)]
    assert_close(*slopes)


NUMBERS = pytest.mark.parametrize(
    "function",
    [
        log_softmax, lambda x: linear(x, X[0, 0]), lambda x: mix(x[:, 0, :1].softmax(-1), X[:, 0, :32]),
        lambda x: dots(x[:, 0, :1].contiguous(), X[:, 0]), BITS.apply,
    ],
    ids=["log_softmax", "linear", "mix", "dots", "dropout"],
)  # fmt: skip


@NUMBERS
def test_a_gradient_in_forward_mode_is_not_lost(function):
    with forward_ad.dual_level():
        (_, slope) = forward_ad.unpack_dual(function(forward_ad.make_dual(X, X.cos())))
    (_, expected) = torch.autograd.functional.jvp(function, X, X.cos())
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-4)


def test_a_graph_that_is_traced_holds_the_operations():
    graph = make_fx(lambda x, y: (log_softmax(x), dot_product_attention(x, y, y)))(X, X.sin())
    found, expected = graph(X.cos(), X * 2), (log_softmax(X.cos()), dot_product_attention(X.cos(), X * 2, X * 2))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_mode_sees_the_operations():
    with FlopCounterMode(display=False) as counter:
        feed_forward(X, X[0, 0], X[0, 0, :, 0], X[0, 0].t(), X[0, 0, 0])
    assert counter.get_total_flops() == 2 * 2 * X.numel() * 64


def test_another_default_device_is_no_hindrance():
    with torch.device("meta"):
        assert not Kept.draw(7, 0.3, X.device).bits.is_meta
        assert not any(part.is_meta for part in largest(X[0, :, :, 0], X[0], 3))


def test_autocast_leaves_double_precision_alone():
    weight = torch.eye(4, dtype=torch.float64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), Loop():
        assert asked(weight) == torch.float64
        assert linear(weight, weight).dtype == torch.float64
