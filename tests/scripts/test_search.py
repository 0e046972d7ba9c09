"""The search script through its real command line: a tiny trial that is interrupted, and another with its values."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import warm

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "task=vision", "model.depth=1", "model.size=8", "model.heads=1", "model.hidden=8", "data.validation=20",
    "data.test=20", "data.batch_size=500", "trainer.max_epochs=4", "maps=0", "wandb.mode=disabled",
)  # fmt: skip


SEARCH = ROOT / "scripts" / "search.py"


def search(*arguments: object, code: int) -> tuple[str, str]:
    ended = warm.run_text([SEARCH, *arguments], env=os.environ | {"COLUMNS": "160"})
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout, ended.stderr


def test_a_search_is_interrupted_and_goes_on_with_its_trial(tmp_path: Path) -> None:
    out = tmp_path / "a search"
    curve = out / "trial=0" / "curves.jsonl"
    arguments = (*TINY, "optimizer.lr=choice(0.01)", "--trials", 2, "--out", out)
    said = tmp_path / "said"
    process = warm.start([SEARCH, *arguments], said=said)
    while not (curve.exists() and len(curve.read_text().splitlines()) >= 2):  # the first epoch is in a checkpoint
        assert process.poll() is None, said.read_text()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(200) == 130, said.read_text()
    assert "To go on: python" in said.read_text()
    assert "Traceback" not in said.read_text()
    status = out / "trial=0" / "status.json"
    assert json.loads(status.read_text())["state"] == "interrupted"

    output, _ = search(*arguments, code=0)
    assert "trial 0 goes on: optimizer.lr=0.01" in output
    assert "trial 1: as trial 0" in output
    assert "Going on from" in (out / "trial=0.log").read_text()
    assert json.loads(status.read_text())["state"] == "finished"
    assert "optimizer.lr=0.01" in (out / "trial=0" / ".hydra" / "overrides.yaml").read_text()
    found = [json.loads(line)["val/accuracy"] for line in curve.read_text().splitlines()]
    assert len(found) == 4
    with (out / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert (row["state"], row["optimizer.lr"], row["directory"]) == ("finished", "0.01", "trial=0")
        assert float(row["val/accuracy"]) == max(found)
    assert [row["trial"] for row in rows] == ["0", "1"]
    assert output.splitlines()[-1] == f"python train.py {' '.join(TINY)} optimizer.lr=0.01"
    assert (out / "history.png").read_bytes().startswith(b"\x89PNG")


def test_mistakes_are_sentences_and_nothing_is_started(tmp_path: Path) -> None:
    for arguments, words in (
        (["attention=dot,scald"], "Did you mean scaled"),
        (["model.dropout=log(0,1)"], "interval(0,0.4)"),
    ):
        output, complaint = search(*arguments, "--out", tmp_path / "none", code=2)
        assert output == ""
        assert complaint.splitlines()[-1].startswith("attnlab: ")
        assert words in complaint
    assert not (tmp_path / "none").exists()
