import json

import pytest

from attnlab.report import parallel
from attnlab.report.compare import BOOTSTRAP, MCNEMAR, RANDOMISATION, SEEDS, compare, p_number, p_phrase, sign_tests
from attnlab.report.points import load


def compared(folder):
    (data,) = load(folder).sets
    return compare(data)


def classify(fabricate, folder, name, seed, right, count=100, **metrics):
    """A run that classifies all but the last so many images rightly."""
    rows = [{"label": "cat", "prediction": "cat" if i < right else "dog", "probability": 0.5} for i in range(count)]
    fabricate.run(
        folder / name / f"seed={seed}", attention=name, seed=seed, predictions=rows,
        metrics={"test/accuracy": 100 * right / count, "train/images_per_second": 10.0} | metrics,
    )  # fmt: skip


def test_a_planted_difference_is_marked_by_every_test(fabricate, tmp_path):
    found = compared(fabricate.sweep(tmp_path, {"bahdanau": 0.05, "luong": 0.4, "hard": 0.5}, (1, 2, 3)))
    for key in ("test/bleu", "test/chrf"):
        verdict = found.verdicts[key]
        assert verdict.supported
        assert verdict.best == "bahdanau"
        outcomes = [outcome for outcome in found.outcomes if outcome.metric.key == key]
        assert [(outcome.test, outcome.other) for outcome in outcomes] == [
            (test, other) for test in (BOOTSTRAP, RANDOMISATION, SEEDS) for other in ("luong", "hard")
        ] or {(o.test, o.other) for o in outcomes} == {
            (test, other) for test in (BOOTSTRAP, RANDOMISATION, SEEDS) for other in ("luong", "hard")
        }
        assert all(outcome.supported and outcome.pairs == 3 and outcome.difference > 0 for outcome in outcomes)
        assert all(len(outcome.by_seed) == 3 for outcome in outcomes if outcome.test != SEEDS)
    assert {outcome.test for outcome in found.outcomes if outcome.metric.key == "test/accuracy"} == {MCNEMAR, SEEDS}
    assert {outcome.test for outcome in found.outcomes if outcome.metric.key == "test/loss"} == {SEEDS}
    assert not found.problems
    assert "test/entropy" not in found.verdicts, "neither more nor less of it is better"


def test_a_planted_null_is_not_marked(fabricate, tmp_path):
    found = compared(fabricate.sweep(tmp_path, {"bahdanau": 0.2, "luong": 0.2, "scaled": 0.2}, (1, 2, 3)))
    assert not any(verdict.supported for verdict in found.verdicts.values())
    assert "no other variant is told apart" in found.verdicts["test/bleu"].sentence


def test_a_tie_at_the_top_is_not_marked_though_the_rest_is_worse(fabricate, tmp_path):
    found = compared(fabricate.sweep(tmp_path, {"bahdanau": 0.1, "luong": 0.1, "hard": 0.6}, (1, 2, 3)))
    verdict = found.verdicts["test/bleu"]
    assert not verdict.supported
    assert "not told apart from" in verdict.sentence
    assert "hard" not in verdict.sentence


def test_seeds_that_scatter_forbid_the_mark(fabricate, tmp_path):
    """With each seed all sentences say that one is better, and yet another seed might say otherwise."""
    texts = fabricate.references(80)
    for name, rates in (("bahdanau", (0.02, 0.2, 0.5)), ("luong", (0.15, 0.35, 0.7))):
        for seed, rate in enumerate(rates, 1):
            fabricate.translation(tmp_path / name / f"{seed}", name, seed, rate, texts)
    found = compared(tmp_path)
    outcomes = {outcome.test: outcome for outcome in found.outcomes if outcome.metric.key == "test/bleu"}
    assert outcomes[BOOTSTRAP].supported
    assert outcomes[RANDOMISATION].supported
    assert not outcomes[SEEDS].supported
    assert not found.verdicts["test/bleu"].supported


def test_one_seed_is_tested_on_sentences_and_metrics_without_a_test_are_not_marked(fabricate, tmp_path):
    found = compared(fabricate.sweep(tmp_path, {"bahdanau": 0.05, "luong": 0.4}, (1,)))
    assert {outcome.test for outcome in found.outcomes} == {BOOTSTRAP, RANDOMISATION, MCNEMAR}
    assert found.verdicts["test/bleu"].supported
    assert not found.verdicts["test/loss"].supported
    assert "luong (no test applies)" in found.verdicts["test/loss"].sentence


def test_a_variant_of_which_one_seed_is_left_cannot_be_judged(fabricate, tmp_path):
    fabricate.sweep(tmp_path, {"bahdanau": 0.05, "luong": 0.4}, (1, 2, 3))
    for seed in (2, 3):
        (tmp_path / "attention=luong" / f"seed={seed}" / "metrics.json").unlink()
    verdict = compared(tmp_path).verdicts["test/bleu"]
    assert not verdict.supported
    assert "luong (a single seed is left)" in verdict.sentence


def test_equal_means_are_said_to_be_equal(fabricate, tmp_path):
    for name in ("bahdanau", "luong"):
        for seed in (1, 2):
            classify(fabricate, tmp_path, name, seed, 50)
    found = compared(tmp_path)
    assert found.verdicts["test/accuracy"].sentence == "Accuracy: bahdanau, luong share the highest mean, 50.0."
    assert not found.verdicts["test/accuracy"].supported
    assert [(outcome.test, outcome.corrected) for outcome in found.outcomes] == [(MCNEMAR, 1.0)]


def test_a_variant_alone_is_not_compared(fabricate, tmp_path):
    found = compared(fabricate.sweep(tmp_path, {"bahdanau": 0.05}, (1, 2)))
    assert found.outcomes == ()
    assert found.verdicts == {}


def test_other_test_sentences_are_not_compared_and_listed(fabricate, tmp_path):
    fabricate.sweep(tmp_path, {"bahdanau": 0.05, "luong": 0.4}, (1, 2, 3))
    path = tmp_path / "attention=luong" / "seed=2" / "predictions.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:40]) + "\n")
    found = compared(tmp_path)
    (problem,) = found.problems
    assert "40 of them, and the others 60" in problem.sentence
    assert all(outcome.seeds == (1, 3) for outcome in found.outcomes if outcome.test == BOOTSTRAP)


def test_predictions_that_do_not_give_the_recorded_score_are_doubtful(fabricate, tmp_path):
    fabricate.sweep(tmp_path, {"bahdanau": 0.05, "luong": 0.4}, (1, 2))
    path = tmp_path / "attention=luong" / "seed=2" / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"test/bleu": 99.9}))
    (problem,) = compared(tmp_path).problems
    assert problem.point == "attention=luong/seed=2"
    assert "gives BLEU" in problem.sentence
    assert "metrics.json says 99.90" in problem.sentence


def test_many_outputs_are_scored_by_several_processes_with_the_same_outcome(fabricate, tmp_path, monkeypatch):
    fabricate.sweep(tmp_path, {"bahdanau": 0.2, "luong": 0.25}, (1, 2))
    alone = compared(tmp_path)
    monkeypatch.setattr(parallel, "WORTH_IT", 1)
    assert compared(tmp_path).outcomes == alone.outcomes


def test_classification_by_mcnemar(fabricate, tmp_path):
    """20 images that only one gets right: p = 2 / 2^20 with each seed."""
    for seed in (1, 2, 3):
        classify(fabricate, tmp_path, "bahdanau", seed, 90 + seed)
        classify(fabricate, tmp_path, "luong", seed, 70 + seed)
    found = compared(tmp_path)
    outcomes = {outcome.test: outcome for outcome in found.outcomes}
    assert outcomes.keys() == {MCNEMAR, SEEDS}
    assert outcomes[MCNEMAR].by_seed == pytest.approx([2 / 2**20] * 3)
    assert outcomes[MCNEMAR].p == pytest.approx(2 / 2**20)
    assert outcomes[MCNEMAR].difference == pytest.approx(20)
    verdict = found.verdicts["test/accuracy"]
    assert verdict.supported
    assert verdict.sentence.startswith("Accuracy: bahdanau has the highest mean, 92.0, and every test")


@pytest.mark.parametrize(("sets", "supported"), [(6, True), (5, False)])
def test_the_sign_test_over_data_sets(fabricate, tmp_path, sets, supported):
    for number in range(sets):
        data = {"_target_": "attnlab.data.translation.hub", "path": f"corpora/language{number}"}
        for name, bleu in (("bahdanau", 30.0), ("luong", 29.0)):
            fabricate.run(
                tmp_path / name / f"{number}", attention=name, data=data, metrics={"test/bleu": bleu + number},
                predictions=[{"source": "a", "reference": "b", "prediction": "c"}],
            )  # fmt: skip
    (outcome,) = sign_tests(load(tmp_path))
    assert (outcome.best, outcome.other, outcome.difference) == ("bahdanau", "luong", sets)
    assert outcome.p == pytest.approx(2 / 2**sets)
    assert outcome.supported is supported


def test_one_data_set_has_no_sign_test(fabricate, tmp_path):
    assert sign_tests(load(fabricate.sweep(tmp_path, {"bahdanau": 0.1, "luong": 0.2}, (1,), 5))) == []


def test_p_values_in_words():
    assert [p_number(p) for p in (0.0001, 0.0123, 0.0499, 0.0501, 1.0)] == [
        "< 0.001",
        "0.012",
        "0.0499",
        "0.0501",
        "1",
    ]
    assert p_phrase(0.0001) == "p < 0.001"
    assert p_phrase(0.5) == "p = 0.500"
