"""Whole models: every decoder that conf/model/decoder lists, under every estimator that it can run."""

from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
import yaml

from attnlab.attention import (
    AdditiveScore,
    Attention,
    ExactMarginal,
    Expectation,
    GeneralScore,
    GumbelSoftmax,
    ImportanceWeighted,
    LocalMonotonic,
    LocalPredictive,
    Reinforce,
    SampledVariational,
    Softmax,
    Variational,
    reading,
)
from attnlab.attention.baselines import Learned, LeaveOneOut, MovingAverage, NoBaseline, SelfCritic, SoftContext
from attnlab.attention.estimators import token_mean
from attnlab.decoding import beam, greedy
from attnlab.experiment.build import build
from attnlab.nn.decoders import BahdanauDecoder, LuongDecoder
from attnlab.nn.seq2seq import RNNSeq2Seq

CONF = Path(__file__).parents[2] / "conf" / "model" / "decoder"
DECODERS = {path.stem: build(yaml.safe_load(path.read_text())) for path in sorted(CONF.glob("*.yaml"))}
DECODERS["luong with input feeding"] = partial(LuongDecoder, input_feeding=True)
ESTIMATORS = {
    "expectation": Expectation,
    "exact": ExactMarginal,
    "reinforce": partial(Reinforce, LeaveOneOut, 3),
    "reinforce, self-critic": partial(Reinforce, SelfCritic, 2),
    "reinforce, soft context": partial(Reinforce, SoftContext, 2),
    "reinforce, learned": partial(Reinforce, Learned, 2),
    "gumbel": partial(GumbelSoftmax, samples=2),
    "variational": Variational,
    "variational, sampled": partial(SampledVariational, LeaveOneOut, 2),
    "importance-weighted": ImportanceWeighted,
}
UNFEEDABLE = ("exact", "variational", "variational, sampled", "importance-weighted")
PAD, BEGIN, END = 0, 1, 2
SOURCE = torch.tensor([[3, 4, 5, 6], [5, 3, 0, 0], [6, 0, 0, 0]])
TARGET = torch.tensor([[4, 3, 5, END], [6, END, 0, 0], [3, 3, END, 0]])
TARGET_IN = torch.tensor([[BEGIN, 4, 3, 5], [BEGIN, 6, 0, 0], [BEGIN, 3, 3, 0]])
MASK = TARGET != PAD
B, T = TARGET.shape


def model(decoder="luong", estimator=Expectation, score=GeneralScore, seed=0, **options):
    torch.manual_seed(seed)
    options = {"embedding": 6, "encoder_size": 4, "decoder_size": 5, "dropout": 0.0} | options
    options = {"source_vocabulary": 7, "target_vocabulary": 7} | options
    attention = partial(Attention, score, Softmax, estimator)
    return RNNSeq2Seq(attention=attention, decoder=DECODERS[decoder], **options).double()


def runnable():
    """Every decoder under every estimator that it does not refuse."""
    for (decoder, factory), estimator in product(DECODERS.items(), ESTIMATORS):
        fed = factory.func is BahdanauDecoder or factory.keywords.get("input_feeding")
        if not (fed and estimator in UNFEEDABLE):
            yield pytest.param(decoder, ESTIMATORS[estimator], id=f"{decoder}-{estimator}")


every_model = pytest.mark.parametrize(("decoder", "estimator"), list(runnable()))
every_decoder = pytest.mark.parametrize("decoder", list(DECODERS))
fed_decoders = pytest.mark.parametrize("decoder", ["bahdanau", "luong with input feeding"])


def stepwise(seq2seq, source, target_in):
    """log p(next) [B, T, V] and weights [B, T, S] through the search's interface, under the given prefixes."""
    state, log_probs, weights = seq2seq.start(source), [], []
    for tokens in target_in.unbind(1):
        step_log_probs, step_weights, state = seq2seq.step(tokens, state)
        log_probs.append(step_log_probs)
        weights.append(step_weights)
    return torch.stack(log_probs, 1), torch.stack(weights, 1)


@every_model
@pytest.mark.parametrize(("cell", "layers"), [("lstm", 1), ("gru", 2)])
def test_the_teacher_forced_run_equals_the_search_s_steps_in_every_deterministic_mode(decoder, estimator, cell, layers):
    seq2seq = model(decoder, estimator, cell=cell, layers=layers).eval()
    modes = [mode for mode in seq2seq.modes if mode != "sample"]
    assert modes
    for mode in modes:
        with reading(seq2seq, mode):
            scored, candidates = seq2seq(SOURCE, TARGET_IN, TARGET)
            log_probs, weights = stepwise(seq2seq, SOURCE, TARGET_IN)
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(B, T, dtype=torch.float64))
        entries = log_probs.gather(-1, TARGET.unsqueeze(-1)).squeeze(-1)
        mixed = candidates.mixture(scored)
        torch.testing.assert_close(mixed[MASK], entries[MASK], msg=mode)
        torch.testing.assert_close(candidates.weights[MASK], weights[MASK], msg=mode)


@every_model
def test_every_width_may_be_another(decoder, estimator):
    seq2seq = model(decoder, estimator, embedding=3, encoder_size=4, decoder_size=5, readout_size=7, tie_output=False)
    scored, candidates = seq2seq.train()(SOURCE, TARGET_IN, TARGET)
    seq2seq.objective(scored, candidates, MASK).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in seq2seq.parameters() if parameter.grad is not None)


@every_decoder
def test_sampled_steps_repeat_under_a_seed_and_read_one_position(decoder):
    seq2seq = model(decoder, ESTIMATORS["reinforce"]).eval()
    with reading(seq2seq, "sample"):
        torch.manual_seed(5)
        scored, candidates = seq2seq(SOURCE, TARGET_IN, TARGET)
        assert candidates.positions.shape == (1, B, T)
        torch.manual_seed(5)
        assert torch.equal(seq2seq(SOURCE, TARGET_IN, TARGET)[0], scored)


@every_model
def test_results_do_not_depend_on_the_batch_or_its_padding(decoder, estimator):
    seq2seq = model(decoder, estimator, layers=2).eval()
    scored, candidates = seq2seq(SOURCE, TARGET_IN, TARGET)
    mixed = candidates.mixture(scored)
    pad = torch.zeros(B, 2, dtype=torch.long)
    wide_source, wide_target = (torch.cat([part, pad], 1) for part in (SOURCE, TARGET))
    wide_scored, wide_candidates = seq2seq(wide_source, torch.cat([TARGET_IN, pad], 1), wide_target)
    torch.testing.assert_close(wide_candidates.mixture(wide_scored)[:, :T][MASK], mixed[MASK])
    assert (wide_scored[:, :, T:] == 0).all()
    for row in range(B):
        source = SOURCE[row : row + 1, : int((SOURCE[row] != PAD).sum())]
        length = int(MASK[row].sum())
        alone, lone = seq2seq(source, TARGET_IN[row : row + 1, :length], TARGET[row : row + 1, :length])
        torch.testing.assert_close(lone.mixture(alone)[0], mixed[row, :length])


@every_model
def test_search_runs_and_its_score_is_the_likelihood_of_its_output(decoder, estimator):
    seq2seq = model(decoder, estimator).eval()
    limits = torch.tensor([5, 4, 3])
    searches = (greedy(seq2seq, SOURCE, limits, BEGIN, END), beam(seq2seq, SOURCE, limits, BEGIN, END, 3))
    for found in searches:
        for row, hypothesis in enumerate(found):
            ended = len(hypothesis.weights) > len(hypothesis.tokens)
            target = torch.tensor([[*hypothesis.tokens, *[END] * ended]])
            target_in = torch.tensor([[BEGIN, *target[0, :-1].tolist()]])
            log_probs, weights = stepwise(seq2seq, SOURCE[row : row + 1], target_in)
            total = log_probs.gather(-1, target.unsqueeze(-1)).sum().item()
            assert hypothesis.score == pytest.approx(total, abs=1e-4)
            torch.testing.assert_close(hypothesis.weights.double(), weights[0], rtol=1e-4, atol=1e-6)


@every_model
def test_every_parameter_gets_a_finite_gradient(decoder, estimator):
    seq2seq = model(decoder, estimator, score=partial(AdditiveScore, size=5), layers=2, dropout=0.2).train()
    loss, metrics = seq2seq.objective(*seq2seq(SOURCE, TARGET_IN, TARGET, 0.1), MASK)
    loss.backward()
    for name, parameter in seq2seq.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert all(value.isfinite() for value in metrics.values())


@fed_decoders
@pytest.mark.parametrize("estimator", UNFEEDABLE)
def test_what_cannot_be_fed_back_is_refused_with_the_reason_and_an_alternative(decoder, estimator):
    with pytest.raises(ValueError, match=r"feeds its context back, but \w+ (sums|bounds) .+; choose .+reinforce\."):
        model(decoder, ESTIMATORS[estimator])


@fed_decoders
def test_the_exact_test_mode_is_neither_offered_nor_run_where_contexts_are_fed_back(decoder):
    seq2seq = model(decoder, ESTIMATORS["reinforce"]).eval()
    assert "exact" not in seq2seq.modes
    with reading(seq2seq, "exact"):
        with pytest.raises(ValueError, match="feeds one context back, but there are 4 candidates"):
            seq2seq(SOURCE, TARGET_IN, TARGET)
        with pytest.raises(ValueError, match="feeds one context back"):
            seq2seq.step(TARGET_IN[:, 0], seq2seq.start(SOURCE))


def test_the_exact_test_mode_is_offered_where_nothing_is_fed():
    assert "exact" in model("luong", ESTIMATORS["reinforce"]).modes


@fed_decoders
@pytest.mark.parametrize("samples", [1, 3])
def test_each_of_k_copies_walks_a_path_of_its_own(decoder, samples):
    seq2seq = model(decoder, partial(Reinforce, NoBaseline, samples)).train()
    scored, candidates = seq2seq(SOURCE, TARGET_IN, TARGET)
    for part in (scored, candidates.log_weights, candidates.positions, candidates.log_probs):
        assert part.shape == (samples, B, T)
    size = SOURCE.shape[1]
    assert candidates.weights.shape == ((samples, B, T, size) if samples > 1 else (B, T, size))
    torch.testing.assert_close(candidates.log_weights.logsumexp(0), torch.zeros(B, T, dtype=torch.float64))
    weights = candidates.weights.expand(samples, B, T, size)
    chosen = weights.gather(-1, candidates.positions.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(candidates.log_probs, chosen.log())
    allowed = (SOURCE != PAD).unsqueeze(1).expand(B, T, size).expand(samples, B, T, size)
    assert allowed.gather(-1, candidates.positions.unsqueeze(-1)).all()
    if samples > 1:
        assert torch.equal(weights[0, :, 0], weights[1, :, 0]), "paths start alike"
        apart = candidates.positions[0, 0] != candidates.positions[1, 0]
        assert not apart.any() or not torch.equal(weights[0, 0, -1], weights[1, 0, -1])


class Forced:
    """torch.multinomial with given outcomes [K, B, T], in the order in which a model asks for them."""

    def __init__(self, outcomes, fed):
        self.outcomes, self.fed, self.step = outcomes, fed, 0

    def __call__(self, rows, samples, replacement=False, generator=None):
        count = self.outcomes.shape[0]
        if not self.fed:
            return self.outcomes.permute(1, 2, 0).reshape(-1, count)
        drawn = self.outcomes[..., self.step].reshape(-1, 1)
        self.step += 1
        return drawn


@every_decoder
@pytest.mark.parametrize(
    ("baseline", "samples"),
    [(NoBaseline, 1), (MovingAverage, 2), (LeaveOneOut, 2), (SelfCritic, 2), (SoftContext, 2), (Learned, 2)],
)
def test_reinforce_through_the_whole_model_is_unbiased_exactly(decoder, baseline, samples, monkeypatch):
    """Averages the gradient over every joint outcome of the draws, against the gradient of the enumerated bound."""
    source, target_in, target = SOURCE[1:2, :3], TARGET_IN[1:2, :3], TARGET[1:2, :3]  # 2 real positions and steps
    mask = target != PAD
    seq2seq = model(decoder, partial(Reinforce, baseline, samples), score=partial(AdditiveScore, size=3)).train()
    estimator = seq2seq.decoder.attention.estimator
    named = [(name, parameter) for name, parameter in seq2seq.named_parameters() if "baseline" not in name]
    parameters = [parameter for _, parameter in named]
    fed = seq2seq.decoder.feed_size > 0
    paths = list(product(range(2), repeat=2))
    if baseline is MovingAverage:
        estimator.baseline(torch.tensor([[[-2.0, -3.0, 0.0]]]), mask)
    warm = {name: value.clone() for name, value in estimator.state_dict().items()}

    def outcome(chosen):
        drawn = torch.tensor([[*path, 0] for path in chosen]).unsqueeze(1)
        monkeypatch.setattr(torch, "multinomial", Forced(drawn, fed))
        scored, candidates = seq2seq(source, target_in, target)
        assert candidates.positions is None or torch.equal(candidates.positions[: len(chosen)], drawn)
        return scored, candidates, candidates.log_probs[..., :2].sum().exp()

    estimator.samples = 1
    bound = 0.0
    for path in paths:
        scored, _, probability = outcome([path])
        bound = bound + probability * token_mean(scored[0], mask)
    expected = torch.autograd.grad(-bound, parameters)

    estimator.samples = samples
    found = [torch.zeros_like(parameter) for parameter in parameters]
    for chosen in product(paths, repeat=samples):
        scored, candidates, probability = outcome(chosen)
        estimator.load_state_dict(warm)
        loss = probability.detach() * seq2seq.objective(scored, candidates, mask).loss
        for total, gradient in zip(found, torch.autograd.grad(loss, parameters), strict=True):
            total += gradient
    for (name, _), a, b in zip(named, found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def test_an_empty_source_is_refused_with_a_sentence():
    seq2seq = model().eval()
    with pytest.raises(ValueError, match=r"fully masked: no source position is left to attend to\."):
        seq2seq(torch.tensor([[3, 4], [0, 0]]), TARGET_IN[:2], TARGET[:2])


@every_model
def test_a_batch_without_sentences_has_no_likelihoods(decoder, estimator):
    seq2seq = model(decoder, estimator)
    scored, candidates = seq2seq(SOURCE[:0], TARGET_IN[:0], TARGET[:0])
    assert scored.shape[1:] == candidates.weights.shape[-3:-1] == (0, T)


def test_shared_parameters_are_counted_once_and_shared():
    tied, untied = model(tie_output=True), model(tie_output=False)
    assert tied.readout.linear.weight is tied.target_embedding.weight
    assert untied.parameter_count() - tied.parameter_count() == 7 * 6
    shared = model(share_embeddings=True)
    assert shared.source_embedding is shared.target_embedding
    assert tied.parameter_count() - shared.parameter_count() == 7 * 6


def test_shared_embeddings_of_unequal_vocabularies_are_refused_with_a_sentence():
    with pytest.raises(ValueError, match=r"source has 7 types and the target 9; .+joint=true\."):
        model(share_embeddings=True, target_vocabulary=9)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_deeper_encoder_starts_the_decoder_from_its_upper_layers(decoder):
    seq2seq = model(decoder, layers=1, encoder_layers=2)
    _, finals = seq2seq.encoder(seq2seq.embed(seq2seq.source_embedding, SOURCE), (SOURCE != PAD).sum(1))
    assert finals.shape[1] == 2
    expected = seq2seq.decoder.start(finals[:, 1:]).recurrent
    started = seq2seq.start(SOURCE).decoder.recurrent
    assert torch.equal(started.hidden, expected.hidden)
    assert started.hidden.shape[1] == 1


def test_a_decoder_deeper_than_its_encoder_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="encoder_layers=1 is less than"):
        model(layers=2, encoder_layers=1)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_features_may_be_wider_than_the_embeddings_of_an_output_layer_of_its_own(decoder):
    seq2seq = model(decoder, readout_size=7, tie_output=False)
    assert seq2seq.readout.linear.in_features == 7
    scored, _ = seq2seq(SOURCE, TARGET_IN, TARGET)
    scored.sum().backward()
    assert seq2seq.readout.linear.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match=r"found 7 and 6; make them equal or set model.tie_output=false"):
        model(decoder, readout_size=7, tie_output=True)


def test_two_models_from_one_partial_share_no_parameters():
    attention = partial(Attention, GeneralScore, Softmax, Expectation)
    options = {"source_vocabulary": 7, "target_vocabulary": 7, "embedding": 6, "encoder_size": 4, "decoder_size": 5}
    factory = partial(RNNSeq2Seq, attention=attention, decoder=DECODERS["bahdanau"], **options)
    first, second = factory(), factory()
    assert not set(map(id, first.modules())) & set(map(id, second.modules()))
    assert not {p.data_ptr() for p in first.parameters()} & {p.data_ptr() for p in second.parameters()}


def test_padding_s_embedding_starts_at_0():
    seq2seq = model()
    for table in (seq2seq.source_embedding, seq2seq.target_embedding):
        assert (table.weight[PAD] == 0).all()
        assert table.weight[PAD + 1 :].std().item() == pytest.approx(6**-0.5, rel=0.4)


def test_a_seed_initialises_every_model_alike_wherever_it_lies_in_memory():
    models = [model(tie_output=tied) for tied in (True, False) for _ in range(12)]
    for group in (models[:12], models[12:]):
        states = [seq2seq.state_dict() for seq2seq in group]
        for name, value in states[0].items():
            assert all(torch.equal(state[name], value) for state in states), name


@every_decoder
@pytest.mark.parametrize("normalizer", [partial(LocalMonotonic, window=1), partial(LocalPredictive, window=1, size=3)])
def test_windows_move_alike_in_the_search_and_in_the_teacher_forced_run(decoder, normalizer):
    torch.manual_seed(0)
    attention = partial(Attention, GeneralScore, normalizer, Expectation)
    seq2seq = RNNSeq2Seq(
        attention=attention, decoder=DECODERS[decoder], source_vocabulary=7, target_vocabulary=7, embedding=6,
        encoder_size=4, decoder_size=5, dropout=0.0,
    ).double().eval()  # fmt: skip
    scored, candidates = seq2seq(SOURCE, TARGET_IN, TARGET)
    log_probs, weights = stepwise(seq2seq, SOURCE, TARGET_IN)
    torch.testing.assert_close(candidates.weights[MASK], weights[MASK])
    torch.testing.assert_close(scored[0][MASK], log_probs.gather(-1, TARGET.unsqueeze(-1)).squeeze(-1)[MASK])
    assert (weights[0, 0, 2:] == 0).all() or isinstance(seq2seq.decoder.attention.normalizer, LocalPredictive)


@pytest.mark.parametrize("estimator", ["expectation", "exact", "reinforce", "variational"])
def test_scoring_candidates_in_parts_changes_neither_likelihoods_nor_gradients(estimator):
    whole = model("luong", ESTIMATORS[estimator]).train()
    parts = model("luong", ESTIMATORS[estimator], chunk=1).train()
    results = []
    for seq2seq in (whole, parts):
        torch.manual_seed(3)
        scored, candidates = seq2seq(SOURCE, TARGET_IN, TARGET)
        seq2seq.objective(scored, candidates, MASK).loss.backward()
        results.append((scored, [parameter.grad for parameter in seq2seq.parameters()]))
    torch.testing.assert_close(results[0], results[1])
