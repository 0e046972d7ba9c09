"""The Transformer encoder-decoder under every estimator that it can run."""

from functools import partial
from itertools import product

import pytest
import torch

from attnlab.attention import (
    AdditiveScore,
    Attention,
    ExactMarginal,
    Expectation,
    GumbelSoftmax,
    Reinforce,
    ScaledDotScore,
    Softmax,
    reading,
)
from attnlab.attention.baselines import Learned, LeaveOneOut, NoBaseline, SelfCritic, SoftContext
from attnlab.attention.estimators import token_mean
from attnlab.decoding import beam, greedy
from attnlab.kernels import block
from attnlab.kernels.products import Packing
from attnlab.nn.transformer import Transformer

ESTIMATORS = {
    "expectation": Expectation,
    "reinforce": partial(Reinforce, LeaveOneOut, 3),
    "reinforce, self-critic": partial(Reinforce, SelfCritic, 2),
    "reinforce, soft context": partial(Reinforce, SoftContext, 2),
    "reinforce, learned": partial(Reinforce, Learned, 2),
    "gumbel": partial(GumbelSoftmax, samples=2),
}
PAD, BEGIN, END = 0, 1, 2
SOURCE = torch.tensor([[3, 4, 5, 6], [5, 3, 0, 0], [6, 0, 0, 0]])
TARGET = torch.tensor([[4, 3, 5, END], [6, END, 0, 0], [3, 3, END, 0]])
TARGET_IN = torch.tensor([[BEGIN, 4, 3, 5], [BEGIN, 6, 0, 0], [BEGIN, 3, 3, 0]])
MASK = TARGET != PAD
B, T = TARGET.shape


def model(estimator=Expectation, variant="cross", score=ScaledDotScore, **options):
    torch.manual_seed(0)
    sizes = {"embedding": 8, "depth": 2, "heads": 2, "hidden": 12, "dropout": 0.0}
    attention = partial(Attention, score, Softmax, estimator)
    return Transformer(
        attention=attention, variant=variant, source_vocabulary=7, target_vocabulary=7, **(sizes | options)
    ).double()


every_model = pytest.mark.parametrize("estimator", list(ESTIMATORS.values()), ids=list(ESTIMATORS))
every_place = pytest.mark.parametrize("variant", ["cross", "all"])


def stepwise(transformer, source, target_in):
    """log p(next) [B, T, V] and weights [B, T, S] through the search's interface."""
    state, log_probs, weights = transformer.start(source), [], []
    for tokens in target_in.unbind(1):
        step_log_probs, step_weights, state = transformer.step(tokens, state)
        log_probs.append(step_log_probs)
        weights.append(step_weights)
    return torch.stack(log_probs, 1), torch.stack(weights, 1)


@every_model
@every_place
def test_cached_steps_equal_the_teacher_forced_run_in_every_deterministic_mode(estimator, variant):
    transformer = model(estimator, variant).eval()
    for mode in (mode for mode in transformer.modes if mode != "sample"):
        with reading(transformer, mode):
            scored, candidates = transformer(SOURCE, TARGET_IN, TARGET)
            log_probs, weights = stepwise(transformer, SOURCE, TARGET_IN)
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(B, T, dtype=torch.float64))
        entries = log_probs.gather(-1, TARGET.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(candidates.mixture(scored)[MASK], entries[MASK], msg=mode)
        torch.testing.assert_close(candidates.weights[MASK], weights[MASK], msg=mode)
        torch.testing.assert_close(weights[MASK].sum(-1), torch.ones(int(MASK.sum()), dtype=torch.float64))


@every_model
def test_results_do_not_depend_on_the_batch_or_its_padding(estimator):
    transformer = model(estimator, "all").eval()
    scored, candidates = transformer(SOURCE, TARGET_IN, TARGET)
    mixed = candidates.mixture(scored)
    pad = torch.zeros(B, 2, dtype=torch.long)
    wide, wider = transformer(*(torch.cat([part, pad], 1) for part in (SOURCE, TARGET_IN, TARGET)))
    torch.testing.assert_close(wider.mixture(wide)[:, :T][MASK], mixed[MASK])
    for row in range(B):
        source = SOURCE[row : row + 1, : int((SOURCE[row] != PAD).sum())]
        length = int(MASK[row].sum())
        alone, lone = transformer(source, TARGET_IN[row : row + 1, :length], TARGET[row : row + 1, :length])
        torch.testing.assert_close(lone.mixture(alone)[0], mixed[row, :length])


@every_model
def test_searches_run_and_their_scores_are_likelihoods(estimator):
    transformer = model(estimator).eval()
    limits = torch.tensor([5, 4, 3])
    for found in (
        greedy(transformer, SOURCE, limits, BEGIN, END),
        beam(transformer, SOURCE, limits, BEGIN, END, 3),
    ):
        for row, hypothesis in enumerate(found):
            ended = len(hypothesis.weights) > len(hypothesis.tokens)
            target = torch.tensor([[*hypothesis.tokens, *[END] * ended]])
            target_in = torch.tensor([[BEGIN, *target[0, :-1].tolist()]])
            log_probs, _ = stepwise(transformer, SOURCE[row : row + 1], target_in)
            assert hypothesis.score == pytest.approx(log_probs.gather(-1, target.unsqueeze(-1)).sum().item(), abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("score", [ScaledDotScore, partial(AdditiveScore, size=3)])
@pytest.mark.parametrize("estimator", [Expectation, partial(Reinforce, LeaveOneOut, 3)])
def test_a_search_by_kernels_finds_what_one_in_double_precision_finds(estimator, score, width):
    """Hypotheses are copied, change places and leave, and each reads its own past where it lies."""
    transformer = model(estimator, score=score, embedding=64, hidden=128).float().eval()
    torch.manual_seed(1)
    for parameter in transformer.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))  # far from ties
    exact = model(estimator, score=score, embedding=64, hidden=128).eval()
    exact.load_state_dict(transformer.state_dict())
    source, limits = torch.randint(3, 7, (20, 6)), torch.arange(20) % 9 + 4
    search = partial(beam, width=width) if width > 1 else greedy
    with Packing():
        state = transformer.step(torch.full((20,), BEGIN), transformer.start(source))[2]
        in_place = isinstance(state.past[0], list)
        found = search(transformer, source, limits, BEGIN, END)
    assert in_place == (block._kernel() is not None)
    for mine, right in zip(found, search(exact, source, limits, BEGIN, END), strict=True):
        assert mine.tokens == right.tokens
        assert mine.score == pytest.approx(right.score, abs=1e-3)
        torch.testing.assert_close(mine.weights.double(), right.weights.double(), rtol=0, atol=1e-4)


@every_model
@every_place
@pytest.mark.parametrize("score", [ScaledDotScore, partial(AdditiveScore, size=3)])
def test_every_parameter_gets_a_finite_gradient(estimator, variant, score):
    transformer = model(estimator, variant, score, dropout=0.1, word_dropout=0.1).train()
    loss, metrics = transformer.objective(*transformer(SOURCE, TARGET_IN, TARGET, 0.1), MASK)
    loss.backward()
    assert all(value.isfinite() for value in metrics.values())
    for name, parameter in transformer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


class Forced:
    """torch.multinomial with given outcomes, [rows, 1] at each call."""

    def __init__(self, calls):
        self.calls = list(calls)

    def __call__(self, rows, samples, replacement=False, generator=None):
        drawn = self.calls.pop(0)
        assert drawn.shape == (len(rows), samples)
        return drawn


@every_place
@pytest.mark.parametrize(("baseline", "samples"), [(NoBaseline, 1), (LeaveOneOut, 2), (SelfCritic, 1), (Learned, 1)])
def test_reinforce_is_unbiased_exactly(variant, baseline, samples, monkeypatch):
    """One block, one head, two source and two target tokens; the second target step sees both tokens, the first one."""
    source, target_in, target = SOURCE[1:2, :2], TARGET_IN[1:2, :2], TARGET[1:2, :2]
    mask = target != PAD
    transformer = model(partial(Reinforce, baseline, samples), variant, depth=1, heads=1).train()
    estimator = transformer.estimator
    named = [(name, parameter) for name, parameter in transformer.named_parameters() if "baseline" not in name]
    parameters = [parameter for _, parameter in named]
    cross = list(product(range(2), repeat=2))
    own = [(0, 0), (0, 1)]
    paths = [(c,) for c in cross] if variant == "cross" else list(product(cross, own, cross))
    if variant == "all" and samples > 1:
        pytest.skip("4096 outcomes say nothing more")

    def outcome(chosen):
        calls = [
            torch.tensor([p for path in chosen for p in path[call]]).unsqueeze(1) for call in range(len(chosen[0]))
        ]
        monkeypatch.setattr(torch, "multinomial", Forced(calls))
        scored, candidates = transformer(source, target_in, target)
        return scored, candidates, candidates.log_probs[: len(chosen)].sum().exp()

    estimator.samples = 1
    bound, total = 0.0, 0.0
    for path in paths:
        scored, _, probability = outcome([path])
        bound, total = bound + probability * token_mean(scored[0], mask), total + probability.item()
    assert total == pytest.approx(1)
    expected = torch.autograd.grad(-bound, parameters, allow_unused=True)
    estimator.samples = samples
    found = [torch.zeros_like(parameter) for parameter in parameters]
    for chosen in product(paths, repeat=samples):
        scored, candidates, probability = outcome(chosen)
        loss = probability.detach() * transformer.objective(scored, candidates, mask).loss
        for whole, part in zip(found, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
            whole += 0 if part is None else part
    for (name, _), a, b in zip(named, found, expected, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-9, atol=1e-10, msg=name)


def test_a_test_mode_leaves_the_soft_self_attention_as_it_is():
    transformer = model(ESTIMATORS["reinforce"], "cross").eval()
    tokens = transformer.start(SOURCE).sources[0].values
    with reading(transformer, "argmax"):
        assert torch.equal(transformer.start(SOURCE).sources[0].values, tokens)


def test_what_sums_over_positions_is_refused_with_an_alternative():
    with pytest.raises(ValueError, match=r"cannot stand in a Transformer.+ choose model=rnn, or .+reinforce\."):
        model(ExactMarginal)
    with pytest.raises(ValueError, match="variant=own is neither cross"):
        model(variant="own")


@every_model
@every_place
def test_a_batch_without_sentences_has_no_likelihoods(estimator, variant):
    scored, candidates = model(estimator, variant)(SOURCE[:0], TARGET_IN[:0], TARGET[:0])
    assert scored.shape[1:] == candidates.weights.shape[-3:-1] == (0, T)
