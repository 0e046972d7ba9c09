"""The Vision Transformer and the glimpse model under every estimator that they can run."""

from functools import partial
from itertools import product

import pytest
import torch

from attnlab.attention import (
    AdditiveScore,
    Attention,
    ExactMarginal,
    Expectation,
    GeneralScore,
    GumbelSoftmax,
    Reinforce,
    ScaledDotScore,
    Softmax,
    Sparsemax,
    Variational,
    reading,
)
from attnlab.attention.baselines import Learned, LeaveOneOut, MovingAverage, NoBaseline, SelfCritic, SoftContext
from attnlab.nn.glimpse import GlimpseViT
from attnlab.nn.patches import ConvolutionalStem, LinearStem, grid, patches
from attnlab.nn.positions import LearnedPositions, SinusoidalPositions
from attnlab.nn.vit import AttentionPooling, ClassToken, ViT

B, CLASSES = 3, 5
IMAGES = torch.randn(B, 2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 4, 2])
MASK = torch.ones(B, 1, dtype=torch.bool)
ESTIMATORS = {
    "expectation": Expectation,
    "reinforce": partial(Reinforce, LeaveOneOut, 3),
    "reinforce, self-critic": partial(Reinforce, SelfCritic, 2),
    "reinforce, soft context": partial(Reinforce, SoftContext, 2),
    "reinforce, learned": partial(Reinforce, Learned, 2),
    "gumbel": partial(GumbelSoftmax, samples=2),
    "exact": ExactMarginal,
}


def mechanism(estimator=Expectation, score=ScaledDotScore, normalizer=Softmax):
    return partial(Attention, score, normalizer, estimator)


def vit(attention=None, *, images=IMAGES, seed=0, **options):
    torch.manual_seed(seed)
    parts = {"stem": LinearStem, "positions": LearnedPositions, "pooling": ClassToken}
    sizes = {"channels": images.shape[1], "height": images.shape[2], "width": images.shape[3], "classes": CLASSES}
    small = {"patch": 2, "size": 8, "depth": 2, "heads": 2, "hidden": 12, "dropout": 0.0}
    return ViT(attention=attention or mechanism(), **(parts | sizes | small | options)).double()


def glimpse(estimator=None, **options):
    torch.manual_seed(0)
    sizes = {"channels": 2, "height": 4, "width": 6, "classes": CLASSES}
    small = {"patch": 2, "glimpses": 2, "policy": 4, "size": 8, "depth": 1, "heads": 2, "hidden": 12, "dropout": 0.0}
    attention = mechanism(estimator or partial(Reinforce, LeaveOneOut, 3), GeneralScore)
    return GlimpseViT(attention=attention, positions=LearnedPositions, **(sizes | small | options)).double()


def likelihood(scored, labels=LABELS):
    return scored.gather(-1, labels.view(1, -1, 1).expand(len(scored), -1, 1))  # [K, B, 1]


VARIANTS = [
    pytest.param(mechanism(score=score, normalizer=normalizer), id=f"{score.__name__}-{normalizer.__name__}")
    for score, normalizer in product((AdditiveScore, GeneralScore, ScaledDotScore), (Softmax, Sparsemax))
]
PLACES = [
    pytest.param(estimator, {"variant_layers": layers, "pooling": pooling}, id=f"{name}-{layers}-{pooling.__name__}")
    for name, estimator in ESTIMATORS.items()
    for layers, pooling in product(("all", "pooling", [1]), (ClassToken, AttentionPooling))
    if (layers, pooling) != ("pooling", ClassToken) and (name != "exact" or layers == "pooling")
]


@pytest.mark.parametrize(("estimator", "place"), PLACES)
def test_every_estimator_trains_in_every_place_and_is_read_in_its_modes(estimator, place):
    model = vit(mechanism(estimator), **place).train()
    scored, candidates = model(IMAGES)
    assert scored.shape[1:] == (B, CLASSES)
    assert candidates.log_weights.shape == (len(scored), B, 1)
    torch.testing.assert_close(scored.exp().sum(-1), torch.ones(len(scored), B, dtype=torch.float64))
    total = candidates.log_weights.logsumexp(0)
    torch.testing.assert_close(total, torch.zeros_like(total))
    loss, metrics = model.objective(likelihood(scored), candidates, MASK)
    loss.backward()
    assert metrics["nll"].isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    model.eval()
    assert model.modes[0] == model.estimator.mode
    for mode in model.modes:
        with reading(model, mode):
            torch.manual_seed(3)
            scored, candidates = model(IMAGES)
            mixed = candidates.mixture(scored.unsqueeze(2)).squeeze(1)
            torch.testing.assert_close(mixed.exp().sum(-1), torch.ones(B, dtype=torch.float64))
            for name, weights in model.maps(IMAGES).items():
                torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)), msg=name)


@pytest.mark.parametrize("attention", VARIANTS)
@pytest.mark.parametrize("stem", [LinearStem, partial(ConvolutionalStem, filters=3)])
@pytest.mark.parametrize("positions", [LearnedPositions, SinusoidalPositions])
def test_scores_normalizers_stems_and_positions_cross(attention, stem, positions):
    model = vit(attention, stem=stem, positions=positions)
    loss = model.objective(likelihood(model(IMAGES)[0]), model(IMAGES)[1], MASK).loss
    loss.backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for name, p in model.named_parameters() if "bias" not in name
    )


@pytest.mark.parametrize("build", [vit, glimpse])
def test_images_do_not_see_each_other(build):
    model = build().eval()
    whole = model(IMAGES)[0]
    for row in range(B):
        torch.testing.assert_close(model(IMAGES[row : row + 1])[0], whole[:, row : row + 1])


def test_patches_are_cut_row_by_row():
    numbered = torch.arange(24.0).view(1, 1, 4, 6)
    assert patches(numbered, 2)[0, :, 0].tolist() == [0, 2, 4, 12, 14, 16]
    assert patches(numbered, 2)[0, 1].tolist() == [2, 3, 8, 9]


def test_what_is_not_the_variant_s_layer_stays_soft_and_scaled():
    model = vit(mechanism(partial(Reinforce, LeaveOneOut, 2), AdditiveScore), variant_layers=[1])
    first, second = (block.attention.attention for block in model.blocks)
    assert (type(first.score), type(first.estimator)) == (ScaledDotScore, Expectation)
    assert (type(second.score), type(second.estimator)) == (AdditiveScore, Reinforce)
    assert model.train()(IMAGES)[1].log_probs.shape == (2, B, 1)


@pytest.mark.parametrize("mode", ["argmax", "sample", "exact"])
def test_a_test_mode_leaves_the_soft_layers_as_they_are(mode):
    """All but the pooling is soft: what it pools must not depend on the mode."""
    options = {"variant_layers": "pooling", "pooling": AttentionPooling}
    model = vit(mechanism(partial(Reinforce, LeaveOneOut, 2)), **options).eval()
    pooled = []
    model.pooling.register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0]))
    model(IMAGES)
    with reading(model, mode):
        model(IMAGES)
    assert torch.equal(pooled[0], pooled[1])


def test_the_probability_of_all_draws_is_credited_once():
    """Log-probabilities over layers, heads and queries add up to that of what was drawn."""
    model = vit(mechanism(partial(Reinforce, LeaveOneOut, 2)), depth=2).train()
    seen = []
    for block in model.blocks:
        block.attention.attention.register_forward_hook(lambda module, inputs, output: seen.append(output))
    candidates = model(IMAGES)[1]
    chosen = [layer.weights.gather(-1, layer.positions[0].unsqueeze(-1)).log().sum((1, 2, 3)) for layer in seen]
    torch.testing.assert_close(candidates.log_probs.flatten(), sum(chosen))
    # behind the last block the class token alone is read, and the others draw nothing
    assert [layer.positions.shape for layer in seen] == [(1, 2 * B, 2, 7), (1, 2 * B, 2, 1)]
    torch.testing.assert_close(
        candidates.entropies.flatten(), torch.stack([layer.entropy().mean((1, 2)) for layer in seen]).mean(0)
    )


@pytest.mark.parametrize("pooling", [ClassToken, AttentionPooling])
def test_what_is_not_read_behind_the_last_block_changes_nothing(pooling):
    model = vit(pooling=pooling).eval()
    tokens = pooling.begin(model.pooling, model.stem(IMAGES) + model.positions())
    for block in model.blocks:
        tokens, _ = block(tokens)
    features, _ = model.pooling(model.norm(tokens), follow=False, maps=False)
    torch.testing.assert_close(model(IMAGES)[0], model.readout(features))


class Forced:
    """torch.multinomial with given outcomes, [rows, 1] at each call."""

    def __init__(self, calls):
        self.calls = list(calls)

    def __call__(self, rows, samples, replacement=False, generator=None):
        drawn = self.calls.pop(0)
        assert drawn.shape == (len(rows), samples)
        return drawn


BASELINES = [(NoBaseline, 1), (MovingAverage, 2), (LeaveOneOut, 2), (SelfCritic, 2), (SoftContext, 2), (Learned, 2)]


def unbiased(model, image, paths, calls, monkeypatch):
    """Compares the mean of the estimate over every joint outcome with the gradient of the enumerated bound.

    Args:
        model: in training.
        image: a single one.
        paths: all outcomes of one sample.
        calls: from the outcomes of all samples to what torch.multinomial returns, call by call.
    """
    estimator, samples, label, mask = model.estimator, model.estimator.samples, LABELS[1:2], MASK[:1]
    parameters = [parameter for name, parameter in model.named_parameters() if "baseline" not in name]
    if isinstance(estimator.baseline, MovingAverage):
        estimator.baseline(torch.tensor([[[-2.0]]]), mask)
    warm = {name: value.clone() for name, value in estimator.state_dict().items()}

    def outcome(chosen):
        forced = Forced(calls(chosen))
        monkeypatch.setattr(torch, "multinomial", forced)
        scored, candidates = model(image)
        assert not forced.calls
        return likelihood(scored, label), candidates, candidates.log_probs[: len(chosen)].sum().exp()

    estimator.samples = 1
    bound = 0.0
    for path in paths:
        scored, _, probability = outcome([path])
        bound = bound + probability * scored[0].sum()
    expected = torch.autograd.grad(-bound, parameters, allow_unused=True)
    estimator.samples = samples
    found = [torch.zeros_like(parameter) for parameter in parameters]
    total = 0.0
    for chosen in product(paths, repeat=samples):
        scored, candidates, probability = outcome(chosen)
        total += probability.item()
        estimator.load_state_dict(warm)
        loss = probability.detach() * model.objective(scored, candidates, mask).loss
        for whole, part in zip(found, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
            whole += 0 if part is None else part
    assert total == pytest.approx(1)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-9, atol=1e-10)
    assert sum(float(part.abs().sum()) for part in found) > 0.1


@pytest.mark.parametrize(("baseline", "samples"), BASELINES)
def test_reinforce_in_a_layer_is_unbiased_exactly(baseline, samples, monkeypatch):
    """Two tokens, each of which draws one of two: four outcomes a sample."""
    attention = mechanism(partial(Reinforce, baseline, samples), AdditiveScore)
    image = IMAGES[:1, :, :2, :4]
    model = vit(attention, images=image, depth=1, heads=1, variant_layers=[0], pooling=AttentionPooling).train()
    unbiased(
        model, image, list(product(range(2), repeat=2)),
        lambda chosen: [torch.tensor([position for path in chosen for position in path]).unsqueeze(1)], monkeypatch,
    )  # fmt: skip


def test_reinforce_in_two_layers_with_two_heads_is_unbiased_exactly(monkeypatch):
    attention = mechanism(partial(Reinforce, NoBaseline, 1))
    image = IMAGES[:1, :, :2, :4]
    model = vit(attention, images=image, depth=2, heads=2, variant_layers=[0, 1], pooling=AttentionPooling).train()
    unbiased(
        model, image, list(product(range(2), repeat=8)),
        lambda chosen: [torch.tensor(part).unsqueeze(1) for path in chosen for part in (path[:4], path[4:])],
        monkeypatch,
    )  # fmt: skip


@pytest.mark.parametrize(("baseline", "samples"), [case for case in BASELINES if case[0] is not SoftContext])
def test_the_policy_s_gradient_is_unbiased_exactly_over_ordered_choices(baseline, samples, monkeypatch):
    """Two glimpses of three patches, without replacement: six orders a sample."""
    model = glimpse(partial(Reinforce, baseline, samples), height=2, width=6, coarse=1).train()
    unbiased(
        model, IMAGES[:1, :, :2], [(a, b) for a, b in product(range(3), repeat=2) if a != b],
        lambda chosen: [torch.tensor([path[step] for path in chosen]).unsqueeze(1) for step in range(2)], monkeypatch,
    )  # fmt: skip


def test_exact_pooling_is_the_mixture_over_positions():
    options = {"variant_layers": "pooling", "pooling": AttentionPooling}
    model = vit(mechanism(ExactMarginal), **options).train()
    scored, candidates = model(IMAGES)
    assert len(scored) == 6
    weights = model.maps(IMAGES)["pooling"][:, 0, 0]
    mixed = (weights.t().unsqueeze(-1) * scored.exp()).sum(0).log()
    nll = -mixed.gather(-1, LABELS.unsqueeze(-1)).mean()
    torch.testing.assert_close(model.objective(likelihood(scored), candidates, MASK).loss, nll)


@pytest.mark.parametrize("estimator", ["reinforce", "reinforce, self-critic", "gumbel"])
def test_a_glimpse_model_reads_k_patches_and_nothing_else(estimator):
    model = glimpse(ESTIMATORS[estimator], dropout=0.1).train()
    read = []
    model.embed.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].shape))
    scored, candidates = model(IMAGES)
    assert read == [(len(scored) * B, 2, 8)]
    model.objective(likelihood(scored), candidates, MASK).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.policy.queries.grad.abs().sum() > 0
    model.eval()
    assert model.modes == ("argmax", "sample")
    chosen = model.chosen(IMAGES)
    assert chosen.shape == (B, 2)
    assert (chosen[:, 0] != chosen[:, 1]).all(), "without replacement"
    changed = IMAGES.clone()
    rows, columns = chosen // 3 * 2, chosen % 3 * 2
    keep = torch.zeros(B, 1, 4, 6, dtype=torch.bool)
    for image in range(B):
        for row, column in zip(rows[image], columns[image], strict=True):
            keep[image, :, row : row + 2, column : column + 2] = True
    choices = model.policy(IMAGES, torch.cat([patches(IMAGES, 2), model.positions().expand(B, -1, -1)], -1), 1)
    changed = torch.where(keep, changed, torch.randn_like(changed))
    model.policy.forward = lambda images, values, copies: [
        record._replace(
            contexts=values.gather(1, record.positions[0].unsqueeze(-1).expand(-1, -1, values.shape[-1]))[None]
        )
        for record in choices
    ]
    torch.testing.assert_close(model(changed)[0], model(IMAGES)[0])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: vit(patch=4), "Patches of 4 x 4 pixels do not divide an image of 4 x 6; model.patch may be 1, 2"),
        (lambda: vit(variant_layers=[2]), r"model.variant_layers=\[2\] names no layers .+ from 0 to 1"),
        (lambda: vit(variant_layers="some"), "names no layers of this model"),
        (lambda: vit(variant_layers="pooling"), "ClassToken has no attention .+ choose model/pooling=attention"),
        (lambda: vit(mechanism(ExactMarginal)), "cannot stand in a block, .+ choose model/pooling=attention"),
        (lambda: vit(mechanism(Variational)), "an inference network that sees the target.+ choose"),
        (
            lambda: vit(mechanism(ExactMarginal), variant_layers="pooling", pooling=partial(AttentionPooling, heads=2)),
            "positions of 2 heads jointly; set model.pooling.heads=1",
        ),
        (lambda: vit(heads=3), "3 heads do not divide a width of 8"),
        (lambda: vit(size=6, positions=SinusoidalPositions), "a width divisible by 4, found 6"),
        (lambda: vit(depth_dropout=1.0), "stochastic depth lies in"),
        (lambda: glimpse(glimpses=7), "model.glimpses=7 patches cannot be read of an image of 2 x 3 = 6"),
        (lambda: glimpse(Expectation), "Expectation does not choose single patches.+ choose attention=hard"),
        (lambda: glimpse(partial(Reinforce, SoftContext, 2)), "does not choose single patches"),
        (lambda: glimpse(partial(GumbelSoftmax, straight_through=False)), "does not choose single patches"),
        (lambda: glimpse(ExactMarginal), "does not choose single patches one after the other"),
    ],
)
def test_mistakes_are_refused_with_a_sentence(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_view_that_does_not_divide_the_patches_is_refused():
    for coarse, said in (
        (3, r"model.coarse=3 does not divide the side of a patch, 2 pixels"),
        (0, r"model.coarse=0 must be 1 or more"),
    ):
        with pytest.raises(ValueError, match=said):
            glimpse(coarse=coarse)


@pytest.mark.parametrize("build", [vit, glimpse])
def test_a_model_without_blocks_is_refused(build):
    with pytest.raises(ValueError, match=r"model.depth=0 must be 1 or more"):
        build(depth=0)


def test_the_maps_of_a_glimpse_model_are_of_every_glimpse():
    model = glimpse().eval()
    maps = model.maps(IMAGES)["policy"]
    assert maps.shape == (B, 1, model.policy.queries.shape[0], 6)
    chosen = model.chosen(IMAGES)
    assert torch.equal(maps[:, 0].argmax(-1), chosen)  # read by argmax
    assert maps[:, 0, 1].gather(1, chosen[:, :1]).abs().max() == 0  # which is not chosen again


def test_a_grid_has_rows_and_columns():
    assert grid(4, 6, 2) == (2, 3)
