"""Training by several processes, through the real command line: the parameters and metrics of one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import warm

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / "train.py"
RUN = (
    "data.train=33", "data.validation=11", "data.test=7", "data.max_sentences=8", "trainer.max_epochs=2",
    "trainer.accelerator=cpu", "task.average=0.5", "model.embedding=16", "model.encoder_size=8",
    "model.decoder_size=16", "model.dropout=0", "search.beam=1", "maps=0", "wandb.mode=disabled",
)  # fmt: skip
"""Soft attention without dropout, so that nothing is drawn; an epoch's last batch has one row, fewer than there are
processes."""


def run(*commands: list[str]) -> list[str]:
    """Runs commands at the same time; what each of them said."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for command in commands
    ]
    said = [process.communicate(timeout=280)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(commands), "\n".join(said)
    return said


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp") / "alone"
    ended = warm.run_text([TRAIN, *RUN, f"run_dir={folder}"], cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def assert_same(folder: Path, alone: Path) -> None:
    """Parameters and metrics of two runs are the same, up to rounding."""
    checkpoints = [torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (folder, alone)]
    assert checkpoints[0]["global_step"] == checkpoints[1]["global_step"] == 10
    for part in ("state_dict", "current_model_state"):  # the averaged parameters, and those of the last step
        ours, theirs = (checkpoint[part] for checkpoint in checkpoints)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5, msg=name)
    ours, theirs = (json.loads((path / "metrics.json").read_text()) for path in (folder, alone))
    for name, value in theirs.items():
        if name.startswith(("val/", "test/")) and "per_second" not in name:
            assert ours[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
    ours, theirs = (curve(path) for path in (folder, alone))
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        assert other["val/chrf"] > 0  # a score of texts that heeds every one of them
        for name, value in other.items():
            # in the means of training the batch of one row counts once a process
            rounding = 2e-2 if name.startswith("train/") else 1e-4
            assert name == "seconds" or mine[name] == pytest.approx(value, rel=rounding, abs=1e-4), name
    texts = [(path / "predictions.jsonl").read_text() for path in (folder, alone)]
    assert len(texts[0].splitlines()) == 7
    predictions = [[json.loads(line)["prediction"] for line in text.splitlines()] for text in texts]
    assert predictions[0] == predictions[1]
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def curve(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one_with_the_same_batches(alone, tmp_path):
    (said,) = run([sys.executable, str(TRAIN), *RUN, "trainer=ddp", f"run_dir={tmp_path}/run"])
    assert_same(tmp_path / "run", alone)
    assert said.count("epoch 2/2") == said.count("Results, predictions and attention maps are in") == 1
    assert "Traceback" not in said
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in alone.iterdir()}


def test_two_nodes_of_torchrun_train_as_one_process_and_agree_on_a_directory(alone, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    place = ["--master-addr=127.0.0.1", f"--master-port={port}"]
    trainer = ["trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2"]
    said = run(
        *(
            [*launch, *place, f"--node-rank={node}", str(TRAIN), *RUN, *trainer, f"run_dir={tmp_path}/{node}"]
            for node in range(2)
        )
    )
    assert [path.name for path in tmp_path.iterdir()] == ["0"]  # that of the first process
    assert_same(tmp_path / "0", alone)
    assert [text.count("epoch 2/2") for text in said] == [1, 0]
