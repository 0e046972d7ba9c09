import pytest
import torch
from torch import nn

from attnlab.nn.readout import TokenLogLikelihood, VocabularyReadout, naive_log_likelihood

N, R, V = 9, 6, 11


def leaves(dtype=torch.float64, scale=1.0):
    random = torch.Generator().manual_seed(0)
    features, weight, bias = (
        (torch.randn(shape, generator=random, dtype=torch.float64) * scale).to(dtype).requires_grad_()
        for shape in ((N, R), (V, R), (V,))
    )
    return features, weight, bias, torch.randint(V, (N,), generator=random)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_fast_log_likelihood_equals_the_naive_one_with_its_gradients(recompute, smoothing, scale):
    *inputs, targets = leaves(scale=scale)
    fast = TokenLogLikelihood.apply(*inputs, targets, smoothing, recompute)
    naive = naive_log_likelihood(*inputs, targets, smoothing)
    torch.testing.assert_close(fast, naive, rtol=1e-10, atol=1e-10)
    slope = torch.randn(N, dtype=torch.float64)
    for a, b in zip(torch.autograd.grad(fast, inputs, slope), torch.autograd.grad(naive, inputs, slope), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_the_fast_log_likelihood_passes_gradcheck():
    *inputs, targets = leaves()
    # recomputed, since gradcheck goes backward more than once through one forward
    assert torch.autograd.gradcheck(lambda *x: TokenLogLikelihood.apply(*x, targets, 0.1, True), inputs)


@pytest.mark.parametrize("recompute", [False, True])
def test_in_half_precision_values_and_gradients_stay_near_the_naive_ones(recompute):
    # features of a size that makes logits of about 20, where half precision is coarse
    *half, targets = leaves(torch.bfloat16, scale=3.0)
    exact = [leaf.detach().double().requires_grad_() for leaf in half]
    fast, naive = TokenLogLikelihood.apply(*half, targets, 0.0, recompute), naive_log_likelihood(*exact, targets)
    assert fast.dtype == torch.float32
    torch.testing.assert_close(fast.double(), naive, rtol=0.02, atol=0.2)
    for a, b in zip(torch.autograd.grad(fast.sum(), half), torch.autograd.grad(naive.sum(), exact), strict=True):
        assert (a.double() - b).norm() < 0.05 * b.norm()


def test_in_half_precision_recomputing_gives_the_gradients_of_keeping():
    *half, targets = leaves(torch.bfloat16, scale=3.0)
    kept, recomputed = (
        torch.autograd.grad(TokenLogLikelihood.apply(*half, targets, 0.1, again).sum(), half) for again in (False, True)
    )
    for a, b in zip(kept, recomputed, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_second_backward_is_right(recompute):
    *inputs, targets = leaves()
    scored = TokenLogLikelihood.apply(*inputs, targets, 0.0, recompute).sum()
    first, second = (torch.autograd.grad(scored, inputs, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


K, B, T = 2, 3, 4
MASK = torch.tensor([[True, True, True, True], [True, False, False, False], [True, True, False, False]])


def batch():
    random = torch.Generator().manual_seed(1)
    features = torch.randn(K, B, T, R, generator=random, dtype=torch.float64).requires_grad_()
    return features, torch.randint(V, (B, T), generator=random)


def readout(**options):
    torch.manual_seed(0)
    module = VocabularyReadout(R, V, **options).double()
    nn.init.normal_(module.linear.bias)
    return module


@pytest.mark.parametrize("chunk", [2**25, 4 * V, V, 1])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_readout_scores_every_candidate_at_real_positions_in_chunks_of_any_size(chunk, smoothing):
    module, (features, targets) = readout(chunk=chunk), batch()
    found = module(features, targets, MASK, smoothing)
    assert found.shape == (K, B, T)
    expected = naive_log_likelihood(
        features.flatten(0, 2), module.linear.weight, module.linear.bias, targets.flatten().repeat(K), smoothing
    )
    expected = expected.view(K, B, T) * MASK
    torch.testing.assert_close(found, expected)
    inputs, slope = (features, *module.parameters()), torch.randn(K, B, T, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(found, inputs, slope), torch.autograd.grad(expected, inputs, slope), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_padded_positions_score_0_without_gradient_whatever_their_features_are():
    module, (features, targets) = readout(), batch()
    features = features.detach().masked_fill(~MASK.unsqueeze(-1), float("inf")).requires_grad_()
    found = module(features, targets, MASK)
    assert (found[:, ~MASK] == 0).all()
    found.sum().backward()
    assert (features.grad[:, ~MASK] == 0).all()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_the_log_likelihood_is_the_entry_of_the_search_s_log_probabilities():
    module, (features, targets) = readout(), batch()
    log_probs = module.log_probs(features)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(K, B, T, dtype=torch.float64))
    entries = log_probs.gather(-1, targets.expand(K, B, T).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(module(features, targets, torch.ones_like(MASK)), entries)


def test_autocast_works_in_half_precision_and_returns_single():
    module, (features, targets) = readout().float(), batch()
    exact = module(features.float(), targets, MASK)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(features.float(), targets, MASK)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0.02, atol=0.1)
    found.sum().backward()
    assert module.linear.weight.grad.dtype == torch.float32


def test_a_tied_layer_shares_the_embedding_s_weight_and_needs_its_shape():
    embedding = nn.Embedding(V, R)
    assert VocabularyReadout(R, V, embedding).linear.weight is embedding.weight
    with pytest.raises(ValueError, match=r"found 7 and 6; .+tie_output=false\."):
        VocabularyReadout(R + 1, V, embedding)


def test_batches_with_different_numbers_of_targets_are_read_out_in_one_shape(monkeypatch):
    module, shapes = readout(), []
    apply = TokenLogLikelihood.apply

    def spy(rows, *rest):
        shapes.append(rows.shape)
        return apply(rows, *rest)

    monkeypatch.setattr(TokenLogLikelihood, "apply", spy)
    features, targets = batch()
    for mask in (MASK, MASK.logical_not(), torch.ones_like(MASK)):
        module(features[:1], targets, mask)
    assert len(set(shapes)) == 1


def test_a_functional_gradient_is_the_usual_one():
    readout = VocabularyReadout(4, 5)
    features, targets = torch.randn(1, 2, 3, 4), torch.tensor([[1, 4, 0], [2, 0, 0]])

    def loss(features):
        return readout(features, targets, targets > 0, 0.1).sum()

    (expected,) = torch.autograd.grad(loss(given := features.clone().requires_grad_()), given)
    torch.testing.assert_close(torch.func.grad(loss)(features), expected)
