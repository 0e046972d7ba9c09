"""The kernel of additive scores is its equation in double precision, gradients included, for every input."""

import copy
import itertools
import logging
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from attnlab import kernels
from attnlab.attention import AdditiveScore
from attnlab.kernels import additive
from attnlab.kernels.additive import additive_scores, naive_additive_scores
from attnlab.kernels.loops import Loop

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="the kernel is compiled by g++")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
GRADIENT = 5e-6  # relative


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_gpu)])
def compiled(monkeypatch, only_kernel, request):
    """Only the kernel answers; tensors lie on its device."""
    monkeypatch.setattr(additive, "_LEAST", 0)
    only_kernel(additive, "naive_additive_scores")
    with torch.device(request.param):
        yield request.param


@pytest.fixture
def naive(monkeypatch, refuse):
    """Only the reference answers."""
    monkeypatch.setattr(additive._AdditiveScores, "apply", refuse)


def draw(*shape, scale=1.0, seed=0):
    random = torch.Generator().manual_seed(seed)
    drawn = (2 * torch.rand(*shape, generator=random, device="cpu") - 1) * scale
    return drawn.to(torch.get_default_device())


def equation(query, key, energy):
    """In double precision, each difference of 1 - tanh^2 as 1 / cosh^2, so that its gradient keeps its precision."""
    query, key, energy = (x.detach().double().requires_grad_() for x in (query, key, energy))
    sums = query.unsqueeze(-2) + key.unsqueeze(-3)
    return (torch.tanh(sums) * energy).sum(-1), (query, key, energy)


def slopes(query, key):
    return 1 / torch.cosh((query.double() + key.double()).clamp(-300, 300)).square()


def differentiate(scores, inputs, seed=5):
    random = torch.Generator().manual_seed(seed)
    grad = torch.randn(scores.shape, generator=random, device="cpu").to(scores)
    return torch.autograd.grad(scores, inputs, grad)


def relative(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


def assert_is_the_equation(query, key, energy):
    inputs = [x.detach().requires_grad_() for x in (query, key, energy)]
    scores = additive_scores(*inputs)
    expected, exact = equation(*inputs)
    assert scores.dtype == torch.float32
    assert scores.shape == expected.shape
    assert float((scores - expected).detach().abs().max()) <= 3e-7 * float(energy.double().norm()) * math.sqrt(
        len(energy)
    )
    for found, gradient in zip(differentiate(scores, inputs), differentiate(expected, exact), strict=True):
        assert found.shape == gradient.shape
        assert relative(found, gradient) < GRADIENT


@needs_compiler
@pytest.mark.parametrize(
    ("leading", "queries", "keys", "width"),
    [
        ((4,), 20, 20, 256),
        ((3,), 1, 20, 256),  # a step of a decoder
        ((2,), 20, 1, 48),
        ((1,), 130, 70, 40),  # several tiles, the last ones partly filled
        ((2,), 3, 600, 33),  # more keys than the backward pass takes at once, a width that fills no vector
        ((2,), 5, 7, 1),
        ((2, 3), 9, 8, 17),
        ((), 30, 30, 32),
    ],
    ids=str,
)
def test_scores_and_gradients_are_those_of_the_equation(compiled, leading, queries, keys, width):
    query, key = draw(*leading, queries, width, scale=3), draw(*leading, keys, width, scale=2, seed=1)
    assert_is_the_equation(query, key, draw(width, seed=2))


@needs_compiler
@pytest.mark.parametrize("scale", [1e-6, 0.4, 5, 30])
@pytest.mark.parametrize(("queries", "width"), [(1, 40), (1, 256), (3, 7)])
def test_queries_that_come_one_after_the_other_are_the_equation_s(compiled, queries, width, scale):
    key, energy = draw(3, 20, width, scale=scale, seed=1).requires_grad_(), draw(width, seed=2).requires_grad_()
    steps = [draw(3, queries, width, scale=scale, seed=seed).requires_grad_() for seed in (3, 4)]
    with Loop():
        scores = torch.cat([additive_scores(query, key, energy) for query in steps], 1)
    expected, exact = equation(torch.cat(steps, 1), key, energy)
    of_steps, *rest = differentiate(expected, exact)
    for found, gradient in zip(
        differentiate(scores, (*steps, key, energy)), (*of_steps.chunk(2, 1), *rest), strict=True
    ):
        assert relative(found, gradient) < GRADIENT


@needs_compiler
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.4, 0.6, 5, 20, 30, 1e3, 1e4])
def test_precision_is_the_same_at_every_scale(compiled, scale):
    """Of each of the three forms of tanh, and of small numbers as of large ones."""
    assert_is_the_equation(draw(3, 20, 64, scale=scale), draw(3, 24, 64, scale=scale, seed=1), draw(64, seed=2))


@needs_compiler
def test_a_wild_item_leaves_the_others_as_they_are(compiled):
    query, key, energy = draw(3, 70, 32), draw(3, 80, 32, seed=1), draw(32, seed=2)
    alone = additive_scores(query, key, energy)
    query[1, 5, 7], key[1, 6, 7] = 60.0, -60.0
    assert_is_the_equation(query, key, energy)
    together = additive_scores(query, key, energy)
    assert torch.equal(together[::2], alone[::2])


SIZES = (0.0, 1e-40, 1e-30, 1e-7, 0.01, 0.5, 0.5000001, 3.0, 9.0, 20.9, 21.0, 21.1, 43.0, 50.0, 89.0, 1e4, 3e38)
NUMBERS = [sign * size for size in SIZES for sign in (1.0, -1.0)]


@needs_compiler
def test_every_pair_of_numbers_has_the_tanh_and_the_slope_of_its_sum(compiled):
    """Each pair on its own, so that it takes the form that its range asks for, however far they are apart."""
    pairs = torch.tensor(list(itertools.product(NUMBERS, NUMBERS)))
    query, key = (pairs[:, i, None, None].clone().requires_grad_() for i in (0, 1))  # [pairs, 1, 1]
    found = additive_scores(query, key, torch.ones(1))
    expected = torch.tanh(query.detach().double() + key.detach().double())
    torch.testing.assert_close(found.double(), expected, atol=2.5e-7, rtol=0)
    assert (found[(query == 50) & (key == -50)] == 0).all()
    for gradient in torch.autograd.grad(found.sum(), (query, key)):
        torch.testing.assert_close(gradient.double(), slopes(query, key), atol=1e-30, rtol=5e-6)


@needs_compiler
@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e-5, 0.1, 0.49])
def test_small_numbers_keep_their_relative_precision(compiled, size):
    query, key = draw(50, 1, 1, scale=size), draw(50, 1, 1, scale=size, seed=1).abs()
    query = query.abs()  # a difference has the rounding of what is subtracted
    torch.testing.assert_close(
        additive_scores(query, key, torch.ones(1)).double(), torch.tanh(query.double() + key.double()),
        rtol=5e-7, atol=0,
    )  # fmt: skip


@needs_compiler
def test_infinities_are_limits_and_what_is_not_a_number_spreads_no_further_than_by_the_equation(compiled):
    infinity, nan = float("inf"), float("nan")
    query = torch.tensor([infinity, -infinity, nan, 0.3])[:, None, None].expand(4, 1, 16)
    key = torch.tensor([1.0, infinity, nan, -infinity, -1e4])[None, :, None].expand(4, 5, 16)
    energy = torch.full((16,), 1 / 16)
    for item_query, item_key in ((query, key), (query.reshape(1, 4, 16), key[:1])):
        found = additive_scores(item_query, item_key, energy)
        expected, _ = equation(item_query, item_key, energy)
        torch.testing.assert_close(found.double(), expected, atol=3e-7, rtol=0, equal_nan=True)
        assert found.isnan().any()
        assert found.isfinite().any()
    large = additive_scores(draw(1, 2, 16), draw(1, 3, 16, seed=1), torch.full((16,), infinity))
    assert not large.isfinite().any()


@needs_compiler
@pytest.mark.parametrize(
    ("query", "key"),
    [((2, 4, 9, 24), (2, 1, 8, 24)), ((2, 1, 9, 24), (2, 4, 8, 24)), ((9, 24), (2, 8, 24)), ((2, 9, 24), (8, 24))],
    ids=str,
)
def test_leading_dimensions_broadcast(compiled, query, key):
    assert_is_the_equation(draw(*query), draw(*key, seed=1), draw(24, seed=2))


@needs_compiler
def test_strides_do_not_matter(compiled):
    query, key = draw(24, 9, 3).transpose(0, 2), draw(3, 16, 24, seed=1)[:, ::2]
    energy = draw(48, seed=2)[::2]
    assert_is_the_equation(query, key, energy)
    inputs = [x.detach().requires_grad_() for x in (query, key, energy)]
    plain = [x.detach().contiguous().requires_grad_() for x in inputs]
    strided = torch.autograd.grad(additive_scores(*inputs).sum(), inputs)  # the gradient of a sum has stride 0
    for found, expected in zip(strided, torch.autograd.grad(additive_scores(*plain).sum(), plain), strict=True):
        assert torch.equal(found, expected)


@needs_compiler
@pytest.mark.parametrize("wanted", list(itertools.product([False, True], repeat=3))[1:], ids=str)
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.filterwarnings("ignore:Using backward")
def test_only_what_wants_a_gradient_has_one(compiled, monkeypatch, wanted, twice):
    if twice:
        monkeypatch.setattr(additive, "naive_additive_scores", naive_additive_scores)
    tensors = draw(2, 9, 24), draw(2, 8, 24, seed=1), draw(24, seed=2)
    inputs = [x.requires_grad_(want) for x, want in zip(tensors, wanted, strict=True)]
    additive_scores(*inputs).sum().backward(create_graph=twice)
    expected, exact = equation(*inputs)
    expected.sum().backward()
    for leaf, want, right in zip(inputs, wanted, exact, strict=True):
        assert (leaf.grad is not None) == want
        if want:
            assert relative(leaf.grad.detach(), right.grad) < GRADIENT
            leaf.grad = None  # it holds the graph


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_single_precision(compiled, dtype):
    query, key, energy = (x.to(dtype) for x in (draw(2, 9, 24), draw(2, 8, 24, seed=1), draw(24, seed=2)))
    inputs = [x.requires_grad_() for x in (query, key, energy)]
    scores = additive_scores(*inputs)
    expected, exact = equation(*inputs)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), expected, atol=3e-6, rtol=0)
    for found, gradient in zip(differentiate(scores, inputs), differentiate(expected, exact), strict=True):
        assert found.dtype == dtype
        assert relative(found, gradient) < torch.finfo(dtype).eps
    mixed = additive_scores(query, key.float(), energy.float())  # as under autocast, where only products are low
    assert torch.equal(mixed, scores)


@needs_compiler
def test_results_depend_neither_on_the_number_of_threads_nor_on_the_turn(compiled, threads):
    inputs = [x.requires_grad_() for x in (draw(3, 100, 40), draw(3, 90, 40, seed=1), draw(40, seed=2))]
    outcomes = []
    for number in (1, 2, 2, 3):
        threads(number)
        scores = additive_scores(*inputs)
        outcomes.append((scores, *differentiate(scores, inputs)))
    for outcome in outcomes[1:]:
        for found, first in zip(outcome, outcomes[0], strict=True):
            assert torch.equal(found, first)


@needs_compiler
def test_a_gradient_has_a_gradient(compiled, monkeypatch):
    monkeypatch.setattr(additive, "naive_additive_scores", naive_additive_scores)
    tensors = draw(2, 9, 24), draw(2, 8, 24, seed=1), draw(24, seed=2)
    inputs = [x.requires_grad_() for x in tensors]
    expected, exact = equation(*inputs)
    found = []
    for scores, leaves in ((additive_scores(*inputs), inputs), (expected, exact)):
        first = torch.autograd.grad(scores.square().sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(gradient.square().sum() for gradient in first), leaves))
    for gradient, right in zip(*found, strict=True):
        assert relative(gradient, right) < GRADIENT


@needs_compiler
def test_nothing_of_the_size_of_the_hidden_layer_is_kept_or_allocated(compiled):
    batch, queries, keys, width = 2, 100, 90, 80
    inputs = [draw(batch, queries, width), draw(batch, keys, width, seed=1), draw(width, seed=2)]
    inputs = [x.requires_grad_() for x in inputs]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.data_ptr()) or x, lambda x: x):
        scores = additive_scores(*inputs)
    assert set(kept) <= {x.data_ptr() for x in inputs}, "the backward pass keeps the inputs alone"
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        additive_scores(*inputs).sum().backward()
    name = "self_cpu_memory_usage" if compiled == "cpu" else "self_device_memory_usage"
    allocated = sum(max(0, getattr(event, name)) for event in profile.events())
    floats = batch * ((queries + keys) * width + queries * keys)
    assert 0 < allocated <= 4 * 4 * floats
    assert scores.shape == (batch, queries, keys)


@needs_compiler
def test_the_score_of_a_layer_is_that_of_its_copy_in_double_precision(compiled):
    torch.manual_seed(0)
    layer = AdditiveScore(12, 10, size=24)
    exact = copy.deepcopy(layer).double()
    query, keys = draw(3, 7, 12), draw(3, 9, 10, seed=1)
    scores = layer(query, layer.prepare(keys))
    scores.square().sum().backward()
    expected, _ = equation(exact.query(query.double()), exact.prepare(keys.double()), exact.energy.weight[0])
    torch.testing.assert_close(scores.double(), expected, atol=1e-6, rtol=0)
    hidden = torch.tanh(exact.query(query.double()).unsqueeze(-2) + exact.prepare(keys.double()).unsqueeze(-3))
    exact.energy(hidden).square().sum().backward()
    for parameter, right in zip(layer.parameters(), exact.parameters(), strict=True):
        assert relative(parameter.grad, right.grad) < GRADIENT


def served():
    """Tensors that the kernel would take."""
    return draw(4, 20, 256), draw(4, 20, 256, seed=1), draw(256, seed=2)


def test_the_reference_serves_double_precision_exactly(naive):
    query, key, energy = (x.double() for x in served())
    found = additive_scores(query, key, energy)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, equation(query, key, energy)[0].detach())


def test_the_reference_serves_tensors_without_numbers(naive):
    for device in ("meta", "cpu"):
        with FakeTensorMode() if device == "cpu" else torch.device("meta"):
            scores = additive_scores(torch.empty(2, 50, 64), torch.empty(2, 60, 64), torch.empty(64))
        assert scores.shape == (2, 50, 60)


def test_the_reference_serves_the_transforms_of_functions(naive):
    query, key, energy = served()
    mapped = torch.func.vmap(additive_scores, in_dims=(0, 0, None))(query, key, energy)
    torch.testing.assert_close(mapped, naive_additive_scores(query, key, energy))
    gradient = torch.func.grad(lambda v: additive_scores(query, key, v).sum())(energy)
    hidden = torch.tanh(query.unsqueeze(2) + key.unsqueeze(1))
    torch.testing.assert_close(gradient, hidden.sum((0, 1, 2)), rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_the_reference_serves_graphs(naive):
    inputs = served()
    expected = naive_additive_scores(*inputs)
    traced = torch.jit.trace(additive_scores, inputs, check_trace=False)
    compiled = torch.compile(additive_scores, backend="eager", fullgraph=True)
    for function in (traced, compiled):
        torch.testing.assert_close(function(*inputs), expected)


@pytest.mark.parametrize(("queries", "keys"), [(0, 3), (3, 0), (2, 2)])
def test_the_reference_serves_what_is_small_or_empty(naive, queries, keys):
    query, key = draw(2, queries, 8).bfloat16(), draw(2, keys, 8, seed=1).bfloat16()
    scores = additive_scores(query, key, draw(8).bfloat16())
    assert scores.shape == (2, queries, keys)
    assert scores.dtype == torch.float32


def test_unequal_widths_are_an_error_as_in_the_reference(naive):
    query, key, energy = served()
    with pytest.raises(RuntimeError, match="must match"):
        additive_scores(query, key[..., :-1], energy)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ATTNLAB_KERNELS", "off"), ("CXX", "false"), ("CXX", "no-such-compiler"), ("CXX", '"'), ("PATH", "")],
)
def test_without_a_compiler_or_by_wish_the_reference_serves_in_silence(
    naive, monkeypatch, tmp_path, caplog, capfd, variable, value
):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(variable, value)
    additive._kernel.cache_clear()
    with caplog.at_level(logging.INFO, logger="attnlab"):
        for _ in range(2):
            found = additive_scores(*served())
    additive._kernel.cache_clear()
    torch.testing.assert_close(found, naive_additive_scores(*served()))
    assert len(caplog.records) == (variable != "ATTNLAB_KERNELS"), "said once"
    assert all(record.levelno == logging.INFO for record in caplog.records)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.rglob("*.*"))


@needs_compiler
def test_a_kernel_is_compiled_once_and_again_where_the_file_was_damaged(monkeypatch, tmp_path, capfd):
    monkeypatch.delenv("ATTNLAB_KERNELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernels.load("additive") is not None
    (kept,) = (tmp_path / "attnlab" / "kernels").iterdir()
    whole = kept.read_bytes()
    assert capfd.readouterr() == ("", "")

    kept.unlink()  # the file that is loaded lives on
    kept.write_bytes(b"not a library")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        assert kernels.load("additive") is None
    assert kernels.load("additive") is not None
    assert kept.read_bytes()[:4] == whole[:4]
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        assert kernels.load("additive") is not None, "it is read from the cache"
        patch.setenv("CXX", "false")
        assert kernels.load("additive") is None, "another compiler's libraries are others"
    assert list(kept.parent.iterdir()) == [kept]


@needs_compiler
def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch):
    monkeypatch.delenv("ATTNLAB_KERNELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert kernels.load("additive") is not None


@needs_compiler
def test_processes_that_compile_at_the_same_time_do_not_disturb_each_other(tmp_path):
    code = """
import torch
from attnlab.kernels import load
assert load("additive") is not None
maps = open("/proc/self/maps").read().split() if __import__("os").path.exists("/proc/self/maps") else []
print(len({word for word in maps if "libgomp" in word or "libiomp" in word or "libomp" in word}))
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("ATTNLAB_KERNELS", "CXX")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment | {"XDG_CACHE_HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        assert int(output) <= 1, "one runtime of OpenMP, torch's"
    (kept,) = Path(tmp_path, "attnlab", "kernels").iterdir()
    assert kept.suffix == ".so"
