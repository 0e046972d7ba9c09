"""What every score, normalizer and estimator promises, tested on all that conf/attention lists.

A new variant is one class and one yaml; it is found here by its yaml and needs no test of its own for any of this.
"""

from itertools import product
from pathlib import Path

import pytest
import torch
import yaml
from torch.func import functional_call

from attnlab.attention import MODES, Attention, reading
from attnlab.experiment.build import build

CONF = Path(__file__).parents[2] / "conf" / "attention"
B, H, T, S, D = 2, 3, 4, 5, 6

# Weights that depend on where a key stands, and not on its score alone. That is a property of the mathematics
# which cannot be read off a class, so it is stated here, and tested in both directions.
POSITIONAL = {"last", "local_m", "local_p"}


def compose(path, choices=()):
    """The spec of a leaf yaml, with its defaults (or these choices) in place."""
    spec = yaml.safe_load(path.read_text())
    for entry in spec.pop("defaults", []):
        if entry != "_self_":
            ((group, option),) = entry.items()
            spec[group] = compose(path.parent / group / f"{dict(choices).get(group, option)}.yaml")
    return spec


def variants(group):
    """Every leaf yaml of a group, once for every choice in the groups that it nests."""
    found = []
    for path in sorted((CONF / group).glob("*.yaml")):
        defaults = [entry for entry in yaml.safe_load(path.read_text()).get("defaults", []) if entry != "_self_"]
        options = [
            [(nested, option.stem) for option in sorted((path.parent / nested).glob("*.yaml"))]
            for entry in defaults
            for nested in entry
        ]
        for choices in product(*options):
            name = "-".join([path.stem, *(option for _, option in choices)])
            found.append(pytest.param(compose(path, choices), id=name))
    return found


NORMALIZERS = [pytest.param(param.values[0], param.id in POSITIONAL, id=param.id) for param in variants("normalizer")]
every_score = pytest.mark.parametrize("score", variants("score"))
every_normalizer = pytest.mark.parametrize("normalizer", variants("normalizer"))
every_estimator = pytest.mark.parametrize("estimator", variants("estimator"))


def attention(score, normalizer, estimator=None, size=D):
    torch.manual_seed(0)
    estimator = estimator or compose(CONF / "estimator" / "expectation.yaml")
    module = Attention(build(score), build(normalizer), build(estimator), query_size=size, key_size=size)
    return module.double()


def tensors(*leading, seed=1):
    """Queries, values and a mask that hides other positions in every row of the batch, none at the last one."""
    random = torch.Generator().manual_seed(seed)
    query = torch.randn(*leading, T, D, generator=random, dtype=torch.float64)
    values = torch.randn(*leading, S, D, generator=random, dtype=torch.float64)
    mask = torch.rand(*leading, 1, S, generator=random) < 0.6
    mask[..., 1] = True
    mask[..., 3] = False
    return query, values, mask


def attend(module, query, memory):
    """The candidates, with a posterior for estimators that are guided by one."""
    posterior = None
    if module.estimator.guided:
        random = torch.Generator().manual_seed(3)
        scores = torch.randn(*query.shape[:-1], S, generator=random, dtype=query.dtype)
        posterior = scores.masked_fill(~memory.mask, float("-inf")).softmax(-1)
    return module(query, memory, posterior=posterior)


def heeds_scores(module):
    """Whether the weights depend on the scores at all; a control without attention has no gradient to test."""
    query, values, mask = tensors(B)
    memory = module.prepare(values, mask)
    return not torch.equal(module.weights(query, memory), module.weights(query + 1.5, memory))


@every_score
@every_normalizer
def test_weights_are_distributions_over_the_allowed_positions(score, normalizer):
    module = attention(score, normalizer)
    for leading in ((B,), (B, H), ()):
        query, values, mask = tensors(*leading)
        weights = module.weights(query, module.prepare(values, mask))
        assert weights.shape == (*leading, T, S)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(*leading, T, dtype=torch.float64))
        assert (weights.masked_select(~mask) == 0).all()
        unmasked = module.weights(query, module.prepare(values))
        torch.testing.assert_close(unmasked.sum(-1), torch.ones(*leading, T, dtype=torch.float64))


@every_normalizer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_of_low_precision_scores_sum_to_1_in_single_precision(normalizer, dtype):
    module = build(normalizer)(query_size=D)
    scores = torch.randn(3, 300, generator=torch.Generator().manual_seed(0)).to(dtype) * 4
    weights = module(scores, None, torch.zeros(3, D))
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(3), atol=1e-6, rtol=0)


@every_normalizer
def test_extreme_scores_and_single_positions_give_finite_weights(normalizer):
    module = build(normalizer)(query_size=D)
    query = torch.zeros(1, D)
    for scores in (torch.tensor([[1e30, -1e30, 0.0]]), torch.full((1, 3), -1e30), torch.zeros(1, 1)):
        weights = module(scores, None, query)
        assert weights.isfinite().all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(1))
    only = module(torch.tensor([[5.0, -80.0, 3.0]]), torch.tensor([[False, True, False]]), query)
    assert only.tolist() == [[0.0, 1.0, 0.0]]


@every_score
@every_normalizer
def test_the_content_of_masked_positions_does_not_matter(score, normalizer):
    module = attention(score, normalizer)
    query, values, mask = tensors(B)
    other = torch.where(mask.transpose(-1, -2), values, 1e3)
    torch.testing.assert_close(
        module.weights(query, module.prepare(values, mask)),
        module.weights(query, module.prepare(other, mask)),
    )


@every_score
@every_normalizer
def test_heads_are_a_leading_dimension_and_run_independently(score, normalizer):
    module = attention(score, normalizer)
    query, values, mask = tensors(B, H)
    together = module(query, module.prepare(values, mask))
    for head in range(H):
        alone = module(query[:, head], module.prepare(values[:, head], mask[:, head]))
        torch.testing.assert_close(together.weights[:, head], alone.weights)
        torch.testing.assert_close(together.contexts[:, :, head], alone.contexts)


@every_score
@every_normalizer
def test_a_mask_of_the_batch_broadcasts_over_heads_and_queries(score, normalizer):
    module = attention(score, normalizer)
    query, values, mask = tensors(B, H)
    mask = mask[:, :1]  # [B, 1, 1, S]
    broadcast = module.weights(query, module.prepare(values, mask))
    written_out = module.weights(query, module.prepare(values, mask.expand(B, H, T, S)))
    assert torch.equal(broadcast, written_out)


@every_score
@every_normalizer
def test_queries_do_not_see_each_other(score, normalizer):
    module = attention(score, normalizer)
    query, values, mask = tensors(B)
    memory = module.prepare(values, mask)
    stepwise = torch.cat([module.weights(query[:, t : t + 1], memory, start=t) for t in range(T)], -2)
    torch.testing.assert_close(stepwise, module.weights(query, memory))


@every_score
@every_normalizer
def test_a_memory_that_was_prepared_once_serves_every_query_and_its_rows_can_be_selected(score, normalizer):
    module = attention(score, normalizer)
    query, values, mask = tensors(B)
    memory = module.prepare(values, mask)
    first = module.weights(query, memory)
    assert torch.equal(module.weights(query, memory), first)
    assert torch.equal(module.weights(query, module.prepare(values, mask)), first)
    rows = torch.tensor([1, 1, 0])
    torch.testing.assert_close(module.weights(query[rows], memory.select(rows)), first[rows])


@every_score
@pytest.mark.parametrize(("normalizer", "positional"), NORMALIZERS)
def test_permuting_the_keys_permutes_the_weights_unless_positions_matter(score, normalizer, positional):
    narrow = {"window": 1} if "window" in normalizer else {}  # one that leaves positions out
    module = attention(score, normalizer | narrow)
    query, values, mask = tensors(B)
    order = torch.tensor([4, 2, 0, 1, 3])
    weights = module.weights(query, module.prepare(values, mask))
    permuted = module.weights(query, module.prepare(values[:, order], mask[..., order]))
    equivariant = torch.allclose(permuted, weights[..., order])
    assert equivariant != positional, "say in POSITIONAL whether the weights depend on where a key stands"


class Whole(torch.nn.Module):
    """Prepares and attends in one call, so that both see the same replaced parameters."""

    def __init__(self, module):
        super().__init__()
        self.attention = module

    def forward(self, query, values, mask):
        return self.attention(query, self.attention.prepare(values, mask))


@every_score
@every_normalizer
def test_weights_and_context_pass_gradcheck_for_queries_values_and_parameters(score, normalizer):
    module = attention(score, normalizer)
    query, values, mask = tensors(B)
    named = dict(module.named_parameters(prefix="attention"))

    def attend(query, values, *parameters):
        replaced = dict(zip(named, parameters, strict=True))
        candidates = functional_call(Whole(module), replaced, (query, values, mask))
        outputs = (candidates.contexts, candidates.weights)
        return tuple(output for output in outputs if output.requires_grad)

    leaves = [query, values, *(parameter.detach() for parameter in named.values())]
    inputs = [leaf.requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(attend, inputs, fast_mode=True)


@every_score
@every_normalizer
def test_a_fully_masked_row_is_refused_with_a_sentence_that_names_it(score, normalizer):
    module = attention(score, normalizer)
    query, values, mask = tensors(B)
    mask[1] = False
    with pytest.raises(ValueError, match=r"Attention row \[1, 0\] is fully masked: .+\."):
        module(query, module.prepare(values, mask))


@every_score
def test_unequal_widths_work_or_are_refused_with_a_sentence(score):
    try:
        module = build(score)(3, 4)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = None
    if refusal:
        assert {"3", "4"} <= set(refusal), "the sentence names what was found"
        assert refusal.endswith(".")
        return
    scores = module(torch.randn(B, T, 3), module.prepare(torch.randn(B, S, 4)))
    assert scores.shape == (B, T, S)


@every_score
@every_normalizer
@every_estimator
@pytest.mark.parametrize("leading", [(B,), (B, H)], ids=["batch", "heads"])
def test_candidates_are_a_mixture_of_contexts_at_allowed_positions(score, normalizer, estimator, leading):
    module = attention(score, normalizer, estimator)
    query, values, mask = tensors(*leading)
    memory = module.prepare(values, mask)

    def check(candidates):
        count = candidates.contexts.shape[0]
        assert candidates.contexts.shape in ((count, *leading, T, D), (count, *leading, 1, D))
        contexts = candidates.contexts.expand(count, *leading, T, D)
        assert candidates.log_weights.shape == (count, *leading, T)
        assert candidates.weights.shape == (*leading, T, S)
        total = candidates.log_weights.logsumexp(0)
        torch.testing.assert_close(total, torch.zeros_like(total))
        if candidates.positions is not None:
            assert candidates.positions.shape == (count, *leading, T)
            allowed = mask.expand(*leading, T, S).expand(count, *leading, T, S)
            allowed = allowed.gather(-1, candidates.positions.unsqueeze(-1)).squeeze(-1)
            assert (candidates.log_weights[~allowed] == float("-inf")).all(), "mass on a masked position"
            for index in candidates.positions.flatten().unique():
                read = contexts[candidates.positions == index]
                at = values[..., index, :].unsqueeze(-2).expand(count, *leading, T, D)
                assert torch.equal(read, at[candidates.positions == index])
        if candidates.log_probs is not None:
            assert candidates.log_probs.shape[1:] == (*leading, T)
            assert (candidates.log_weights[len(candidates.log_probs) :] == float("-inf")).all(), "not drawn, no weight"
            assert candidates.log_probs.isfinite().all()
        mixed = candidates.mixture(torch.zeros(count, *leading, T, 7, dtype=torch.float64))
        torch.testing.assert_close(mixed, torch.zeros(*leading, T, 7, dtype=torch.float64))

    check(attend(module.train(), query, memory))
    module.eval()
    assert module.estimator.mode in module.estimator.modes
    check(module(query, memory))
    for mode in module.estimator.modes:
        with reading(module, mode):
            candidates = module(query, memory)
            check(candidates)
            assert torch.equal(candidates.weights, module.weights(query, memory))


@every_estimator
@pytest.mark.parametrize("mode", ["train", *MODES])
def test_values_without_heads_broadcast_under_weights_with_heads(estimator, mode):
    module = attention(compose(CONF / "score" / "dot.yaml"), compose(CONF / "normalizer" / "softmax.yaml"), estimator)
    query, _, _ = tensors(H)
    _, values, mask = tensors()
    module.train(mode == "train")
    with reading(module, "soft" if mode == "train" else mode):
        torch.manual_seed(2)
        broadcast = attend(module, query, module.prepare(values, mask))
        torch.manual_seed(2)
        written_out = attend(module, query, module.prepare(values.expand(H, S, D), mask))
    torch.testing.assert_close(broadcast.contexts, written_out.contexts)


@every_score
@every_normalizer
@every_estimator
def test_the_objective_s_gradient_is_finite_and_reaches_queries_and_the_score_s_parameters(
    score, normalizer, estimator
):
    mask = torch.tensor([[True] * T, [True] * (T - 1) + [False]])
    bonuses = (0.0, 0.3) if "entropy_bonus" in estimator else (None,)
    for bonus in bonuses:
        changed = estimator if bonus is None else estimator | {"entropy_bonus": bonus}
        module = attention(score, normalizer, changed).train()
        query, values, source_mask = tensors(B)
        query.requires_grad_()
        values.requires_grad_()
        for _ in range(2):  # a second time, for baselines that have learned something from the first
            candidates = attend(module, query, module.prepare(values, source_mask))
            scored = -(candidates.contexts - 0.5).square().sum(-1) * mask
            objective = module.estimator.objective(scored, candidates, mask)
        assert objective.loss.shape == ()
        assert objective.loss.isfinite()
        assert "nll" in objective.metrics
        for value in objective.metrics.values():
            assert value.shape == ()
            assert value.isfinite()
            assert not value.requires_grad
        objective.loss.backward()
        assert values.grad.isfinite().all()
        assert (values.grad.transpose(-1, -2).masked_select(~source_mask) == 0).all()
        if heeds_scores(module):
            for leaf in (query, *module.score.parameters()):
                assert leaf.grad.isfinite().all()
            assert query.grad[mask].abs().sum() > 0
            assert (query.grad[~mask] == 0).all(), "a padded target position has no gradient"
            moved = [parameter.grad.abs().sum() > 0 for parameter in module.score.parameters()]
            assert all(moved)


@every_estimator
def test_two_mechanisms_from_one_set_of_factories_share_no_module(estimator):
    score = build(compose(CONF / "score" / "general.yaml"))
    normalizer = build(compose(CONF / "normalizer" / "softmax.yaml"))
    factory = build(estimator)
    first, second = (Attention(score, normalizer, factory, query_size=D, key_size=D) for _ in range(2))
    assert not set(first.modules()) & set(second.modules())
    assert not {p.data_ptr() for p in first.parameters()} & {p.data_ptr() for p in second.parameters()}
