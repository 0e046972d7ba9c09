"""Who says how a run of several processes has ended."""

import json
from pathlib import Path

import pytest

from attnlab.errors import UserError
from attnlab.experiment import run
from attnlab.experiment.distributed import Ranks
from attnlab.experiment.record import RunRecord

FIRST, OTHER = Ranks(2, 0), Ranks(2, 1)


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunRecord]:
    """The record of a run that has begun, as its two processes have it."""
    monkeypatch.setattr(run, "uninterruptible", lambda: None)
    monkeypatch.setattr(run, "_GIVES_WAY", 0.1)
    found = [RunRecord(tmp_path, {"seed": 1}) for _ in range(2)]
    found[0].begin([], {})
    return found


def status(record: RunRecord) -> tuple[str, str | None]:
    found = json.loads((record.directory / "status.json").read_text())
    return found["state"], found.get("error")


def test_the_process_that_fails_says_why_and_the_ones_that_lose_it_do_not(records: list[RunRecord]) -> None:
    first, other = records
    assert run._end(other, OTHER, "failed", UserError("The disk is full."))
    assert not run._end(first, FIRST, "failed", RuntimeError("connection closed by peer"))
    assert status(first) == ("failed", "The disk is full.")


def test_a_run_that_failed_is_not_called_interrupted_by_those_who_are_told_to_end(records: list[RunRecord]) -> None:
    first, other = records
    assert run._end(other, OTHER, "failed", UserError("The disk is full."))
    assert not run._end(first, FIRST, "interrupted", KeyboardInterrupt())
    assert status(first)[0] == "failed"


def test_the_first_process_says_that_the_run_was_interrupted(records: list[RunRecord]) -> None:
    first, other = records
    assert run._end(other, OTHER, "interrupted", KeyboardInterrupt())
    assert status(first)[0] == "running"
    assert run._end(first, FIRST, "interrupted", KeyboardInterrupt())
    assert not run._end(other, OTHER, "failed", RuntimeError("connection closed by peer"))
    assert status(first) == ("interrupted", "")


def test_a_process_that_knows_no_run_directory_yet_makes_none_and_speaks(tmp_path: Path) -> None:
    record = RunRecord(tmp_path / "other", {"seed": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "uninterruptible", lambda: None)
        assert run._end(record, OTHER, "failed", UserError("There is no such file."))
    assert not (tmp_path / "other").exists()
