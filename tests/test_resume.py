"""A run that is killed and started again ends with the parameters and metrics of one that was never stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import warm

ROOT = Path(__file__).resolve().parents[1]
RUN = (
    "attention=hard", "schedule=plateau", "task.average=0.9", "trainer.max_epochs=4", "data.train=240",
    "data.validation=16", "data.test=12", "model.embedding=16", "model.encoder_size=8", "model.decoder_size=16",
    "model.dropout=0.3", "search.beam=1", "maps=0", "wandb.mode=disabled", "data.max_sentences=4",
)  # fmt: skip


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *RUN, *more, f"run_dir={folder}"]


def finish(folder: Path, *more: str) -> dict:
    ended = warm.run_text(command(folder, *more)[1:], cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((folder / "metrics.json").read_text())
    return {
        name: value for name, value in found.items() if name.startswith(("test/", "val/")) and "per_second" not in name
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume") / "whole"
    return folder, finish(folder)


@pytest.mark.parametrize(
    ("sent", "epochs", "later"), [(signal.SIGKILL, 1, 0.05), (signal.SIGKILL, 2, 0.4), (signal.SIGTERM, 1, 0.2)]
)
def test_a_killed_run_ends_as_if_it_had_not_been(whole, tmp_path, sent, epochs, later):
    folder = tmp_path / "killed"
    curve = folder / "curves.jsonl"
    process = warm.start(command(folder)[1:], cwd=ROOT)
    begun = time.monotonic()
    while not (curve.is_file() and len(curve.read_text().splitlines()) >= epochs):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() - begun < 120
        time.sleep(0.02)
    time.sleep(later)
    os.kill(process.pid, sent)
    assert process.wait(120) != 0
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == ("running" if sent == signal.SIGKILL else "interrupted")
    assert finish(folder) == whole[1]
    ours, theirs = (torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (folder, whole[0]))
    for part in ("state_dict", "current_model_state"):
        for name, value in theirs[part].items():
            assert torch.equal(ours[part][name], value), name
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    rows = [
        [json.loads(line) for line in (path / "curves.jsonl").read_text().splitlines()] for path in (folder, whole[0])
    ]
    for mine, other in zip(*rows, strict=True):
        assert mine | {"seconds": 0} == other | {"seconds": 0}


def test_a_run_that_stopped_early_and_was_not_tested_trains_no_more(tmp_path):
    folder = tmp_path / "run"
    early = ("task.patience=0", "optimizer.lr=1e-9", "trainer.max_epochs=5")
    before = finish(folder, *early)
    curves = (folder / "curves.jsonl").read_bytes()
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": "interrupted"}))
    assert finish(folder, *early) == before
    assert (folder / "curves.jsonl").read_bytes() == curves
    assert len(curves.splitlines()) == 2
    again = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert (again["epoch"], again["global_step"]) == (last["epoch"], last["global_step"])


def test_sigterm_before_the_training_interrupts_the_run_too(tmp_path):
    folder = tmp_path / "run"
    process = warm.start(command(folder)[1:], cwd=ROOT)
    begun = time.monotonic()
    while not (folder / "status.json").is_file():
        assert time.monotonic() - begun < 60
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 130
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"


def test_a_run_does_not_go_on_with_other_data(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    status = json.loads((folder / "status.json").read_text())
    assert status["corpus"]
    (folder / "status.json").write_text(json.dumps(status | {"state": "interrupted", "corpus": "another"}))
    ended = warm.run_text(command(folder)[1:], cwd=ROOT)
    assert ended.returncode == 1
    assert "The data have changed since the run in" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_truncated_checkpoint_is_a_sentence(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": "interrupted"}))
    last = folder / "checkpoints" / "last.ckpt"
    for size in (1000, 0):
        last.write_bytes(last.read_bytes()[:size])
        ended = warm.run_text(command(folder)[1:], cwd=ROOT)
        assert ended.returncode == 1
        assert f"The checkpoint {last} cannot be read: it is truncated" in " ".join(ended.stderr.split())
        assert "Traceback" not in ended.stderr


# a small disk, which fills up once there is a checkpoint; what is left there, and the run with room again, are kept
FULL = """
mount -t tmpfs -o size=24m none "$DISK" || exit 77
"$@" > "$KEPT/first" 2>&1 & run=$!
until [ -e "$DISK/run/checkpoints/last.ckpt" ]; do sleep 0.02; kill -0 $run || exit 78; done
cat /dev/zero > "$DISK/filler" 2> "$KEPT/full"
wait $run; echo $? > "$KEPT/code"
cp -r "$DISK/run" "$KEPT/left"
rm "$DISK/filler"
"$@" > "$KEPT/second" 2>&1; code=$?
cp -r "$DISK/run" "$KEPT/ended"
exit $code
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a disk of its own")
def test_a_full_disk_ends_a_run_with_a_sentence_and_loses_nothing(whole, tmp_path):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir(), kept.mkdir()
    shell = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", FULL, "sh", *command(disk / "run")]
    ended = subprocess.run(
        shell, cwd=ROOT, env=os.environ | {"DISK": str(disk), "KEPT": str(kept)}, capture_output=True, check=False
    )
    if ended.returncode in (1, 77) and not (kept / "first").exists():
        pytest.skip("this machine mounts no disk for a test")
    said = (kept / "first").read_text()
    assert ended.returncode == 0, said + (kept / "second").read_text()
    assert (kept / "code").read_text().strip() == "1"
    assert "No space left on device" in said
    assert "Traceback" not in said
    torch.load(kept / "left" / "checkpoints" / "last.ckpt", weights_only=True)
    found = json.loads((kept / "ended" / "metrics.json").read_text())
    assert {name: found[name] for name in whole[1]} == whole[1]
