"""Sweeps through the real command line: stable directories, skipping, resuming, and failures that stay their own."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import warm

from attnlab.cli import sweep_overrides

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "data.train=60", "data.validation=8", "data.test=8", "search.beam=1", "maps=0", "wandb.mode=disabled",
    "model.embedding=16", "model.encoder_size=8", "model.decoder_size=16",
)  # fmt: skip


def sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = ["-m", f"hydra.sweep.dir={folder}", *arguments, *TINY]
    variables = os.environ | {"NO_COLOR": "1", "COLUMNS": "160"}
    return warm.run_text([ROOT / "train.py", *words], cwd=ROOT, env=variables)


def state(folder: Path, point: str) -> dict:
    return json.loads((folder / point / "status.json").read_text())


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "with a, comma=1"
    return folder, sweep(
        folder, "attention=bahdanau,exact", "model/decoder=bahdanau", "seed=1,2", "trainer.max_epochs=1"
    )


def test_every_point_has_a_directory_that_names_what_varies_and_one_that_fails_stops_no_other(swept):
    folder, ended = swept
    assert ended.returncode == 1, ended.stdout + ended.stderr
    for seed in (1, 2):
        assert state(folder, f"attention=bahdanau/seed={seed}")["state"] == "finished"
        failed = state(folder, f"attention=exact/seed={seed}")
        assert failed["state"] == "failed"
        assert "number of paths would grow" in failed["error"]
    assert "Traceback" not in ended.stderr
    table = ended.stdout[ended.stdout.index("Sweep ") :]
    for words in ("attention=bahdanau/seed=2", "finished", "attention=exact/seed=1", "failed", "test/bleu"):
        assert words in table


def test_the_same_sweep_again_skips_what_is_finished_and_a_wider_one_adds_to_it(swept):
    folder, _ = swept
    before = (folder / "attention=bahdanau" / "seed=1" / "metrics.json").stat().st_mtime_ns
    again = sweep(folder, "attention=bahdanau,none", "model/decoder=bahdanau", "seed=1", "trainer.max_epochs=1")
    assert "has finished before" in again.stdout
    assert (folder / "attention=bahdanau" / "seed=1" / "metrics.json").stat().st_mtime_ns == before
    assert state(folder, "attention=none/seed=1")["state"] == "finished"
    assert again.returncode == 1, "a point of the sweep has failed, and still says so"


def test_mistakes_in_the_command_are_told_before_any_point_is_run(tmp_path):
    misspelt = sweep(tmp_path, "attention=bahdanau,lung", "trainer.max_epochs=1")
    assert misspelt.returncode == 2
    assert "attention=lung is not an option" in misspelt.stderr
    one = sweep(tmp_path, "seed=1,2", f"run_dir={tmp_path}/one")
    assert one.returncode == 2
    assert "hydra.sweep.dir=FOLDER" in one.stderr
    assert not list(tmp_path.rglob("status.json"))


def test_a_sweep_is_named_after_its_experiment_and_its_points_after_what_varies():
    found = sweep_overrides(["-m", "experiment=x", "attention=a,b", "seed=1,2", "data.train=3", "+model.b=range(2)"])
    assert found[0] == "hydra.sweep.dir=outputs/sweeps/x"
    assert found[1].endswith("exclude_keys=['seed','experiment','data.train']")
    assert sweep_overrides(["task=vision", "seed=1,2"])[0] == "hydra.sweep.dir=outputs/sweeps/vision"
    assert len(sweep_overrides(["hydra.sweep.dir=here", "seed=1,2"])) == 1
