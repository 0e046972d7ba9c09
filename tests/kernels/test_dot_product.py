"""The kernel of scaled dot-product attention is its equation in double precision, gradients included."""

import itertools

import pytest
import torch

from attnlab.kernels import dot_product
from attnlab.kernels.dot_product import (
    chunk,
    dot_product_attention,
    naive_dot_product_attention,
    torch_dot_product_attention,
)

PRECISION = 3e-6  # relative


@pytest.fixture
def compiled(only_kernel):
    """Only the kernel answers."""
    only_kernel(dot_product, "torch_dot_product_attention", "naive_dot_product_attention")


@pytest.fixture
def uncompiled(monkeypatch, refuse):
    """Only torch's kernels answer."""
    monkeypatch.setattr(dot_product._DotProduct, "apply", refuse)


def draw(*shapes, scale=1.0, dtype=torch.float32):
    random = torch.Generator().manual_seed(len(shapes) + sum(shapes[0]))
    return [(torch.randn(shape, generator=random) * scale).to(dtype).requires_grad_() for shape in shapes]


def three(items=2, heads=3, queries=9, keys=7, width=16, **options):
    return draw((items, heads, queries, width), *2 * [(items, heads, keys, width)], **options)


def relative(found, expected):
    found, expected = found.detach().double(), expected.detach()
    return float((found - expected).norm() / expected.norm().clamp_min(0.01))  # what is 0 is nearly so


def assert_is_the_equation(inputs, mask=None, precision=PRECISION):
    contexts = dot_product_attention(*inputs, mask)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = naive_dot_product_attention(*exact, mask)
    assert contexts.shape == expected.shape
    assert contexts.dtype == inputs[0].dtype
    assert relative(contexts, expected) < precision
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(5)).to(contexts.dtype)
    found = torch.autograd.grad(contexts, inputs, upstream)
    for gradient, right in zip(found, torch.autograd.grad(expected, exact, upstream.double()), strict=True):
        assert gradient.dtype == contexts.dtype
        assert relative(gradient, right) < precision


@pytest.mark.parametrize("width", [1, 8, 16, 24, 32, 64, 80])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 20), (17, 17), (65, 65), (50, 30), (100, 150)])
def test_contexts_and_gradients_are_those_of_the_equation(compiled, queries, keys, width):
    """Below, at and above whole vectors, and more queries than the kernel takes at a time."""
    assert_is_the_equation(three(queries=queries, keys=keys, width=width))


@pytest.mark.parametrize("scale", [1e-3, 5.0, 30.0])
def test_scores_may_be_small_or_so_large_that_one_key_is_all(compiled, scale):
    rounding = 1e-2 if scale > 5 else PRECISION  # that of a score of thousands, as a share of its weight
    assert_is_the_equation(three(scale=scale), precision=rounding)


def masks(items=2, heads=3, queries=9, keys=7):
    random = torch.Generator().manual_seed(1)
    real = torch.arange(keys) < torch.randint(1, keys + 1, (items, 1), generator=random)
    any_of_them = torch.rand(items, heads, queries, keys, generator=random) < 0.5
    any_of_them[..., 2] = True
    return {
        "padding": real[:, None, None],
        "causal": torch.ones(queries, keys, dtype=torch.bool).tril(),
        "of a head": any_of_them[0, :, :1],
        "of its own for each": any_of_them,
        "with strides": any_of_them.transpose(2, 3).contiguous().transpose(2, 3),
        "of all": torch.ones((), dtype=torch.bool),
    }


@pytest.mark.parametrize("name", masks())
def test_what_is_masked_has_no_weight_and_no_gradient(compiled, name):
    inputs, mask = three(), masks()[name]
    assert_is_the_equation(inputs, mask)
    query, key, value = (x.detach() for x in inputs)
    wild = key.masked_fill(~mask.expand(2, 3, 9, 7).any(2)[..., None], 1e4)
    assert torch.equal(dot_product_attention(query, wild, value, mask), dot_product_attention(query, key, value, mask))


def test_strides_do_not_matter(compiled):
    packed = torch.randn(2, 10, 3 * 3 * 16)
    parts = [part.view(2, 10, 3, 16).transpose(1, 2).detach().requires_grad_() for part in packed.chunk(3, -1)]
    assert_is_the_equation(parts)
    spread = [torch.randn(3, 2, 16, 10).permute(1, 0, 3, 2).requires_grad_() for _ in range(3)]
    assert_is_the_equation(spread)
    query, key, value = three()
    dot_product_attention(query, key, value).sum().backward()  # a gradient of stride 0
    gradient = torch.autograd.grad(naive_dot_product_attention(query, key, value).sum(), query)[0]
    torch.testing.assert_close(query.grad, gradient, atol=1e-6, rtol=1e-4)


def test_bfloat16_is_computed_in_single_precision(compiled):
    inputs = three(queries=20, keys=33, width=24, dtype=torch.bfloat16)
    assert_is_the_equation(inputs, precision=torch.finfo(torch.bfloat16).eps)
    contexts = dot_product_attention(*(x.float() for x in inputs))
    assert torch.equal(dot_product_attention(*inputs), contexts.bfloat16()), "rounded once, to the nearest"


def test_what_is_not_a_number_stays_in_its_row(compiled):
    query, key, value = (x.detach() for x in three())
    plain = dot_product_attention(query, key, value)
    query[1, 2, 3, 4] = float("nan")
    query[0, 0, 1] = float("inf")
    found = dot_product_attention(query, key, value)
    assert found[1, 2, 3].isnan().all()
    assert found[0, 0, 1].isnan().all()
    found[1, 2, 3], found[0, 0, 1] = plain[1, 2, 3], plain[0, 0, 1]
    assert torch.equal(found, plain)
    low = dot_product_attention(query.bfloat16(), key.bfloat16(), value.bfloat16())
    assert low[1, 2, 3].isnan().all()


def test_results_depend_neither_on_the_number_of_threads_nor_on_the_turn(compiled, threads):
    outcomes = []
    for number in (1, 2, 2, 3):
        threads(number)
        inputs = three(items=5, queries=60, keys=60)
        contexts = dot_product_attention(*inputs)
        outcomes.append((contexts, *torch.autograd.grad(contexts.square().sum(), inputs)))
    for outcome in outcomes[1:]:
        assert all(torch.equal(*pair) for pair in zip(outcome, outcomes[0], strict=True))


def test_a_gradient_has_a_gradient(compiled, monkeypatch):
    monkeypatch.setattr(dot_product, "naive_dot_product_attention", naive_dot_product_attention)
    inputs, mask = three(), masks()["causal"].fill_(True).tril(2)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    found = []
    for function, leaves in ((dot_product_attention, inputs), (naive_dot_product_attention, exact)):
        first = torch.autograd.grad(function(*leaves, mask).square().sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(gradient.square().sum() for gradient in first), leaves))
    for gradient, right in zip(*found, strict=True):
        assert relative(gradient, right) < 1e-5


def test_no_weights_are_kept(compiled):
    inputs, kept = three(queries=100, keys=100), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.data_ptr()) or x, lambda x: x):
        dot_product_attention(*inputs)
    assert set(kept) <= {x.data_ptr() for x in inputs}


@pytest.mark.parametrize(
    "inputs",
    [
        three(dtype=torch.float64),
        three(dtype=torch.float16),
        [*three()[:2], three(dtype=torch.bfloat16)[2]],
        [three(items=1)[0].expand(2, 3, 9, 16), *three(items=1)[1:]],
        three(keys=4, queries=0),
        [x[0] for x in three()],
    ],
    ids=["double", "half", "mixed", "broadcast", "empty", "three dimensions"],
)
def test_torch_serves_everything_else(uncompiled, inputs):
    query, key, value = (x.detach() for x in inputs)
    expected = naive_dot_product_attention(query.double(), key.double(), value.double())
    found = dot_product_attention(query, key, value)
    assert found.dtype == query.dtype
    torch.testing.assert_close(found.double(), expected, atol=1e-2 if query.dtype != torch.float64 else 1e-9, rtol=0)


@pytest.mark.filterwarnings("ignore")
def test_torch_serves_transforms_graphs_and_tensors_without_numbers(uncompiled):
    query, key, value = (x.detach() for x in three())
    expected = naive_dot_product_attention(query, key, value)
    mapped = torch.func.vmap(dot_product_attention)(query, key, value)
    graph = torch.compile(dot_product_attention, backend="eager", fullgraph=True)(query, key, value)
    traced = torch.jit.trace(dot_product_attention, (query, key, value), check_trace=False)(query, key, value)
    for found in (mapped, graph, traced):
        torch.testing.assert_close(found, expected)
    assert dot_product_attention(*(x.to("meta") for x in (query, key, value))).shape == query.shape


def test_without_a_compiler_torch_serves(uncompiled, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dot_product._kernel.cache_clear()
    inputs = three()
    torch.testing.assert_close(dot_product_attention(*inputs), naive_dot_product_attention(*inputs))
    dot_product._kernel.cache_clear()


def test_torch_s_kernels_run_in_single_precision_where_bfloat16_is_slow(monkeypatch):
    seen, kernel = [], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention",
        lambda *parts: seen.append({part.dtype for part in parts[:3]}) or kernel(*parts),
    )  # fmt: skip
    inputs = three(dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        contexts = torch_dot_product_attention(*inputs)
    assert contexts.dtype == torch.bfloat16
    assert seen == [{torch.float32}]
    torch.testing.assert_close(contexts, naive_dot_product_attention(*inputs), atol=0.03, rtol=0.03)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("beside", [True, False])
def test_the_gradient_of_a_projection_is_that_of_its_parts_whether_they_lie_side_by_side_or_not(count, beside):
    whole = torch.randn(2, 5, count * 4, requires_grad=True)
    gradient = torch.randn(2, 5, count * 4)
    given = gradient.chunk(count, -1)
    if not beside:
        given = [part.clone() for part in given]
    parts = chunk(whole, count)
    for part, expected in zip(parts, whole.chunk(count, -1), strict=True):
        assert torch.equal(part, expected)
    torch.autograd.backward(parts, given)
    assert torch.equal(whole.grad, gradient)
    assert (whole.grad.data_ptr() == gradient.data_ptr()) == beside


def test_parts_that_swap_places_or_go_unused_keep_their_gradients():
    for wanted in itertools.permutations(range(3)):
        whole, gradient = torch.randn(2, 12, requires_grad=True), torch.randn(2, 12)
        parts, given = chunk(whole, 3), gradient.chunk(3, -1)
        torch.autograd.backward(parts, [given[i] for i in wanted])
        assert torch.equal(whole.grad, torch.cat([given[i] for i in wanted], -1))
    whole = torch.randn(2, 12, requires_grad=True)
    chunk(whole, 3)[1].sum().backward()
    assert whole.grad.chunk(3, -1)[1].eq(1).all()
    assert whole.grad.sum() == 8


def test_the_gradient_of_parts_has_a_gradient():
    whole = torch.randn(2, 4, requires_grad=True)
    first, second = chunk(whole.square(), 2)
    (gradient,) = torch.autograd.grad((first * second).sum(), whole, create_graph=True)
    again = torch.autograd.grad(gradient.sum(), whole)[0]
    left, right = whole.detach().chunk(2, -1)
    expected = torch.cat([2 * right**2 + 4 * left * right, 2 * left**2 + 4 * left * right], -1)
    torch.testing.assert_close(again, expected)
