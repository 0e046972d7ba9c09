"""Image classification through the real command lines: training, classifying pictures, scoring another corpus."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "task=vision", "trainer.max_epochs=2", "model.size=16", "model.heads=2", "model.hidden=16", "maps=2",
    "wandb.mode=disabled", "trainer.log_every_n_steps=2",
)  # fmt: skip
CLUTTER = ("data=cluttered_digits", "data.train=120", "data.validation=20", "data.test=30")


def call(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"NO_COLOR": "1", "COLUMNS": "160"}
    return warm.run_text([ROOT / script, *arguments], cwd=ROOT, env=variables)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision") / "run"
    return folder, call("train.py", *TINY, "attention=hard", "attention.estimator.samples=2", f"run_dir={folder}")


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_a_run_leaves_its_whole_record(digits):
    folder, ended = digits
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = metrics(folder)
    for mode in ("argmax", "sample", "soft"):
        assert {f"test/{mode}/{name}" for name in ("accuracy", "top5", "loss", "entropy")} <= found.keys()
    assert "test/exact/accuracy" not in found, "layers that read each other have no exact marginal"
    assert {"val/accuracy", "train/images_per_second", "train/peak_memory_mib", "params"} <= found.keys()
    assert (found["test_mode"], found["task"]) == ("argmax", "vision")
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 300
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert found["test/accuracy"] == pytest.approx(right / 3)
    assert all(row["correct"] == (row["label"] == row["prediction"]) for row in rows)
    curve = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in curve] == [1, 2]
    assert curve[0]["seconds"] < curve[1]["seconds"]
    assert "val/accuracy" in curve[1]
    maps = [json.loads(line) for line in (folder / "attention.jsonl").read_text().splitlines()]
    assert len(maps) == 2
    for shown in maps:
        assert np.sum(shown["map"]) == pytest.approx(1, abs=1e-2)
        assert (folder / shown["image"]).is_file()
    assert len(list((folder / "attention").glob("test-*[0-9].png"))) == 2
    assert (folder / "confusion.png").is_file()
    choices = (folder / ".hydra" / "hydra.yaml").read_text()
    assert "attention: hard" in choices
    assert "model: vit" in choices


def test_the_terminal_shows_images_per_second_and_every_mode(digits):
    _, ended = digits
    for words in ("1,197 training images of 8 x 8 pixels", "images/s", "argmax (selected by)", "calibration error"):
        assert words in ended.stdout
    assert "Warning" not in ended.stderr


def test_pictures_of_any_kind_are_classified_and_bad_ones_named(digits, tmp_path):
    folder, _ = digits
    Image.fromarray(np.full((20, 31, 3), 90, np.uint8)).save(tmp_path / "colour.png")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    pictures = [tmp_path / name for name in ("colour.png", "broken.png", "deep.png")]
    ended = call("scripts/classify.py", folder, *pictures, "--out", tmp_path / "drawn", "--top", "2")
    assert ended.returncode == 1
    lines = [line.split("\t") for line in ended.stdout.splitlines()]
    assert [line[0] for line in lines] == [str(pictures[0]), str(pictures[2])]
    assert all(len(line) == 3 and line[1].endswith("%") for line in lines)
    assert "broken.png cannot be read" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"colour-attention.png", "deep-attention.png"}
    assert f"What was attended to is drawn in {tmp_path / 'drawn'}." in ended.stderr
    for picture in (pictures[1], tmp_path):
        ended = call("scripts/classify.py", folder, picture, "--out", tmp_path / "none")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "drawn" not in ended.stderr
    assert not (tmp_path / "none").exists()
    ended = call("scripts/classify.py", folder, pictures[0], "--out", pictures[0])
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "colour.png is a file, not a folder" in ended.stderr


def test_a_run_is_scored_on_another_split_with_its_own_statistics(digits):
    folder, _ = digits
    ended = call("scripts/evaluate.py", folder, "--split", "test", "--mode", "argmax")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["test/accuracy"] == pytest.approx(metrics(folder)["test/accuracy"])
    other = call("scripts/evaluate.py", folder, "data=cluttered_digits", "data.train=20", "data.test=5")
    assert other.returncode == 1
    assert "trained on images of" in other.stderr
    for option in ("--beam", "--alpha"):
        refused = call("scripts/evaluate.py", folder, option, "3")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"task=vision, which has no search: leave {option} out." in refused.stderr


def test_a_run_of_another_task_is_told_apart(digits):
    ended = call("scripts/translate.py", digits[0])
    assert ended.returncode == 1
    assert "is one of task=vision, and this is for task=translation" in ended.stderr


def test_a_glimpse_model_says_how_much_of_what_it_read_lay_on_the_digit(tmp_path):
    ended = call(
        "train.py", *TINY, *CLUTTER, "attention=hard", "attention.estimator.samples=2", "model=glimpse_vit",
        "model.glimpses=4", "model.policy=8", "trainer.max_epochs=1", f"run_dir={tmp_path}/run",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = metrics(tmp_path / "run")
    assert {"test/argmax/inside", "test/sample/inside", "test/inside_chance"} <= found.keys()
    assert "test/soft/accuracy" not in found
    shown = json.loads((tmp_path / "run" / "attention.jsonl").read_text().splitlines()[0])
    assert sorted(np.unique(shown["map"])) == [0, 0.25]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("model=rnn",), "task=vision cannot train a RNNSeq2Seq; choose model=vit or model=glimpse_vit"),
        (("data=phrasebook",), "data=phrasebook is of task=translation, and this run of task=vision: give task=tran"),
        (("task=translation", "model=vit"), "task=translation cannot train a ViT; choose model=rnn or"),
        (("model.patch=3",), "Patches of 3 x 3 pixels do not divide an image of 8 x 8"),
        (("attention=exact",), "choose model/pooling=attention model.variant_layers=pooling"),
        (("attention=hard", "model=glimpse_vit", "model.patch=2", "model.glimpses=17"), "model.glimpses=17 patches"),
        (("data=cifar10", "data.path=/nowhere/here"), "/nowhere/here"),
    ],
)
def test_mistakes_are_sentences(arguments, says, tmp_path):
    ended = call("train.py", "task=vision", *arguments, f"run_dir={tmp_path}/run", "wandb.mode=disabled")
    assert ended.returncode == 1, ended.stdout
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_averaged_weights_are_what_is_kept(tmp_path):
    small = ("data.train=60", "data.validation=8", "data.test=8", "search.beam=1", "maps=0", "wandb.mode=disabled")
    ended = call("train.py", *small, "task.average=0.5", "trainer.max_epochs=2", f"run_dir={tmp_path}/run")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    name = "model.readout.linear.bias"
    assert not torch.equal(checkpoint["state_dict"][name], checkpoint["current_model_state"][name])


def test_the_mode_that_selects_scores_the_validation_split_as_training_did(tmp_path):
    """A variant in some layers only: the others are read alike in validation and in the test."""
    ended = call("train.py", *TINY, "attention=hard", "model.variant_layers=[1]", f"run_dir={tmp_path}/run")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    scored = call("scripts/evaluate.py", tmp_path / "run", "--split", "validation", "--mode", "argmax")
    assert json.loads(scored.stdout)["validation/accuracy"] == pytest.approx(metrics(tmp_path / "run")["val/accuracy"])
