"""The halves of a decoder block's step are their references, in double precision."""

import pytest
import torch
from torch import nn

from attnlab.kernels import block
from attnlab.kernels.block import Feed, Own, feed_half, naive_feed_half, naive_own_half, own_half, reads_in_place
from attnlab.kernels.products import Packing

PRECISION = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def compiled(only_kernel):
    """Only the kernels answer; gives the references."""
    references = naive_own_half, naive_feed_half
    only_kernel(block, "naive_own_half", "naive_feed_half")
    return references


def own_layers(width, heads, seed=0):
    torch.manual_seed(seed)
    norms = [nn.LayerNorm(width) for _ in range(2)]
    for parameter in (p for norm in norms for p in norm.parameters()):
        parameter.normal_()
    projections = nn.Linear(width, width), nn.Linear(width, 2 * width)
    return Own(norms[0], projections, nn.Linear(width, width), heads, norms[1], nn.Linear(width, width))


def feed_layers(width, hidden, seed=0):
    torch.manual_seed(seed)
    norm = nn.LayerNorm(width)
    for parameter in norm.parameters():
        parameter.normal_()
    return Feed(nn.Linear(width, width), norm, nn.Linear(width, hidden), nn.Linear(hidden, width))


def inputs(rows, width, steps, dtype=torch.float32):
    """Tokens, the projections of the steps before, which had more rows, and which of them each row comes from."""
    tokens = torch.randn(rows, width)
    past = [torch.randn(rows + steps - step, 3 * width).to(dtype) for step in range(steps)]
    ancestors = [torch.randint(0, len(step), (rows,)) for step in past]
    return tokens, past, torch.stack([*ancestors, torch.arange(rows)], 1)


def exact(layers):
    """The layers in double precision."""
    return type(layers)(
        *(
            tuple(copy(x) for x in layer) if isinstance(layer, tuple) else copy(layer) if layer_is(layer) else layer
            for layer in layers
        )
    )


def layer_is(x):
    return isinstance(x, nn.Module)


def copy(layer):
    """A layer in double precision, in the place of which the kernel may keep its own."""
    twin = type(layer)(layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else nn.LayerNorm(
        layer.normalized_shape
    )  # fmt: skip
    twin.load_state_dict(layer.state_dict())
    return twin.double()


def assert_close(found, expected, precision):
    assert found.shape == expected.shape
    assert float((found.double() - expected).norm() / expected.norm()) < precision


def asked_in(dtype):
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)


def skip_without_instructions(dtype):
    if dtype == torch.bfloat16 and not block._kernel().block_brain():
        pytest.skip("this processor has no instructions for bfloat16")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("steps", [0, 1, 20])
@pytest.mark.parametrize(("rows", "width", "heads"), [(1, 64, 4), (7, 128, 1), (64, 64, 8), (401, 64, 4)])
def test_the_first_half(compiled, rows, width, heads, steps, dtype):
    """Rows below, at and above what a thread takes at a time, and heads that do not fill a register."""
    skip_without_instructions(dtype)
    layers, (tokens, past, ancestors) = own_layers(width, heads), inputs(rows, width, steps, dtype)
    with asked_in(dtype), Packing():
        found = own_half(tokens, past, ancestors, layers)
    expected = compiled[0](tokens.double(), [x.double() for x in past], ancestors, exact(layers))
    assert [x.dtype for x in found] == [torch.float32, dtype, dtype]
    for mine, right in zip(found, expected, strict=True):
        assert_close(mine, right, PRECISION[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "width", "hidden"), [(1, 64, 64), (7, 128, 64), (65, 64, 256), (401, 64, 128)])
def test_the_second_half(compiled, rows, width, hidden, dtype):
    skip_without_instructions(dtype)
    layers, tokens, contexts = feed_layers(width, hidden), torch.randn(rows, width), torch.randn(rows, width).to(dtype)
    with asked_in(dtype), Packing():
        found = feed_half(tokens, contexts, layers)
    assert found.dtype == torch.float32
    expected = compiled[1](tokens.double(), contexts.double(), exact(layers))
    assert_close(found, expected, PRECISION[dtype])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(compiled, threads, count):
    own, feed, (tokens, past, ancestors) = own_layers(64, 4), feed_layers(64, 128), inputs(50, 64, 5)
    with Packing():
        before = own_half(tokens, past, ancestors, own)
        threads(count)
        found = own_half(tokens, past, ancestors, own)
        assert all(map(torch.equal, before, found))
        assert torch.equal(feed_half(before[0], before[1], feed), feed_half(found[0], found[1], feed))


def test_numbers_that_are_none_stay_in_their_row(compiled):
    layers, (tokens, past, ancestors) = feed_layers(64, 64), inputs(5, 64, 2)
    own = own_layers(64, 4)
    tokens[2, 3], tokens[4, 0] = torch.nan, torch.inf
    with Packing():
        added, queries, projected = own_half(tokens, past, ancestors, own)
        outputs = feed_half(added, queries, layers)
    for found in (queries, projected, outputs):
        assert found.isfinite().all(1).tolist() == [True, True, False, True, False]


def test_weights_are_read_once_a_context(compiled):
    """What is kept ends with the context."""
    layers, tokens, contexts = feed_layers(64, 64), torch.randn(3, 64), torch.randn(3, 64)
    with Packing():
        before = feed_half(tokens, contexts, layers)
        layers.out.weight.zero_()
        assert torch.equal(feed_half(tokens, contexts, layers), before)
    with Packing():
        assert not torch.allclose(feed_half(tokens, contexts, layers), before)


def switch_off(patch):
    patch.setenv("ATTNLAB_KERNELS", "off")
    block._kernel.cache_clear()


@pytest.mark.parametrize(
    "change",
    [
        lambda tokens, own, patch: (tokens.double(), Own(*exact(own))),
        lambda tokens, own, patch: (torch.randn(3, 20), own_layers(20, 4)),
        lambda tokens, own, patch: (tokens[:0], own),
        lambda tokens, own, patch: (switch_off(patch), (tokens, own))[1],
    ],
    ids=["double precision", "a width that fills no panel", "nothing", "off"],
)  # fmt: skip
def test_the_reference_serves_the_rest(monkeypatch, change):
    tokens, own = change(torch.randn(3, 64), own_layers(64, 4), monkeypatch)
    ancestors = torch.arange(len(tokens)).unsqueeze(1)
    with Packing():
        assert not reads_in_place(tokens, own)
        found, expected = (half(tokens, [], ancestors, own) for half in (own_half, naive_own_half))
    assert all(map(torch.equal, found, expected))
    block._kernel.cache_clear()


def test_the_reference_serves_without_packing_and_with_gradients():
    tokens, own, feed = torch.randn(3, 64), own_layers(64, 4), feed_layers(64, 64)
    assert not reads_in_place(tokens, own)
    with Packing(), torch.enable_grad():
        assert not reads_in_place(tokens, own)
        feed_half(tokens, tokens, feed).sum().backward()
    assert feed.out.weight.grad.abs().sum() > 0
