"""Gradient estimators against enumeration.

The problem is a process so small that every sequence of choices can be listed: three source positions, two or three
target steps, and rewards log p(y | z) that depend on parameters, too. `exact_gradient` differentiates the sum over all
choices; `expected_gradient` runs the estimator once for every joint outcome of its K draws and averages its gradients
under the probabilities of those outcomes. An unbiased estimator makes the two equal to rounding error, no sampling and
no tolerance for luck. The same check must fail on estimators with planted mistakes.
"""

import math
from functools import partial
from itertools import product

import pytest
import torch
from torch import nn

from attnlab.attention import ExactMarginal, Expectation, Reinforce, Softmax
from attnlab.attention.baselines import Baseline, LeaveOneOut, MovingAverage, NoBaseline
from attnlab.attention.estimators import entropy, token_mean
from attnlab.attention.selection import Candidates, gather

S, D, V = 4, 3, 5
SOURCE_MASK = torch.tensor([True, True, False, True])
ALLOWED = SOURCE_MASK.nonzero().squeeze(1).tolist()
TARGETS = torch.tensor([1, 4, 0])
MASK = torch.tensor([[True, True, False]])  # the last target position is padding
T = len(TARGETS)
REAL = int(MASK.sum())


def problem(copies=1, seed=0):
    """The parameters of the process, each with one copy [N, ...] for every one of N independent rows."""
    random = torch.Generator().manual_seed(seed)
    shapes = {"query": (T, D), "keys": (S, D), "values": (S, D), "recur": (D, D), "output": (D, V)}
    return {
        name: torch.randn(shape, generator=random, dtype=torch.float64).expand(copies, *shape).clone().requires_grad_()
        for name, shape in shapes.items()
    }


def run(parameters, draw, fed):
    """The process: log p(y_t | choices) [K, N, T] and the candidates, with the choices that `draw` makes.

    Not fed, a choice reaches its own step only; fed, its value enters a recurrent state that queries and scores every
    later step. `draw(weights, steps)` returns positions [K, N, len(steps)] for weights [(K,) N, len(steps), S].
    """
    normalizer = Softmax()
    query, keys, values = parameters["query"], parameters["keys"], parameters["values"]
    if not fed:
        weights = normalizer(query @ keys.transpose(-1, -2), SOURCE_MASK)
        positions = draw(weights, list(range(T)))
        contexts = gather(values, positions)
        logits = (contexts + query).tanh() @ parameters["output"]
        log_probs = weights.expand(*positions.shape, S).gather(-1, positions.unsqueeze(-1)).squeeze(-1).log()
    else:
        state, steps = torch.zeros_like(query[:, :1]).unsqueeze(0), []  # [1, N, 1, D]
        for t in range(T):
            step_weights = normalizer((state + query[:, t : t + 1]) @ keys.transpose(-1, -2), SOURCE_MASK)
            chosen = draw(step_weights, [t])
            step_weights = step_weights.expand(*chosen.shape, S)
            state = (state @ parameters["recur"] + gather(values, chosen)).tanh()
            steps.append((step_weights, chosen, state))
        weights, positions, states = (
            torch.cat([step[part] for step in steps], 2) for part in range(3)
        )  # [K, N, T, ...]
        logits = (states + query) @ parameters["output"]
        log_probs = weights.gather(-1, positions.unsqueeze(-1)).squeeze(-1).log()
    scored = logits.log_softmax(-1).gather(-1, TARGETS.view(-1, 1).expand(*positions.shape, 1)).squeeze(-1)
    log_weights = torch.full_like(log_probs, -math.log(len(positions))).detach()
    return scored, Candidates(torch.empty(0), log_weights, weights, positions, log_probs)


def forced(positions):
    """Draws that are given: positions [K][REAL]; at padding, where a draw must not matter, always the first."""
    table = torch.tensor([[*path, 0] for path in positions]).unsqueeze(1)  # [K, 1, T]
    return lambda weights, steps: table[..., steps]


def sampling(samples, seed):
    """Draws of K positions for every row."""
    random = torch.Generator().manual_seed(seed)

    def draw(weights, steps):
        if weights.dim() == 3:
            weights = weights.expand(samples, *weights.shape)
        weights = weights.expand(samples, *weights.shape[1:])
        drawn = torch.multinomial(weights.detach().reshape(-1, S), 1, generator=random)
        return drawn.view(weights.shape[:-1])

    return draw


def paths():
    """Every sequence of choices at real steps."""
    return list(product(ALLOWED, repeat=REAL))


def probability(candidates):
    """Of all the draws at real steps, together."""
    return candidates.log_probs[..., :REAL].sum().exp()


def exact_gradient(fed, entropy_bonus=0.0):
    """The gradient of E_z[mean_t log p(y_t | z)] over real target positions, by listing all z."""
    parameters = problem()
    bound = torch.zeros((), dtype=torch.float64)
    for path in paths():
        scored, candidates = run(parameters, forced([path]), fed)
        bound = bound + probability(candidates) * token_mean(scored[0], MASK)
    if entropy_bonus:
        bound = bound + entropy_bonus * token_mean(entropy(candidates.weights), MASK)
    return torch.autograd.grad(-bound, list(parameters.values()), allow_unused=True)


def expected_gradient(make, samples, fed, told_fed=None):
    """The estimator's gradient, averaged over every joint outcome of its draws under their probabilities."""
    total, mass = None, 0.0
    for outcome in product(paths(), repeat=samples):
        parameters = problem()
        scored, candidates = run(parameters, forced(outcome), fed)
        share = probability(candidates).item()
        loss = make().objective(scored, candidates, MASK, fed if told_fed is None else told_fed).loss
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        gradients = [None if g is None else share * g for g in gradients]
        total = gradients if total is None else [_add(a, b) for a, b in zip(total, gradients, strict=True)]
        mass += share
    assert mass == pytest.approx(1, abs=1e-12)
    return total


def _add(a, b):
    return a if b is None else b if a is None else a + b


def assert_unbiased(make, samples, fed, **options):
    for name, expected, found in zip(
        problem(), exact_gradient(fed), expected_gradient(make, samples, fed, **options), strict=True
    ):
        assert (expected is None) == (found is None), name
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def warmed(cls=MovingAverage):
    """A moving average that has seen two batches, so that it subtracts something."""
    baseline = cls(0.7)
    with torch.no_grad():
        baseline(torch.tensor([[[-2.0, -1.0, 0.0]]], dtype=torch.float64), MASK)
        baseline(torch.tensor([[[-3.0, -0.5, 0.0]]], dtype=torch.float64), MASK)
    return baseline


UNBIASED = [
    pytest.param(NoBaseline, 1, id="none, one sample"),
    pytest.param(NoBaseline, 2, id="none, two samples"),
    pytest.param(MovingAverage, 1, id="cold moving average, one sample"),
    pytest.param(warmed, 1, id="moving average, one sample"),
    pytest.param(warmed, 2, id="moving average, two samples"),
    pytest.param(LeaveOneOut, 2, id="leave-one-out, two samples"),
]


@pytest.mark.parametrize("fed", [False, True], ids=["not fed", "fed"])
@pytest.mark.parametrize(("baseline", "samples"), UNBIASED)
def test_reinforce_is_unbiased_exactly_for_every_parameter(baseline, samples, fed):
    assert_unbiased(partial(Reinforce, baseline, samples), samples, fed)


class Mistaken(Reinforce):
    def __init__(self):
        super().__init__(LeaveOneOut, samples=2)


class WrongSign(Mistaken):
    """Discourages the choices that did well."""

    def objective(self, log_likelihoods, candidates, mask, fed=False):
        candidates = candidates._replace(log_probs=-candidates.log_probs)
        return super().objective(log_likelihoods, candidates, mask, fed)


class MisalignedReward(Mistaken):
    """Credits every choice with the token before its own."""

    def objective(self, log_likelihoods, candidates, mask, fed=False):
        rolled = candidates.log_probs[..., :REAL].roll(-1, -1)
        log_probs = torch.cat([rolled, candidates.log_probs[..., REAL:]], -1)
        return super().objective(log_likelihoods, candidates._replace(log_probs=log_probs), mask, fed)


class UndetachedReward(Mistaken):
    """Differentiates the reward inside the score-function term, too."""

    def objective(self, log_likelihoods, candidates, mask, fed=False):
        objective = super().objective(log_likelihoods, candidates, mask, fed)
        leak = token_mean((log_likelihoods * candidates.log_probs.detach()).mean(0), mask)
        return objective._replace(loss=objective.loss - leak)


class CountedPad(Mistaken):
    """Takes padding for target tokens."""

    def objective(self, log_likelihoods, candidates, mask, fed=False):
        return super().objective(log_likelihoods, candidates, torch.ones_like(mask), fed)


class CountedPadWithoutLikelihood(Mistaken):
    """Takes padding for target tokens whose likelihood is 0 nats, as the readout scores them."""

    def objective(self, log_likelihoods, candidates, mask, fed=False):
        return super().objective(log_likelihoods * mask, candidates, torch.ones_like(mask), fed)


class SummedSamples(Mistaken):
    """Adds up the K score-function terms instead of averaging them."""

    def objective(self, log_likelihoods, candidates, mask, fed=False):
        candidates = candidates._replace(log_probs=2 * candidates.log_probs)
        return super().objective(log_likelihoods, candidates, mask, fed)


class OwnMean(Baseline):
    """A mean reward that includes the draw it is subtracted from."""

    def forward(self, rewards, mask):
        return rewards.mean(0, keepdim=True)


class AverageWithCurrentBatch(MovingAverage):
    """A moving average that has already seen the rewards it is subtracted from."""

    def forward(self, rewards, mask):
        super().forward(rewards, mask)
        self.eval()
        return super().forward(rewards, mask)


MISTAKES = [
    WrongSign,
    MisalignedReward,
    UndetachedReward,
    CountedPad,
    CountedPadWithoutLikelihood,
    SummedSamples,
    pytest.param(partial(Reinforce, OwnMean, 2), id="OwnMean"),
    pytest.param(partial(Reinforce, partial(AverageWithCurrentBatch, 0.5), 2), id="AverageWithCurrentBatch"),
]


@pytest.mark.parametrize("fed", [False, True], ids=["not fed", "fed"])
@pytest.mark.parametrize("mistaken", MISTAKES)
def test_the_check_catches_planted_mistakes(mistaken, fed):
    with pytest.raises(AssertionError):
        assert_unbiased(mistaken, 2, fed)


def test_the_check_catches_a_fed_process_whose_choices_are_credited_with_their_own_token_only():
    with pytest.raises(AssertionError):
        assert_unbiased(partial(Reinforce, NoBaseline, 1), 1, fed=True, told_fed=False)


def test_reward_to_go_is_unbiased_where_nothing_is_fed_only_noisier():
    assert_unbiased(partial(Reinforce, LeaveOneOut, 2), 2, fed=False, told_fed=True)


def test_the_entropy_bonus_adds_the_gradient_of_the_entropy():
    found = expected_gradient(partial(Reinforce, LeaveOneOut, 2, entropy_bonus=0.4), 2, fed=False)
    for expected, gradient in zip(exact_gradient(False, entropy_bonus=0.4), found, strict=True):
        if expected is not None:
            torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)


def sampled_gradients(make, samples, fed, rows, seed=3, offset=0.0):
    """The gradients [rows, ...] of independent rows of one batch, each by its own draws."""
    parameters = problem(rows)
    scored, candidates = run(parameters, sampling(samples, seed), fed)
    mask = MASK.expand(rows, T)
    loss = make().objective(scored + offset, candidates, mask, fed).loss
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    # the objective is a mean over the tokens of all rows; a row alone would be divided by its own tokens only
    return [None if gradient is None else gradient * rows for gradient in gradients]


@pytest.mark.parametrize("fed", [False, True], ids=["not fed", "fed"])
@pytest.mark.parametrize(("baseline", "samples"), [(NoBaseline, 1), (warmed, 3), (LeaveOneOut, 4)])
def test_the_mean_of_many_sampled_gradients_is_the_exact_one_within_its_standard_error(baseline, samples, fed):
    rows = 20_000
    found = sampled_gradients(partial(Reinforce, baseline, samples), samples, fed, rows)
    for expected, gradient in zip(exact_gradient(fed), found, strict=True):
        if expected is None:
            continue
        error = gradient.std(0) / math.sqrt(rows)
        assert ((gradient.mean(0) - expected[0]).abs() <= 4.5 * error + 1e-9).all()


@pytest.mark.parametrize("fed", [False, True], ids=["not fed", "fed"])
def test_leave_one_out_has_less_variance_than_no_baseline_when_rewards_share_an_offset(fed):
    def variance(baseline):
        gradients = sampled_gradients(partial(Reinforce, baseline, 4), 4, fed, 4000, offset=-5.0)
        return sum(float(gradient.var(0).sum()) for gradient in gradients if gradient is not None)

    assert variance(LeaveOneOut) < 0.2 * variance(NoBaseline)


def test_a_constant_added_to_all_rewards_changes_nothing_under_leave_one_out():
    plain, offset = (
        sampled_gradients(partial(Reinforce, LeaveOneOut, 3), 3, False, 10, offset=value) for value in (0.0, 7.0)
    )
    for a, b in zip(plain, offset, strict=True):
        if a is not None:
            torch.testing.assert_close(a, b)


def test_reinforce_metrics_are_over_real_target_positions():
    parameters = problem()
    scored, candidates = run(parameters, forced([(0, 1), (3, 0)]), fed=False)
    estimator = Reinforce(LeaveOneOut, samples=2)
    metrics = estimator.objective(scored, candidates, MASK).metrics
    assert metrics["nll"].item() == pytest.approx(-scored[..., :REAL].mean().item())
    difference = (scored[0] - scored[1])[..., :REAL].detach()
    advantages = torch.stack([difference, -difference])
    assert metrics["advantage_mean"].item() == pytest.approx(0, abs=1e-12)
    assert metrics["advantage_std"].item() == pytest.approx(advantages.std(correction=0).item())
    expected = entropy(candidates.weights)[0, :REAL].mean().item()
    assert metrics["attention_entropy"].item() == pytest.approx(expected)


def test_one_token_and_one_sample_give_finite_metrics():
    estimator = Reinforce(NoBaseline, samples=1)
    weights = torch.tensor([[[0.25, 0.75]]])
    candidates = estimator.select(weights, torch.ones(1, 2, 3))
    objective = estimator.objective(torch.tensor([[[-1.5]]]), candidates, torch.tensor([[True]]))
    assert all(value.isfinite() for value in objective.metrics.values())


def test_too_few_samples_for_the_baseline_are_refused_with_a_sentence():
    with pytest.raises(ValueError, match=r"LeaveOneOut compares at least 2 samples, but .+samples is 1; .+\."):
        Reinforce(LeaveOneOut, samples=1)


@pytest.mark.parametrize("make", [Expectation, ExactMarginal, partial(Reinforce, LeaveOneOut, 4)])
def test_padded_target_positions_change_neither_loss_nor_gradient(make):
    def loss_and_gradient(pad):
        torch.manual_seed(0)
        weights = torch.rand(2, 3, S, dtype=torch.float64).softmax(-1).requires_grad_()
        values = torch.rand(2, S, D, dtype=torch.float64)
        estimator, mask = make(), torch.tensor([[True, True, False], [True, False, False]])
        candidates = estimator.select(weights, values)
        scored = -candidates.contexts.square().sum(-1).masked_fill(~mask, pad)
        objective = estimator.objective(scored, candidates, mask)
        return objective, torch.autograd.grad(objective.loss, weights)[0]

    (plain, gradient), (other, other_gradient) = loss_and_gradient(0.0), loss_and_gradient(-40.0)
    assert torch.equal(plain.loss, other.loss)
    assert torch.equal(gradient, other_gradient)
    for name, value in plain.metrics.items():
        assert torch.equal(value, other.metrics[name])


def test_the_exact_objective_is_the_brute_force_marginal_with_its_gradient():
    parameters = problem()
    scored, candidates = run(parameters, forced([[z] * REAL for z in range(S)]), fed=False)
    selected = ExactMarginal().select(candidates.weights, parameters["values"])
    loss = ExactMarginal().objective(scored, selected, MASK).loss
    brute = (
        -sum(
            torch.stack([candidates.weights[0, t, z] * scored[z, 0, t].exp() for z in ALLOWED]).sum().log()
            for t in range(REAL)
        )
        / 2
    )
    torch.testing.assert_close(loss, brute)
    leaves = [parameters[name] for name in ("query", "keys", "values", "output")]
    for a, b in zip(
        torch.autograd.grad(loss, leaves, retain_graph=True), torch.autograd.grad(brute, leaves), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_a_masked_position_never_explains_a_token_however_unlikely_the_others_make_it():
    weights = Softmax()(torch.zeros(1, 1, 3), torch.tensor([True, True, False])).requires_grad_()
    candidates = ExactMarginal().select(weights, torch.zeros(1, 3, 2))
    scored = torch.tensor([-300.0, -310.0, 0.0]).view(3, 1, 1).requires_grad_()
    loss = ExactMarginal().objective(scored, candidates, torch.tensor([[True]])).loss
    assert loss.item() == pytest.approx(300 + math.log(2) - math.log1p(math.exp(-10)), abs=1e-3)
    loss.backward()
    assert scored.grad.isfinite().all()
    assert weights.grad.isfinite().all()
    assert scored.grad[2] == 0


def test_jensen_the_sampled_bound_lies_below_the_exact_marginal():
    parameters = problem()
    scored, candidates = run(parameters, forced([[z] * REAL for z in range(S)]), fed=False)
    weights = candidates.weights[0].t().unsqueeze(1)  # [S, 1, T]
    bound = token_mean((weights * scored).sum(0), MASK)
    selected = ExactMarginal().select(candidates.weights, parameters["values"])
    assert bound < -ExactMarginal().objective(scored, selected, MASK).loss


def test_entropy_of_uniform_and_peaked_weights_with_finite_gradients():
    weights = torch.tensor([[0.25] * 4, [1.0, 0.0, 0.0, 0.0]], requires_grad=True)
    values = entropy(weights)
    torch.testing.assert_close(values, torch.tensor([math.log(4), 0.0]))
    values.sum().backward()
    assert weights.grad.isfinite().all()


def test_estimators_are_modules_so_a_baseline_s_state_is_saved():
    estimator = Reinforce(warmed, samples=1)
    other = Reinforce(MovingAverage, samples=1)
    other.load_state_dict(estimator.state_dict())
    assert isinstance(estimator, nn.Module)
    assert other.baseline.updates.item() == 2
    assert other.baseline.average == estimator.baseline.average
