import json

from attnlab.report.points import load


def names(folder):
    return [[variant.name for variant in data.variants] for data in load(folder).sets]


def start(fabricate, directory, **options):
    return fabricate.run(directory, metrics={"test/bleu": 1.0}, predictions=[_ROW], **options)


_ROW = {"source": "a", "reference": "b", "prediction": "c"}


def test_runs_that_differ_in_the_seed_alone_are_one_variant(fabricate, tmp_path):
    for seed in (3, 1, 2):
        start(fabricate, tmp_path / f"{seed}", seed=seed, extra={"wandb": {"group": f"{seed}"}, "maps": seed})
    (data,) = load(tmp_path).sets
    (variant,) = data.variants
    assert variant.name == "bahdanau"
    assert list(variant.runs) == [1, 2, 3]
    assert data.seeds == (1, 2, 3)


def test_a_name_says_no_more_than_it_takes(fabricate, tmp_path):
    """Two variants of hard attention need a second word, the other needs none; what is common to all is not said."""
    start(
        fabricate, tmp_path / "a", attention="bahdanau", overrides=["attention=bahdanau", "optimizer.lr=0.1", "seed=1"]
    )
    for score in ("dot", "general"):
        start(
            fabricate, tmp_path / f"b{score}", attention="hard", extra={"attention": {"score": {"x": score}}},
            overrides=["attention=hard", f"attention/score={score}", "optimizer.lr=0.1", "seed=1"],
        )  # fmt: skip
    assert names(tmp_path) == [["bahdanau", "hard, score=dot", "hard, score=general"]]


def test_values_are_named_for_those_who_left_the_default_too(fabricate, tmp_path):
    start(fabricate, tmp_path / "a", overrides=["seed=1"])
    start(fabricate, tmp_path / "b", extra={"optimizer": {"lr": 0.01}}, overrides=["optimizer.lr=0.01", "seed=1"])
    assert names(tmp_path) == [["lr=0.001", "lr=0.01"]]


def test_recorded_choices_name_a_default_option(fabricate, tmp_path):
    start(
        fabricate,
        tmp_path / "a",
        overrides=["seed=1"],
        choices={"attention": "bahdanau", "attention/score": "additive"},
    )
    start(fabricate, tmp_path / "b", attention="hard", choices={"attention": "hard", "attention/score": "dot"})
    assert names(tmp_path) == [["bahdanau", "hard"]]


def test_without_recorded_choices_a_default_option_is_named_by_its_classes(fabricate, tmp_path):
    start(fabricate, tmp_path / "a", overrides=["seed=1"])
    start(fabricate, tmp_path / "b", attention="hard")
    assert names(tmp_path) == [["AdditiveScore", "hard"]]


def test_what_no_override_names_tells_apart_still(fabricate, tmp_path):
    """Two runs of one command, of two versions of a config."""
    start(fabricate, tmp_path / "a", extra={"model": {"dropout": 0.1}})
    start(fabricate, tmp_path / "b", extra={"model": {"dropout": 0.2}})
    assert names(tmp_path) == [["dropout=0.1", "dropout=0.2"]]


def test_data_sets_are_apart_and_training_data_are_the_variants(fabricate, tmp_path):
    phrasebook = {"_target_": "attnlab.data.translation.phrasebook", "language": "de", "train": 10}
    for name, data in {
        "a": phrasebook,
        "b": phrasebook | {"language": "fr"},
        "c": {"_target_": "attnlab.data.translation.hub", "path": "bentrevett/multi30k"},
        "d": phrasebook | {"train": 20},
    }.items():
        start(fabricate, tmp_path / name, data=data)
    comparison = load(tmp_path)
    assert [data.name for data in comparison.sets] == ["phrasebook, language=de", "phrasebook, language=fr", "multi30k"]
    assert [variant.name for variant in comparison.sets[0].variants] == ["train=10", "train=20"]


def test_points_that_a_sweep_asked_for_are_listed_as_missing(fabricate, tmp_path):
    sweep = fabricate.sweep(tmp_path / "sweep", {"bahdanau": 0.1, "luong": 0.1}, (1, 2), 4)
    (sweep / "attention=luong" / "seed=2" / "status.json").unlink()
    (sweep / "attention=luong" / "seed=1" / "status.json").write_text("cut")
    points = [(f"attention={name}", f"seed={seed}") for name in ("bahdanau", "luong") for seed in (1, 2)]
    for folder, named in ((sweep, ""), (tmp_path, "sweep: ")):
        comparison = load(folder, {sweep: points})
        damaged, missing = comparison.problems
        assert (damaged.point.removeprefix("sweep/"), damaged.kind) == ("attention=luong/seed=1", "damaged")
        assert (missing.point, missing.kind) == (f"{named}attention=luong, seed=2", "missing")
        assert (comparison.points, comparison.finished) == (4, 2)


def test_of_runs_that_no_sweep_asked_for_none_is_missing(fabricate, tmp_path):
    start(fabricate, tmp_path / "a")
    start(fabricate, tmp_path / "b", attention="hard", seed=2)
    start(fabricate, tmp_path / "c", attention="luong", data={"_target_": "attnlab.data.translation.hub", "path": "x"})
    comparison = load(tmp_path)
    assert comparison.problems == ()
    assert (comparison.points, comparison.finished) == (3, 3)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "status.json").write_text("cut")
    comparison = load(tmp_path)
    assert [(problem.point, problem.kind) for problem in comparison.problems] == [("d", "damaged")]
    assert (comparison.points, comparison.finished) == (4, 3)


def test_a_variant_that_failed_with_every_seed_keeps_its_place(fabricate, tmp_path):
    fabricate.sweep(tmp_path, {"bahdanau": 0.1}, (1, 2), 4)
    for seed in (1, 2):
        fabricate.run(tmp_path / f"h{seed}", attention="hard", seed=seed, state="failed", error="No.")
    comparison = load(tmp_path)
    (data,) = comparison.sets
    assert [(variant.name, len(variant.runs)) for variant in data.variants] == [("bahdanau", 2), ("hard", 0)]
    assert [problem.kind for problem in comparison.problems] == ["failed", "failed"]


def test_of_two_runs_of_one_point_the_newer_counts(fabricate, tmp_path):
    old, new = (start(fabricate, tmp_path / name) for name in ("b", "a"))
    for directory, ended, bleu in ((old, "2026-01-01", 1.0), (new, "2026-02-01", 2.0)):
        status = json.loads((directory / "status.json").read_text())
        (directory / "status.json").write_text(json.dumps(status | {"ended": ended}))
        (directory / "metrics.json").write_text(json.dumps({"test/bleu": bleu}))
    comparison = load(tmp_path)
    assert comparison.sets[0].variants[0].values("test/bleu") == {1: 2.0}
    (problem,) = comparison.problems
    assert (problem.point, problem.kind) == ("b", "repeated")
    assert "a is a newer run" in problem.sentence


def test_a_metric_that_one_seed_lacks_is_listed(fabricate, tmp_path):
    for seed, value in ((1, 0.5), (2, None), (3, float("nan"))):
        fabricate.run(
            tmp_path / f"{seed}", seed=seed, metrics={"test/bleu": 1.0, "test/aer": value}, predictions=[_ROW]
        )
    comparison = load(tmp_path)
    assert comparison.sets[0].variants[0].values("test/aer") == {1: 0.5}
    assert [(problem.point, problem.sentence[:16]) for problem in comparison.problems] == [
        ("2", "Without test/aer"),
        ("3", "Without test/aer"),
    ]
