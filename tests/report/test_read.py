import json

import pytest

from attnlab.errors import UserError
from attnlab.report.points import load
from attnlab.report.read import read_runs


def problems_of(folder):
    return {problem.point: problem for problem in read_runs(folder)[1]}


def finished(fabricate, directory, **options):
    texts = fabricate.references(5)
    return fabricate.translation(directory, "bahdanau", 1, 0.1, texts, **options)


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        read_runs(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"There is no run in .*empty.* status\.json"):
        read_runs(tmp_path / "empty")


def test_a_folder_in_which_nothing_finished_is_refused_with_the_reasons(fabricate, tmp_path):
    fabricate.run(tmp_path / "a", state="failed", error="The loss is not finite.")
    with pytest.raises(UserError, match=r"No run .* has finished.*a: Failed: The loss is not finite"):
        load(tmp_path)


def test_a_sound_run_is_read_whole_at_any_depth_or_by_itself(fabricate, tmp_path):
    directory = finished(fabricate, tmp_path / "x" / "y" / "seed=1", choices={"attention": "bahdanau", "hydra/x": "y"})
    for folder, name in ((tmp_path, "x/y/seed=1"), (directory, "seed=1")):
        (run,), problems = read_runs(folder)
        assert not problems
        assert run.name == name
        assert run.seed == 1
        assert len(run.predictions) == 5
        assert len(run.curves) == 5
        assert len(run.attention) == 4
        assert run.overrides == ("attention=bahdanau", "seed=1")
        assert run.choices == {"attention": "bahdanau"}


@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [
        ("failed", "failed", "Failed: The loss is not finite."),
        ("interrupted", "interrupted", "goes on from its last checkpoint"),
        ("running", "running", "status says `running`"),
        ("mended", "damaged", "unknown state 'mended'"),
    ],
)
def test_a_run_that_did_not_finish_gets_a_sentence(fabricate, tmp_path, state, kind, words):
    fabricate.run(tmp_path / "a", state=state, error="The loss is\nnot finite.", metrics={"test/bleu": 1.0})
    (run,), (problem,) = read_runs(tmp_path)
    assert not run.usable
    assert problem.point == "a"
    assert problem.kind == kind
    assert words in problem.sentence


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("status.json", "{", "status.json cannot be read"),
        ("status.json", "[]", "status.json holds no JSON object"),
        (".hydra/config.yaml", "a: [", "config.yaml cannot be read"),
        (".hydra/config.yaml", "data: {}", "has no seed"),
        (".hydra/config.yaml", None, "config.yaml is missing"),
        ("metrics.json", None, "metrics.json is missing"),
        ("metrics.json", '{"test/bleu": 3', "metrics.json cannot be read"),
    ],
)
def test_a_point_with_a_damaged_file_is_left_out_and_said_to_be(fabricate, tmp_path, file, content, words):
    path = finished(fabricate, tmp_path / "a") / file
    path.unlink() if content is None else path.write_text(content)
    runs, (problem,) = read_runs(tmp_path)
    assert not any(run.usable for run in runs)
    assert problem.kind == "damaged"
    assert words in problem.sentence


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("predictions.jsonl", None, "tests and samples: predictions.jsonl is missing"),
        ("predictions.jsonl", '{"source": "a", "reference": "b", "prediction": "c"}\n{"sou', "line 2 of predictions"),
        ("predictions.jsonl", '{"source": "a"}\n', "line 1 of predictions.jsonl is not what"),
        ("predictions.jsonl", "", "line 1 of predictions.jsonl is not JSON"),
        ("curves.jsonl", '{"loss": 1}', "learning curves: line 1 of curves.jsonl"),
        (
            "attention.jsonl",
            '{"kind": "translation", "source": ["a"], "target": ["b"], "weights": [[1, 2]]}',
            "maps: line 1",
        ),
        ("attention.jsonl", '{"kind": "image", "image": "a.png", "map": 5}', "maps: line 1"),
        ("attention.jsonl", '{"kind": "image", "image": "a.png", "map": [[1, 2], [3]]}', "maps: line 1"),
        ("attention.jsonl", "[]", "maps: line 1"),
    ],
)
def test_a_damaged_part_is_left_out_and_the_metrics_stay(fabricate, tmp_path, file, content, words):
    path = finished(fabricate, tmp_path / "a") / file
    path.unlink() if content is None else path.write_text(content)
    (run,), (problem,) = read_runs(tmp_path)
    assert run.usable
    assert words in problem.sentence
    assert problem.kind == "damaged"


def test_runs_come_in_the_order_that_a_person_gives_them(fabricate, tmp_path):
    for name in ("k=10", "k=2", "b", "k=1"):
        finished(fabricate, tmp_path / name)
    assert [run.name for run in read_runs(tmp_path)[0]] == ["b", "k=1", "k=2", "k=10"]


def test_curves_and_maps_are_optional(fabricate, tmp_path):
    directory = finished(fabricate, tmp_path / "a")
    for file in ("curves.jsonl", "attention.jsonl"):
        (directory / file).unlink() if file[0] == "c" else (directory / file).write_text("")
    (run,), problems = read_runs(tmp_path)
    assert not problems
    assert run.usable
    assert run.curves == run.attention == ()


def test_choices_of_attention_and_links_are_searched_too(fabricate, tmp_path):
    folder = tmp_path / "sweep"
    for score in ("dot", "general"):
        finished(fabricate, folder / "attention" / f"score={score}" / "seed=1")
    finished(fabricate, tmp_path / "elsewhere")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "around").symlink_to(folder)
    runs, problems = read_runs(folder)
    assert [run.name for run in runs] == ["attention/score=dot/seed=1", "attention/score=general/seed=1", "link"]
    assert not problems


def test_bytes_that_are_not_utf8_are_a_sentence(fabricate, tmp_path):
    (finished(fabricate, tmp_path / "a") / "predictions.jsonl").write_bytes(b"\xff\xfe")
    assert "cannot be read" in problems_of(tmp_path)["a"].sentence


def test_the_folders_of_other_tools_are_not_searched(fabricate, tmp_path):
    directory = finished(fabricate, tmp_path / "a")
    for name in ("wandb", "checkpoints"):
        (directory / name / "b").mkdir(parents=True)
        (directory / name / "b" / "status.json").write_text(json.dumps({"state": "failed"}))
    runs, problems = read_runs(tmp_path)
    assert len(runs) == 1
    assert not problems
