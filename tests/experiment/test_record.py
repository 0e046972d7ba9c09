"""The run directory's record."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from attnlab.errors import UserError
from attnlab.experiment.record import RunRecord, read_config

CONFIG = {"seed": 1, "model": {"size": 3}, "run_dir": "x", "wandb": {"mode": "offline"}, "maps": 2}


def test_a_run_is_marked_as_running_and_then_by_its_end(tmp_path: Path) -> None:
    record = RunRecord(tmp_path / "r", CONFIG)
    assert not record.finished
    record.begin(["seed=1"], {"attention": "hard"})
    assert json.loads((tmp_path / "r" / "status.json").read_text())["state"] == "running"
    assert read_config(tmp_path / "r") == CONFIG
    record.end("finished")
    assert RunRecord(tmp_path / "r", CONFIG).finished


def test_a_failure_keeps_its_reason_and_only_a_bug_its_traceback(tmp_path: Path) -> None:
    record = RunRecord(tmp_path, CONFIG)
    record.begin([], {})
    record.end("failed", UserError("The corpus is empty."))
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["error"] == "The corpus is empty."
    assert "traceback" not in status
    record.end("failed", ZeroDivisionError("division by zero"))
    assert "ZeroDivisionError" in json.loads((tmp_path / "status.json").read_text())["traceback"]


def test_another_corpus_is_refused_where_there_is_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    for corpus in ("one", "another", None):
        record = RunRecord(tmp_path, {"a": 1})
        record.begin([], {})
        record.keep_identity(corpus)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    for corpus in ("one", "one", None):  # the last one cannot be known
        record = RunRecord(tmp_path, {"a": 1})
        record.begin([], {})
        record.keep_identity(corpus)
    record.keep_identity("one")
    with pytest.raises(UserError, match="The data have changed since the run in"):
        RunRecord(tmp_path, {"a": 1}).keep_identity("another")


@pytest.mark.parametrize("content", [None, "{", b"\xff"])
def test_metrics_that_cannot_be_read_are_a_sentence(tmp_path: Path, content: str | bytes | None) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"has finished, but .*metrics\.json cannot be read"):
        RunRecord(tmp_path, {}).read_metrics()


def test_another_config_is_refused_and_named(tmp_path: Path) -> None:
    RunRecord(tmp_path, CONFIG).begin([], {})
    with pytest.raises(UserError, match=r"model.size: 3 there, 4 here"):
        RunRecord(tmp_path, CONFIG | {"model": {"size": 4}})


def test_what_does_not_change_the_result_does_not_make_another_run(tmp_path: Path) -> None:
    RunRecord(tmp_path, CONFIG).begin([], {})
    RunRecord(tmp_path, CONFIG | {"wandb": {"mode": "disabled"}, "run_dir": "elsewhere", "maps": 0})


def test_an_option_that_a_later_version_adds_and_leaves_null_makes_no_other_run(tmp_path: Path) -> None:
    RunRecord(tmp_path, CONFIG).begin([], {})
    RunRecord(tmp_path, CONFIG | {"model": CONFIG["model"] | {"added": None}})
    with pytest.raises(UserError, match=r"model.added: None there, 3 here"):
        RunRecord(tmp_path, CONFIG | {"model": CONFIG["model"] | {"added": 3}})


def test_a_directory_that_is_no_run_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run directory"):
        read_config(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    with pytest.raises(UserError, match=r"no status\.json"):
        RunRecord(tmp_path, CONFIG)


def test_a_directory_in_which_a_run_is_under_way_is_refused_until_it_ends(tmp_path: Path) -> None:
    held = """
import sys
from pathlib import Path
from attnlab.experiment.record import RunRecord
record = RunRecord(Path(sys.argv[1]), {})
record.claim()
record.begin([], {})
print(flush=True)
sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", held, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    with pytest.raises(UserError, match=rf"A run is under way in .* \(process {other.pid}\); wait for it"):
        RunRecord(tmp_path, {}).claim()
    other.kill()
    other.communicate()
    RunRecord(tmp_path, {}).claim()
