"""In a loop, functions of what is fixed are the plain ones, gradients included."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F

from attnlab.kernels import loops
from attnlab.kernels.additive import additive_scores
from attnlab.kernels.loops import Loop
from attnlab.kernels.products import linear
from attnlab.kernels.steps import dots, lstm_cell, mix

N, S, D = 3, 5, 8
STEPS = pytest.mark.parametrize("steps", [1, 4])


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


def by_weight(state, weight, bias, *_):
    return linear(state, weight, bias).tanh()


def by_columns(state, weight, *_):
    return linear(state[..., :3], weight, columns=slice(5, None)).tanh()


def by_values(state, weight, bias, values, energy):
    return state + mix(state[..., :S].softmax(-1), values)


def by_keys(state, weight, bias, values, energy):
    return state + dots(state, values).to(state.dtype) @ values.to(state.dtype) / D


def by_energy(state, weight, bias, values, energy):
    return state + additive_scores(state, values, energy).to(state.dtype).mean(-1, keepdim=True)


def by_gates(state, weight, *_):
    gates = linear(state[:, 0], torch.cat([weight] * 4))
    hidden, cell = lstm_cell(gates, gates * 0.5, state[:, 0])
    return (hidden + cell).unsqueeze(1)


FUNCTIONS = pytest.mark.parametrize("function", [by_weight, by_columns, by_values, by_keys, by_energy, by_gates])


@pytest.fixture(autouse=True)
def _every_size(monkeypatch):
    monkeypatch.setattr("attnlab.kernels.additive._LEAST", 0)


def run(function, steps, dtype, loop):
    """The sum of what a recurrence of a function comes to, and its gradients."""
    given = [draw(*shape, dtype=dtype).requires_grad_() for shape in ((N, 1, D), (D, D), (D,), (N, S, D), (D,))]
    state, *fixed = given
    total = 0.0
    with Loop() if loop else torch.enable_grad():
        for _ in range(steps):
            state = function(state, *fixed)
            total = total + state.double().square().sum()
    return total, *torch.autograd.grad(total, given, allow_unused=True)


def assert_equal(found, expected, rounding):
    for mine, right in zip(found, expected, strict=True):
        if right is None:
            assert mine is None
        else:
            torch.testing.assert_close(mine.double(), right, rtol=rounding, atol=rounding * right.abs().max().item())


@STEPS
@FUNCTIONS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("kernels", ["", "off"])
def test_a_loop_is_its_steps(monkeypatch, function, steps, dtype, kernels):
    monkeypatch.setenv("ATTNLAB_KERNELS", kernels)
    expected = run(function, steps, torch.float64, loop=False)
    assert_equal(run(function, steps, dtype, loop=True), expected, 1e-10 if dtype == torch.float64 else 2e-5)


@STEPS
@FUNCTIONS
def test_under_autocast_its_gradients_are_those_of_single_precision_rounded(function, steps):
    expected = run(function, steps, torch.float64, loop=False)
    with torch.autocast("cpu", torch.bfloat16):
        found = run(function, steps, torch.float32, loop=True)
    assert all(x is None or x.dtype == torch.float32 for x in found[1:])
    assert_equal(found, expected, 0.08)


@pytest.mark.parametrize("function", [by_weight, by_values, by_keys, by_energy])
def test_the_gradient_of_what_is_fixed_is_computed_once(monkeypatch, function):
    collected = []
    backward = loops._Collect.backward
    monkeypatch.setattr(loops._Collect, "backward", lambda ctx, *grads: collected.append(ctx) or backward(ctx, *grads))
    run(function, 4, torch.float32, loop=True)
    assert len(collected) == 1


def test_what_needs_no_gradient_keeps_nothing():
    weight, inputs = draw(2, 2), draw(1, 2).requires_grad_()
    with Loop() as loop:
        out = linear(inputs, weight)
        (_, function, _), *_ = loop._known.values()
    out.sum().backward()
    assert function._seen == []
    torch.testing.assert_close(inputs.grad, weight.sum(0, keepdim=True))


def test_a_map_that_the_loss_does_not_depend_on_has_no_gradient():
    weight, inputs = draw(2, 2).requires_grad_(), draw(1, 2).requires_grad_()
    with Loop():
        linear(inputs, weight)
    (inputs.sum() + weight.sum()).backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


@FUNCTIONS
def test_a_backward_pass_that_does_not_come_to_what_is_fixed_leaves_nothing_to_the_next(function):
    given = [draw(*shape).requires_grad_() for shape in ((N, 1, D), (D, D), (D,), (N, S, D), (D,))]
    with Loop():
        total = sum(function(given[0] * step, *given[1:]).square().sum() for step in range(1, 3))
    expected = torch.autograd.grad(total, given, allow_unused=True, retain_graph=True)
    torch.autograd.grad(total, given[0], retain_graph=True)
    assert_equal(torch.autograd.grad(total, given, allow_unused=True), expected, 1e-12)


def test_what_such_a_pass_has_kept_dies_with_its_graph():
    weight, inputs = draw(2, 2).requires_grad_(), draw(1, 2).requires_grad_()
    with Loop() as loop:
        out = linear(linear(inputs, weight).tanh(), weight)
        (_, function, _), *_ = loop._known.values()
    torch.autograd.grad(out.sum(), inputs)
    gone = weakref.ref(function)
    del function, out
    gc.collect()
    assert gone() is None


def test_the_type_that_is_asked_for_may_change_within_a_loop():
    weight, inputs = draw(4, 4, dtype=torch.float32).requires_grad_(), draw(3, 1, 4, dtype=torch.float32)
    values = draw(3, 4, 4, dtype=torch.float32)
    with Loop(), torch.autocast("cpu", torch.bfloat16):
        for enabled, dtype in ((True, torch.bfloat16), (False, torch.float32), (True, torch.bfloat16)):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                assert linear(inputs, weight).dtype == mix(inputs, values).dtype == dtype


def test_an_energy_that_needs_no_gradient_is_another():
    query, key, energy = (draw(*shape, dtype=torch.float32) for shape in ((2, 1, 4), (2, 3, 4), (4,)))
    energy.requires_grad_()
    with Loop():
        assert not additive_scores(query, key, energy.detach()).requires_grad
        assert additive_scores(query, key, energy).requires_grad


def test_inputs_may_be_vectors():
    weight, inputs = draw(4, 4).requires_grad_(), draw(4).requires_grad_()
    with Loop():
        found = torch.autograd.grad(linear(inputs, weight).square().sum(), (weight, inputs))
    expected = torch.autograd.grad(F.linear(inputs, weight).square().sum(), (weight, inputs))
    assert_equal(found, expected, 1e-12)


def test_loops_within_each_other_end_in_order():
    with Loop() as outer:
        with Loop() as inner:
            assert loops.current() is inner
        assert loops.current() is outer
        with outer:
            assert loops.current() is outer
        assert loops.current() is outer
        with torch.no_grad():
            assert loops.current() is None
    assert loops.current() is None


def test_a_gradient_of_a_gradient_is_refused():
    weight, inputs = draw(2, 2).requires_grad_(), draw(1, 2).requires_grad_()
    with Loop():
        out = linear(inputs, weight).square().sum()
    (slope,) = torch.autograd.grad(out, inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_a_device_that_autocast_does_not_know_is_served():
    with Loop():
        out = linear(torch.ones(1, 2, device="meta"), torch.ones(3, 2, device="meta", requires_grad=True))
    assert out.shape == (1, 3)
