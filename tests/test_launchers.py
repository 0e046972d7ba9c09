"""Parallel launchers through the real command line, with real trainings; SLURM too, where it is installed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "data.train=60", "data.validation=8", "data.test=8", "search.beam=1", "maps=0", "model.embedding=16",
    "model.encoder_size=8", "model.decoder_size=16", "model/decoder=bahdanau",
)  # fmt: skip


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), "-m", f"hydra.sweep.dir={folder}", *TINY, *arguments]


def sweep(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "160"} | variables
    return warm.run_text(command(folder, *arguments)[1:], cwd=ROOT, env=environment)


def status(folder: Path, point: str) -> dict:
    return json.loads((folder / point / "status.json").read_text())


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launchers") / "with a, comma=1"
    return folder, sweep(
        folder, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "attention=bahdanau,exact",
        "trainer.max_epochs=1",
    )  # fmt: skip


def test_joblib_runs_points_side_by_side_and_one_that_fails_stops_no_other(swept):
    folder, ended = swept
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert status(folder, "attention=bahdanau/seed=1")["state"] == "finished"
    failed = status(folder, "attention=exact/seed=1")
    assert failed["state"] == "failed"
    assert "number of paths would grow" in failed["error"]
    table = ended.stdout[ended.stdout.index("Sweep ") :]
    for words in ("attention=bahdanau/seed=1", "finished", "attention=exact/seed=1", "failed", "test/bleu"):
        assert words in table
    assert "Traceback" not in ended.stderr
    assert status(folder, "attention=bahdanau/seed=1")["pid"] != failed["pid"]


def test_a_point_has_a_run_of_its_own_at_weights_and_biases(swept):
    folder, _ = swept
    point = folder / "attention=bahdanau" / "seed=1"
    (record,) = point.glob("wandb/offline-run-*/run-*.wandb")
    assert status(folder, "attention=bahdanau/seed=1")["tracking_id"] in record.name


def test_submitit_runs_points_as_jobs_and_skips_what_another_launcher_has_finished(swept):
    folder, _ = swept
    before = (folder / "attention=bahdanau" / "seed=1" / "metrics.json").stat().st_mtime_ns
    shutil.rmtree(folder / "attention=exact")
    again = sweep(
        folder, "hydra/launcher=submitit_local", "attention=bahdanau,none", "trainer.max_epochs=1",
        "hydra.launcher.timeout_min=60",
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    assert "attention=bahdanau/seed=1 has finished before" in again.stdout
    assert (folder / "attention=bahdanau" / "seed=1" / "metrics.json").stat().st_mtime_ns == before
    assert status(folder, "attention=none/seed=1")["state"] == "finished"
    assert "test/bleu" in again.stdout
    (job,) = (folder / ".submitit").glob("*/*_result.pkl")
    assert job.is_file()


def test_what_cannot_be_launched_is_told_in_a_sentence(tmp_path):
    several = sweep(tmp_path, "seed=1,2", "trainer.devices=2")
    assert several.returncode == 1
    assert "hydra/launcher=joblib" in several.stderr
    assert "torchrun" in several.stdout
    misspelt = sweep(tmp_path, "seed=1,2", "hydra/launcher=joblip")
    assert misspelt.returncode == 2
    assert "submitit_slurm" in misspelt.stderr
    none = sweep(tmp_path, "seed=1,2", "hydra/launcher=submitit_slurm", PATH="/nowhere")
    assert none.returncode == 2
    assert "needs a SLURM cluster" in none.stderr
    assert "Traceback" not in several.stderr + misspelt.stderr + none.stderr
    assert not list(tmp_path.rglob("status.json"))


CLUSTER = ROOT / "scripts" / "slurm_cluster.sh"


@pytest.fixture
def cluster(tmp_path_factory):
    """The environment of a SLURM cluster of this machine alone."""
    if not all(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in ("sbatch", "slurmd", "munged")):
        pytest.skip("SLURM is not installed: apt-get install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm")
    environment = os.environ | {"ATTNLAB_SLURM": str(folder), "NO_COLOR": "1", "COLUMNS": "160"}
    started = subprocess.run([CLUSTER, "start"], env=environment, capture_output=True, text=True, check=False)
    try:
        if started.returncode:
            pytest.skip(f"SLURM does not start here: {started.stderr}")
        yield environment | {"SLURM_CONF": str(folder / "slurm.conf")}
    finally:
        subprocess.run([CLUSTER, "stop"], env=environment, check=True)


def test_slurm_runs_eight_points_and_requeues_one_that_is_killed(cluster, tmp_path):
    folder = tmp_path / "swept"
    curve = folder / "seed=1" / "curves.jsonl"
    arguments = ("hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=30")
    begun = time.monotonic()
    with subprocess.Popen(
        command(folder, *arguments, "seed=1,2,3,4,5,6,7,8", "trainer.max_epochs=4", "wandb.mode=disabled"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=cluster,
    ) as process:  # fmt: skip
        try:
            while not (curve.is_file() and len(curve.read_text().splitlines()) > 1):
                assert process.poll() is None, process.stdout.read()
                assert time.monotonic() - begun < 200
                time.sleep(0.02)
            os.kill(status(folder, "seed=1")["pid"], signal.SIGKILL)
            job = json.loads((folder / ".submitit" / "jobs.json").read_text())["seed=1"]
            while status(folder, "seed=1")["state"] == "running":
                time.sleep(0.1)
            assert "SIGKILL" in status(folder, "seed=1")["error"]
            assert json.loads((folder / ".submitit" / "jobs.json").read_text()).keys() == {
                f"seed={seed}" for seed in range(1, 9)
            }
            while subprocess.run(["scontrol", "requeue", job], env=cluster, check=False).returncode:
                time.sleep(0.5)  # the job is still completing
            output, _ = process.communicate(timeout=400)
        finally:
            process.kill()
    assert process.returncode == 0, output
    for seed in range(1, 9):
        assert status(folder, f"seed={seed}")["state"] == "finished"
        rows = (folder / f"seed={seed}" / "curves.jsonl").read_text().splitlines()
        assert [json.loads(row)["epoch"] for row in rows] == [1, 2, 3, 4]
    assert "Going on from" in (folder / "seed=1.log").read_text()
