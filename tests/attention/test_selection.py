import math

import pytest
import torch

from attnlab.attention import MODES, Candidates
from attnlab.attention.selection import argmax, enumerated, expected, gather, sampled

B, T, S, D = 2, 3, 4, 5


def tensors(*leading):
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(*leading, T, S, generator=random, dtype=torch.float64).softmax(-1)
    values = torch.randn(*leading, S, D, generator=random, dtype=torch.float64)
    return weights, values


def test_the_expectation_is_the_weighted_sum_of_the_values():
    weights, values = tensors(B)
    candidates = expected(weights, values)
    for b in range(B):
        for t in range(T):
            total = sum(weights[b, t, s] * values[b, s] for s in range(S))
            torch.testing.assert_close(candidates.contexts[0, b, t], total)
    assert candidates.positions is None
    assert candidates.log_probs is None


@pytest.mark.parametrize("leading", [(B,), (B, 2), ()])
def test_gather_equals_the_product_with_one_hot_weights_gradient_included(leading):
    _, values = tensors(*leading)
    positions = torch.randint(S, (3, *leading, T), generator=torch.Generator().manual_seed(1))
    one_hot = torch.nn.functional.one_hot(positions, S).double()
    values.requires_grad_()
    read, product = gather(values, positions), one_hot @ values
    assert torch.equal(read, product)
    slope = torch.randn(read.shape, dtype=torch.float64)
    torch.testing.assert_close(
        *(torch.autograd.grad(output, values, slope)[0] for output in (read, product)), rtol=1e-12, atol=1e-12
    )


def test_argmax_reads_the_heaviest_position():
    weights, values = tensors(B)
    candidates = argmax(weights, values)
    for b in range(B):
        for t in range(T):
            best = max(range(S), key=lambda s: weights[b, t, s].item())
            assert candidates.positions[0, b, t] == best
            assert torch.equal(candidates.contexts[0, b, t], values[b, best])


def test_sampled_frequencies_match_the_weights():
    weights = torch.tensor([[[0.1, 0.2, 0.0, 0.7]], [[0.5, 0.0, 0.25, 0.25]]])
    count = 20_000
    random = torch.Generator().manual_seed(4)
    candidates = sampled(weights, torch.zeros(2, 4, 1), count, random)
    for row in range(2):
        drawn = torch.bincount(candidates.positions[:, row, 0], minlength=4).double()
        alpha = weights[row, 0].double()
        assert (drawn[alpha == 0] == 0).all(), "a position without mass is never drawn"
        real = alpha > 0
        chi_square = ((drawn - count * alpha)[real].square() / (count * alpha[real])).sum()
        assert chi_square < 13.8  # exceeded once in a thousand seeds at 2 degrees of freedom


def test_draws_are_independent_over_samples_and_steps():
    candidates = sampled(torch.full((1, 2, 2), 0.5), torch.zeros(1, 2, 1), 10_000, torch.Generator().manual_seed(5))
    first, second = candidates.positions[:, 0].double().unbind(-1)
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.04
    assert abs(torch.corrcoef(torch.stack([first[:-1], first[1:]]))[0, 1]) < 0.04


def test_sampled_log_probs_are_log_alpha_at_the_chosen_position_with_its_gradient():
    weights, values = tensors(B)
    weights.requires_grad_()
    candidates = sampled(weights, values, 3, torch.Generator().manual_seed(0))
    for k in range(3):
        for b in range(B):
            for t in range(T):
                chosen = candidates.positions[k, b, t]
                assert candidates.log_probs[k, b, t] == weights[b, t, chosen].log()
                assert torch.equal(candidates.contexts[k, b, t], values[b, chosen])
    (gradient,) = torch.autograd.grad(candidates.log_probs[1, 0, 2], weights)
    chosen = candidates.positions[1, 0, 2]
    assert gradient[0, 2, chosen] == 1 / weights[0, 2, chosen]
    assert (gradient != 0).sum() == 1


def test_sampling_repeats_under_a_generator_and_under_the_global_seed():
    weights, values = tensors(B)
    a, b = (sampled(weights, values, 4, torch.Generator().manual_seed(7)).positions for _ in range(2))
    assert torch.equal(a, b)
    torch.manual_seed(7)
    a = sampled(weights, values, 4).positions
    torch.manual_seed(7)
    assert torch.equal(a, sampled(weights, values, 4).positions)


def test_the_exact_mixture_is_the_brute_force_marginal():
    weights, values = tensors(B)
    candidates = enumerated(weights, values)
    scored = torch.randn(S, B, T, 6, dtype=torch.float64)
    found = candidates.mixture(scored)
    brute = torch.stack([weights[..., s, None] * scored[s].exp() for s in range(S)]).sum(0).log()
    torch.testing.assert_close(found, brute)
    torch.testing.assert_close(candidates.mixture(scored[..., 0]), brute[..., 0])


def test_a_mixture_of_samples_averages_probabilities():
    weights, values = tensors(B)
    scored = torch.randn(3, B, T, dtype=torch.float64)
    found = sampled(weights, values, 3).mixture(scored)
    torch.testing.assert_close(found, scored.exp().mean(0).log())


def test_a_single_candidate_s_mixture_adds_its_log_weight():
    scored = torch.randn(1, B, T)
    candidates = Candidates(torch.empty(0), torch.full((1, B, T), math.log(0.5)), torch.empty(0))
    torch.testing.assert_close(candidates.mixture(scored), scored[0] + math.log(0.5))


def test_all_modes_agree_on_weights_with_a_single_peak():
    _, values = tensors(B)
    peaks = torch.tensor([[0, 3, 1], [2, 2, 0]])
    weights = torch.nn.functional.one_hot(peaks, S).double()
    read = gather(values, peaks.unsqueeze(0))[0]
    for name, mode in MODES.items():
        candidates = mode(weights, values)
        mixed = (candidates.log_weights.exp().unsqueeze(-1) * candidates.contexts).sum(0)
        torch.testing.assert_close(mixed, read, msg=name)
        scored = -candidates.contexts.square().sum(-1)
        torch.testing.assert_close(candidates.mixture(scored), -read.square().sum(-1), msg=name)
