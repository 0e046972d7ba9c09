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

from attnlab.attention import (
    ExactMarginal,
    Expectation,
    GumbelSoftmax,
    ImportanceWeighted,
    Reinforce,
    SampledVariational,
    Softmax,
    Variational,
)
from attnlab.attention.baselines import (
    Baseline,
    Learned,
    LeaveOneOut,
    MovingAverage,
    NoBaseline,
    SelfCritic,
    SoftContext,
)
from attnlab.attention.estimators import token_mean
from attnlab.attention.selection import Candidates, entropy, gather

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


def run(parameters, draw, fed, reads=None):
    """The process: log p(y_t | choices) [K, N, T] and the candidates, with the choices that `draw` makes.

    Not fed, a choice reaches its own step only; fed, its value enters a recurrent state that queries and scores every
    later step. `draw(weights, steps)` returns positions [K, N, len(steps)] for weights [(K,) N, len(steps), S], or None
    for the expected context. With `reads`, a last candidate follows that mode, as a baseline may ask for.
    """
    if reads is not None:
        scored, drawn = run(parameters, draw, fed)
        read = {"argmax": lambda weights, steps: weights.argmax(-1).view(1, -1, len(steps)), "soft": lambda *_: None}
        other, beside = run(parameters, read[reads], fed)
        weights = torch.cat([drawn.weights, beside.weights]) if fed else drawn.weights
        queries = torch.cat([drawn.queries, beside.queries]) if fed else drawn.queries
        return torch.cat([scored, other]), drawn._replace(weights=weights, queries=queries, positions=None)
    normalizer = Softmax()
    query, keys, values = parameters["query"], parameters["keys"], parameters["values"]
    if not fed:
        weights = normalizer(query @ keys.transpose(-1, -2), SOURCE_MASK)
        positions = draw(weights, list(range(T)))
        contexts = (weights @ values).unsqueeze(0) if positions is None else gather(values, positions)
        logits = (contexts + query).tanh() @ parameters["output"]
        queries = query
    else:
        state, steps = torch.zeros_like(query[:, :1]).unsqueeze(0), []  # [1, N, 1, D]
        for t in range(T):
            asked = state + query[:, t : t + 1]
            step_weights = normalizer(asked @ keys.transpose(-1, -2), SOURCE_MASK)
            chosen = draw(step_weights, [t])
            context = step_weights @ values if chosen is None else gather(values, chosen)
            asked, step_weights = (x.expand(*context.shape[:2], *x.shape[2:]) for x in (asked, step_weights))
            state = (state @ parameters["recur"] + context).tanh()
            steps.append((step_weights, chosen, state, asked))
        weights, states, queries = (torch.cat([step[part] for step in steps], 2) for part in (0, 2, 3))
        positions = None if steps[0][1] is None else torch.cat([step[1] for step in steps], 2)
        logits = (states + query) @ parameters["output"]
    targets = TARGETS.view(-1, 1).expand(*logits.shape[:-1], 1)
    scored = logits.log_softmax(-1).gather(-1, targets).squeeze(-1)
    if positions is None:
        return scored, Candidates(torch.empty(0), torch.zeros_like(scored), weights, queries=queries)
    log_probs = weights.expand(*positions.shape, S).gather(-1, positions.unsqueeze(-1)).squeeze(-1).log()
    log_weights = torch.full_like(log_probs, -math.log(len(positions))).detach()
    return scored, Candidates(torch.empty(0), log_weights, weights, positions, log_probs, queries=queries)


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
        parameters, estimator = problem(), make()
        scored, candidates = run(parameters, forced(outcome), fed, estimator.baseline.reads)
        share = probability(candidates).item()
        loss = estimator.objective(scored, candidates, MASK, fed if told_fed is None else told_fed).loss
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


def warmed(cls=MovingAverage, query_size=0):
    """A moving average that has seen two batches, so that it subtracts something."""
    baseline = cls(0.7)
    with torch.no_grad():
        baseline(torch.tensor([[[-2.0, -1.0, 0.0]]], dtype=torch.float64), MASK)
        baseline(torch.tensor([[[-3.0, -0.5, 0.0]]], dtype=torch.float64), MASK)
    return baseline


def learned(query_size):
    """A value head that predicts something."""
    torch.manual_seed(4)
    return Learned(size=4, query_size=query_size).double()


UNBIASED = [
    pytest.param(NoBaseline, 1, id="none, one sample"),
    pytest.param(NoBaseline, 2, id="none, two samples"),
    pytest.param(MovingAverage, 1, id="cold moving average, one sample"),
    pytest.param(warmed, 1, id="moving average, one sample"),
    pytest.param(warmed, 2, id="moving average, two samples"),
    pytest.param(LeaveOneOut, 2, id="leave-one-out, two samples"),
    pytest.param(SelfCritic, 1, id="self-critic, one sample"),
    pytest.param(SelfCritic, 2, id="self-critic, two samples"),
    pytest.param(SoftContext, 1, id="soft context, one sample"),
    pytest.param(SoftContext, 2, id="soft context, two samples"),
    pytest.param(learned, 1, id="learned, one sample"),
    pytest.param(learned, 2, id="learned, two samples"),
]


@pytest.mark.parametrize("fed", [False, True], ids=["not fed", "fed"])
@pytest.mark.parametrize(("baseline", "samples"), UNBIASED)
def test_reinforce_is_unbiased_exactly_for_every_parameter(baseline, samples, fed):
    assert_unbiased(partial(Reinforce, baseline, samples, query_size=D), samples, fed)


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

    def forward(self, rewards, mask, compared=None, queries=None):
        return rewards.mean(0, keepdim=True)


class AverageWithCurrentBatch(MovingAverage):
    """A moving average that has already seen the rewards it is subtracted from."""

    def forward(self, rewards, mask, compared=None, queries=None):
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
    parameters, estimator = problem(rows), make()
    scored, candidates = run(parameters, sampling(samples, seed), fed, estimator.baseline.reads)
    mask = MASK.expand(rows, T)
    loss = estimator.objective(scored + offset, candidates, mask, fed).loss
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    # the objective is a mean over the tokens of all rows; a row alone would be divided by its own tokens only
    return [None if gradient is None else gradient * rows for gradient in gradients]


@pytest.mark.parametrize("fed", [False, True], ids=["not fed", "fed"])
@pytest.mark.parametrize(
    ("baseline", "samples"), [(NoBaseline, 1), (warmed, 3), (LeaveOneOut, 4), (SelfCritic, 2), (SoftContext, 2)]
)
def test_the_mean_of_many_sampled_gradients_is_the_exact_one_within_its_standard_error(baseline, samples, fed):
    rows = 20_000
    found = sampled_gradients(partial(Reinforce, baseline, samples), samples, fed, rows)
    for expected, gradient in zip(exact_gradient(fed), found, strict=True):
        if expected is None:
            continue
        error = gradient.std(0) / math.sqrt(rows)
        assert ((gradient.mean(0) - expected[0]).abs() <= 4.5 * error + 1e-9).all()


def variance(baseline, fed, offset):
    """The trace of the gradient's variance with four draws, the baseline having seen some batches."""
    estimator = Reinforce(baseline, 4)
    for seed in range(30):
        sampled_gradients(lambda: estimator, 4, fed, 20, seed=seed, offset=offset)
    gradients = sampled_gradients(lambda: estimator, 4, fed, 4000, offset=offset)
    return sum(float(gradient.var(0).sum()) for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("fed", [False, True], ids=["not fed", "fed"])
def test_leave_one_out_varies_less_than_the_moving_average_and_that_less_than_none_where_rewards_share_an_offset(fed):
    none, average, others = (variance(baseline, fed, -5.0) for baseline in (NoBaseline, MovingAverage, LeaveOneOut))
    assert others < average < none
    assert others < 0.2 * none


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


@pytest.mark.parametrize(
    "make",
    [
        Expectation, ExactMarginal, partial(ExactMarginal, top=2), partial(Reinforce, LeaveOneOut, 4),
        partial(Reinforce, SoftContext, 2), GumbelSoftmax, Variational, ImportanceWeighted,
        partial(SampledVariational, LeaveOneOut, 2),
    ],
)  # fmt: skip
def test_padded_target_positions_change_neither_loss_nor_gradient(make):
    def loss_and_gradient(pad):
        torch.manual_seed(0)
        weights = torch.rand(2, 3, S, dtype=torch.float64).softmax(-1).requires_grad_()
        values = torch.rand(2, S, D, dtype=torch.float64)
        estimator, mask = make(), torch.tensor([[True, True, False], [True, False, False]])
        posterior = torch.rand(2, 3, S, dtype=torch.float64).softmax(-1)
        candidates = estimator.select(weights, values, posterior)
        scored = -candidates.contexts.square().sum(-1).expand(len(candidates.contexts), 2, 3).masked_fill(~mask, pad)
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


def test_the_entropy_bonus_falls_linearly_over_the_training():
    estimator = Reinforce(LeaveOneOut, samples=2, entropy_bonus=0.4, final_entropy_bonus=0.1)
    for progress, expected in ((0, 0.4), (0.5, 0.25), (1, 0.1)):
        estimator.anneal(progress)
        assert estimator.entropy_bonus == pytest.approx(expected)
    constant = Reinforce(LeaveOneOut, samples=2, entropy_bonus=0.4)
    constant.anneal(1.0)
    assert constant.entropy_bonus == 0.4


def test_semi_sampling_reads_the_expected_context_and_then_has_its_gradient():
    parameters = problem()
    weights = Softmax()(parameters["query"] @ parameters["keys"].transpose(-1, -2), SOURCE_MASK)
    estimator = Reinforce(NoBaseline, samples=2, semi_sampling=1.0)
    candidates = estimator.select(weights, parameters["values"])
    assert (candidates.log_probs == 0).all()
    gradients = []
    for made, record in ((estimator, candidates), (Expectation(), Expectation().select(weights, parameters["values"]))):
        loss = made.objective(-record.contexts.square().sum(-1), record, MASK).loss
        gradients.append(torch.autograd.grad(loss, parameters["query"], retain_graph=True)[0])
    torch.testing.assert_close(*gradients)
    torch.manual_seed(0)
    half = Reinforce(NoBaseline, samples=2, semi_sampling=0.5).select(weights.expand(500, T, S), parameters["values"])
    soft = (half.log_probs == 0).all(0)
    assert 0.45 < soft.double().mean() < 0.55
    expected = (weights @ parameters["values"]).expand(500, T, D)
    torch.testing.assert_close(half.contexts[0][soft], expected[soft])
    at = gather(parameters["values"].expand(500, S, D), half.positions)
    assert torch.equal(half.contexts[:, ~soft], at[:, ~soft])
    with pytest.raises(ValueError, match=r"probability, found 1\.5"):
        Reinforce(NoBaseline, samples=1, semi_sampling=1.5)


def test_a_learned_baseline_is_fitted_to_the_rewards_and_to_nothing_else():
    torch.manual_seed(0)
    estimator = Reinforce(Learned, samples=2, query_size=D).double()
    optimizer = torch.optim.Adam(estimator.parameters(), lr=0.02)
    parameters = problem(100)
    for step in range(300):
        scored, candidates = run(parameters, sampling(2, step), fed=False)
        loss = estimator.objective(scored, candidates, MASK.expand(100, T)).loss
        optimizer.zero_grad()
        loss.backward(inputs=list(estimator.parameters()))
        optimizer.step()
    weights = candidates.weights[0, :REAL].detach()
    every = run(problem(), forced([[z] * REAL for z in range(S)]), fed=False)[0][:, 0, :REAL].detach()
    mean = (weights.t() * every).sum(0)  # E[r_t]
    found = estimator.baseline(torch.zeros(2, 1, T).double(), MASK, None, parameters["query"])[0, :REAL]
    torch.testing.assert_close(found.detach(), mean, atol=0.2, rtol=0)


def test_a_relaxed_gumbel_draw_approaches_the_sampled_bound_as_the_temperature_falls():
    torch.manual_seed(0)
    weights, values = torch.tensor([[0.5, 0.2, 0.3]]).double(), torch.randn(3, 2).double()
    cold = GumbelSoftmax(temperature=1e-3, straight_through=False, samples=20_000).select(weights, values)
    shares = torch.stack([(cold.contexts - value).abs().amax(-1).lt(1e-2).double().mean() for value in values])
    torch.testing.assert_close(shares, weights[0], atol=0.02, rtol=0)
    hot = GumbelSoftmax(temperature=1e3, straight_through=False).select(weights, values)
    torch.testing.assert_close(hot.contexts[0, 0], values.mean(0), atol=0.02, rtol=0)


def test_straight_through_reads_one_value_with_the_gradient_of_the_relaxed_draw():
    weights = torch.tensor([[0.5, 0.2, 0.3]]).double().requires_grad_()
    values = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    gradients, read = [], []
    for straight in (True, False):
        torch.manual_seed(1)
        candidates = GumbelSoftmax(straight_through=straight).select(weights, values)
        of_weights, of_values = torch.autograd.grad(candidates.contexts.sum(), (weights, values))
        gradients.append(of_weights)
        read.append(of_values)
        if straight:
            assert torch.equal(candidates.contexts[0], values[candidates.positions[0]])
            assert torch.equal(read[0][:, 0], torch.eye(3)[candidates.positions.flatten()[0]].double())
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(*(part.sum(0) for part in read))  # each context is made of one value, or of a mean


def test_the_gumbel_temperature_falls_geometrically():
    estimator = GumbelSoftmax(temperature=4.0, final_temperature=1.0)
    estimator.anneal(0.5)
    assert estimator.temperature == pytest.approx(2.0)
    for options in ({"temperature": 0.0}, {"final_temperature": -1.0}, {"samples": 0}):
        with pytest.raises(ValueError, match=r"must be"):
            GumbelSoftmax(**options)


def test_a_truncated_marginal_is_a_lower_bound_and_whole_where_nothing_is_cut():
    parameters = problem()
    weights = Softmax()(parameters["query"] @ parameters["keys"].transpose(-1, -2), SOURCE_MASK)

    def likelihood(top):
        estimator = ExactMarginal(top)
        candidates = estimator.select(weights, parameters["values"])
        logits = (candidates.contexts + parameters["query"]).tanh() @ parameters["output"]
        scored = logits.log_softmax(-1)[..., torch.arange(T), TARGETS]
        return -estimator.objective(scored, candidates, MASK).loss

    bounds = [likelihood(top) for top in (1, 2, 3, S, None)]
    assert bounds[0] < bounds[1] < bounds[2]
    torch.testing.assert_close(bounds[2], bounds[4], msg="three positions are allowed")
    torch.testing.assert_close(bounds[3], bounds[4])


class Guided:
    """A tiny problem with a posterior: log-likelihoods of every position, a prior and q, all with parameters."""

    def __init__(self, seed=0):
        random = torch.Generator().manual_seed(seed)
        self.leaves = [torch.randn(1, T, S, generator=random, dtype=torch.float64).requires_grad_() for _ in range(3)]
        prior, posterior, scores = self.leaves
        self.prior, self.posterior = Softmax()(prior, SOURCE_MASK), Softmax()(posterior, SOURCE_MASK)
        self.scored = -scores.square().movedim(-1, 0)  # [S, 1, T], log p(y | z)

    def candidates(self, draws):
        positions = torch.tensor([[*path, 0] for path in draws]).unsqueeze(1)  # [K, 1, T]
        log_probs = self.posterior.movedim(-1, 0).gather(0, positions).log()
        record = Candidates(torch.empty(0), torch.zeros_like(log_probs), self.prior, positions, log_probs)
        return self.scored.gather(0, positions), record._replace(posterior=self.posterior)

    def whole(self):
        return self.scored, Candidates(torch.empty(0), self.scored, self.prior, posterior=self.posterior)

    def gradient(self, loss):
        return torch.autograd.grad(loss, self.leaves)


def elbo(guided):
    """sum_z q(z) [log p(z) + log p(y | z) - log q(z)] over real tokens, by listing positions."""
    total = 0.0
    for t, z in product(range(REAL), ALLOWED):
        q = guided.posterior[0, t, z]
        total = total + q * (guided.prior[0, t, z].log() + guided.scored[z, 0, t] - q.log())
    return total / REAL


def test_the_enumerated_evidence_lower_bound_is_its_definition_with_its_gradient():
    guided = Guided()
    objective = Variational().objective(*guided.whole(), MASK)
    torch.testing.assert_close(-objective.loss, elbo(Guided()))
    again = Guided()
    for a, b in zip(guided.gradient(objective.loss), again.gradient(-elbo(again)), strict=True):
        torch.testing.assert_close(a, b)


def test_the_bound_is_tight_where_q_is_the_true_posterior():
    guided = Guided()
    joint = guided.prior.movedim(-1, 0).log() + guided.scored
    scored, candidates = guided.whole()
    marginal = token_mean(joint.logsumexp(0), MASK)
    assert -Variational().objective(scored, candidates, MASK).loss < marginal
    tight = candidates._replace(posterior=joint.softmax(0).movedim(0, -1))
    torch.testing.assert_close(-Variational().objective(scored, tight, MASK).loss, marginal)


def outcomes(samples):
    return product(paths(), repeat=samples)


def assert_gradient_of(bound, make, samples):
    """That the estimator's gradient, averaged over every joint outcome of its draws from q, is that of `bound()`."""
    guided = Guided()
    expected = guided.gradient(-bound(guided))
    found = [torch.zeros_like(leaf) for leaf in guided.leaves]
    for draws in outcomes(samples):
        guided = Guided()
        scored, candidates = guided.candidates(draws)
        loss = probability(candidates).detach() * make().objective(scored, candidates, MASK).loss
        for total, gradient in zip(found, guided.gradient(loss), strict=True):
            total += gradient
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("baseline", "samples"), [(NoBaseline, 1), (LeaveOneOut, 2), (warmed, 2)])
def test_the_sampled_evidence_lower_bound_has_the_enumerated_gradient_exactly(baseline, samples):
    assert_gradient_of(elbo, partial(SampledVariational, baseline, samples), samples)


def importance_bound(samples):
    def bound(guided):
        """E over draws of log 1/K sum_k p(z_k) p(y | z_k) / q(z_k), by listing them."""
        total = 0.0
        for draws in outcomes(samples):
            scored, candidates = guided.candidates(draws)
            prior = guided.prior.movedim(-1, 0).gather(0, candidates.positions).log()
            ratios = scored + prior - candidates.log_probs
            total = total + probability(candidates) * token_mean(ratios.logsumexp(0) - math.log(samples), MASK)
        return total

    return bound


@pytest.mark.parametrize("samples", [2, 3])
def test_the_importance_weighted_bound_has_its_own_gradient_exactly(samples):
    assert_gradient_of(importance_bound(samples), partial(ImportanceWeighted, samples), samples)


def test_more_importance_samples_tighten_the_bound():
    guided = Guided()
    marginal = token_mean((guided.prior.movedim(-1, 0).log() + guided.scored).logsumexp(0), MASK)
    two, three = (importance_bound(samples)(guided) for samples in (2, 3))
    assert elbo(guided) < two < three < marginal


@pytest.mark.parametrize("make", [Variational, ImportanceWeighted, partial(SampledVariational, LeaveOneOut, 2)])
def test_without_an_inference_network_a_sentence_says_what_to_choose(make):
    with pytest.raises(ValueError, match=r"inference network .+ choose attention/estimator=exact"):
        make().select(torch.ones(1, 1, 2) / 2, torch.zeros(1, 2, 3))


def test_an_importance_weighted_bound_of_one_sample_is_refused():
    with pytest.raises(ValueError, match=r"at least 2 samples, but attention.estimator.samples is 1"):
        ImportanceWeighted(samples=1)
