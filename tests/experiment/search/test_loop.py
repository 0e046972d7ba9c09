"""Trials of a stand-in for train.py: what is reported, pruned, resumed, left behind and retried."""

import csv
import io
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from attnlab.errors import UserError
from attnlab.experiment.search import loop, need_optuna
from attnlab.experiment.search.loop import Search
from attnlab.experiment.search.process import TrialProcess, end_leftover, log_of
from attnlab.experiment.search.space import Goal, Plan
from attnlab.experiment.search.study import alone, make_pruner, open_study
from attnlab.experiment.search.summary import as_csv, importances, rows

# Its score is x times the epoch, but the last epoch's is 0. Below 0 it fails; below 1 it halts at 3 until stopped.
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
given = dict(word.split("=", 1) for word in sys.argv[1:])
folder, x = Path(given["run_dir"]), float(given["x"])
(folder / ".hydra").mkdir(parents=True, exist_ok=True)
(folder / ".hydra" / "config.yaml").write_text("trainer: {max_epochs: 6}")
(folder / "threads").write_text(os.environ["OMP_NUM_THREADS"])
if x < 0:
    sys.exit("attnlab: x is below 0.")
def end(*_):
    (folder / "ended").write_text("in order")
    sys.exit(130)
signal.signal(signal.SIGINT, end)
curve = folder / "curves.jsonl"
rows = [json.loads(line) for line in curve.read_text().splitlines()] if curve.exists() else []
for epoch in range(len(rows) + 1, 7):
    rows.append({"epoch": epoch, "pid": os.getpid(), "val/score": x * epoch if epoch < 6 else 0.0, "test/score": 1e9})
    (folder / "new").write_text("".join(json.dumps(row) + "\\n" for row in rows))
    os.replace(folder / "new", curve)
    if x < 1 and epoch == 3 and not (folder / "ended").exists():
        time.sleep(60)
"""
GOAL = Goal("val/score", "max", 6)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(loop, "_LOOK", 0.02)


def make(folder: Path, *enqueued: float, trials: int, jobs: int = 1, startup: int = 1, high: float = 9.0) -> Search:
    plan = Plan({"a": "a=1"}, {"x": FloatDistribution(-1.0, high)}, {"x": ""})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stand_in.py").write_text(STAND_IN)
    study = open_study(folder, plan, GOAL, make_pruner("median", 6, startup))
    for x in enqueued:
        study.enqueue_trial({"x": x})
    command = [sys.executable, str(folder / "stand_in.py")]
    return Search(study, plan, GOAL, folder, command, trials=trials, jobs=jobs, say=lambda line: None)


def states(search: Search) -> list[str]:
    return [trial.state.name for trial in search.study.trials]


def pids(folder: Path) -> list[int]:
    """The process that wrote each epoch."""
    return [json.loads(line)["pid"] for line in (folder / "curves.jsonl").read_text().splitlines()]


def test_trials_are_reported_pruned_and_failed_and_the_search_goes_on(tmp_path):
    search = make(tmp_path / "a b,c=1?%20#", 2.0, 0.5, -1.0, 3.0, trials=4)
    search.run()
    assert states(search) == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
    finished, pruned, failed, best = search.study.trials
    assert finished.intermediate_values == {1: 2, 2: 4, 3: 6, 4: 8, 5: 10, 6: 0}
    assert finished.value == 10, "the best epoch of the validation metric, not the last"
    assert max(pruned.intermediate_values) <= 3
    assert (search.directory(pruned) / "ended").read_text() == "in order"
    assert failed.user_attrs["error"] == "x is below 0."
    assert search.study.best_trial.number == best.number

    found = rows(search.study, GOAL)
    assert [(row.number, row.state, row.value) for row in found[:2]] == [(3, "finished", 15), (0, "finished", 10)]
    assert [row.state for row in found[2:]] == ["pruned", "failed"]
    table = list(csv.DictReader(io.StringIO(as_csv(found, search.plan, GOAL))))
    assert table[0] == {
        "trial": "3", "state": "finished", "val/score": "15.0", "epochs": "6", "x": "3.0", "directory": "trial=3",
        "error": "",
    }  # fmt: skip
    assert table[3]["error"] == "x is below 0."


def test_nothing_is_pruned_before_as_many_trials_as_asked_for_have_finished(tmp_path):
    search = make(tmp_path, 3.0, 2.0, 1.0, trials=3, startup=3)
    search.run()
    assert states(search) == ["COMPLETE"] * 3


def test_a_finished_search_does_nothing_more_and_a_wider_one_adds_to_it(tmp_path):
    make(tmp_path, 2.0, -1.0, trials=2).run()
    search = make(tmp_path, trials=2)
    search.run()
    assert states(search) == ["COMPLETE", "FAIL"], "a failed trial is not tried again"
    wider = make(tmp_path, 4.0, trials=3)
    wider.run()
    assert states(wider) == ["COMPLETE", "FAIL", "COMPLETE"]


def test_a_trial_whose_values_another_has_tried_takes_its_result(tmp_path):
    search = make(tmp_path, 2.0, 2.0, trials=2)
    search.run()
    first, second = search.study.trials
    assert second.value == first.value
    assert second.intermediate_values == first.intermediate_values
    assert not search.directory(second).exists()
    assert second.user_attrs["directory"] == "trial=0"


def test_ctrl_c_stops_the_trials_in_order_and_the_same_search_goes_on_with_them(tmp_path, monkeypatch):
    search = make(tmp_path, 0.5, 0.6, trials=2, jobs=2)
    curves = [tmp_path / f"trial={number}" / "curves.jsonl" for number in (0, 1)]

    def sleep(seconds):
        time.sleep(seconds)
        if all(curve.exists() and len(curve.read_text().splitlines()) == 3 for curve in curves):
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "time", SimpleNamespace(sleep=sleep))
    with pytest.raises(KeyboardInterrupt):
        search.run()
    monkeypatch.setattr(loop, "time", time)
    assert states(search) == ["RUNNING", "RUNNING"]
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    for number in (0, 1):
        assert (tmp_path / f"trial={number}" / "ended").read_text() == "in order"
        assert (tmp_path / f"trial={number}" / "threads").read_text() == os.environ.get("OMP_NUM_THREADS", str(threads))

    again = make(tmp_path, trials=2)
    again.run()
    assert states(again) == ["COMPLETE", "COMPLETE"]
    assert [trial.value for trial in again.study.trials] == [2.5, 3.0]
    for number in (0, 1):
        assert len(set(pids(tmp_path / f"trial={number}"))) == 2, "it went on where it was"


def test_a_run_that_a_killed_search_left_behind_is_ended_in_order_and_gone_on_with(tmp_path):
    search = make(tmp_path, 0.5, trials=1)
    trial = search.study.ask(dict(search.plan.spaces))
    left = search._start(trial).process  # as a search would that is then killed
    curve = tmp_path / "trial=0" / "curves.jsonl"
    while not (curve.exists() and len(curve.read_text().splitlines()) == 3):
        assert left.poll() is None
        time.sleep(0.02)

    again = make(tmp_path, trials=1)
    again.run()
    assert left.poll() == 130
    assert states(again) == ["COMPLETE"]
    assert pids(tmp_path / "trial=0")[0] == left.pid
    assert pids(tmp_path / "trial=0")[-1] != left.pid


def test_a_leftover_run_that_will_not_end_is_named(tmp_path):
    stubborn = (
        "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; print(1, flush=True); time.sleep(60)"
    )
    process = TrialProcess([sys.executable, "-c", stubborn], tmp_path / "t", os.environ)
    while not log_of(tmp_path / "t").read_bytes():
        time.sleep(0.02)
    with pytest.raises(UserError, match=f"process {process.pid}"):
        end_leftover(tmp_path / "t", process.pid, patience=0.2)
    process.wait(patience=0.2)
    assert process.poll() == -signal.SIGKILL
    end_leftover(tmp_path / "t", process.pid)


def test_a_trial_that_was_interrupted_before_it_had_values_is_a_failed_one(tmp_path):
    search = make(tmp_path, trials=1)
    search.study.ask()
    again = make(tmp_path, trials=1)
    again.run()
    assert states(again) == ["FAIL"]


def test_an_interrupted_search_draws_what_it_would_have_drawn(tmp_path):
    def draw(search, count):
        for _ in range(count):
            trial = search._next([])
            search.study.tell(trial, -abs(trial.params["x"] - 1))
        return [trial.params["x"] for trial in search.study.trials]

    whole = draw(make(tmp_path / "whole", trials=6), 6)
    assert draw(make(tmp_path / "halves", trials=2), 2) == whole[:2]
    assert draw(make(tmp_path / "halves", trials=6), 4) == whole
    assert len(set(whole)) == 6


def test_a_folder_belongs_to_one_search(tmp_path):
    make(tmp_path, trials=1)
    with pytest.raises(UserError, match=r"x is interval\(-1.0,9.0\) there and interval\(-1.0,8.0\) here"):
        make(tmp_path, trials=1, high=8.0)
    plan = Plan({"a": "a=2"}, {"x": FloatDistribution(-1.0, 9.0)}, {"x": ""})
    with pytest.raises(UserError, match="a is 1 there and 2 here"):
        open_study(tmp_path, plan, GOAL, make_pruner("none", 6))
    with pytest.raises(UserError, match="mode is max there and min here"):
        open_study(tmp_path, make(tmp_path, trials=1).plan, Goal("val/loss", "min", 6), make_pruner("none", 6))
    with alone(tmp_path), pytest.raises(UserError, match="Another search is running"), alone(tmp_path):
        pass
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "study.db").write_bytes(b"not a database, and long enough to be seen as none" * 40)
    with pytest.raises(UserError, match="cannot be used"):
        open_study(tmp_path / "damaged", plan, GOAL, make_pruner("none", 6))


@pytest.mark.parametrize("epochs", [None, 1, 3, 40])
@pytest.mark.parametrize("name", ["median", "hyperband", "none"])
def test_pruners_of_every_length_of_training_are_valid(name, epochs):
    study = optuna.create_study(direction="maximize", pruner=make_pruner(name, epochs))
    for _ in range(3):
        trial = study.ask({"x": CategoricalDistribution(("a", "b"))})
        for epoch in range(1, (epochs or 3) + 1):
            trial.report(0.5, epoch)
            assert trial.should_prune() in (True, False)
        study.tell(trial, 0.5)


def test_importances_are_those_of_what_matters_and_wait_for_enough_trials():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    space = {"x": FloatDistribution(-1, 1), "y": FloatDistribution(-1, 1)}
    for count in range(25):
        if count < 5:
            assert importances(study) == {}
        trial = study.ask(space)
        study.tell(trial, trial.params["x"])
    shares = importances(study)
    assert shares["x"] > shares["y"]
    assert sum(shares.values()) == pytest.approx(1)


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"\.\[search\]"):
        need_optuna()
