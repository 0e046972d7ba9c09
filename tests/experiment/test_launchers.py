"""Launchers, with points that are small scripts rather than trainings."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from attnlab.errors import UserError
from attnlab.experiment.launchers import with_joblib, with_submitit_local
from attnlab.experiment.launchers.jobs import _Slurm, _wait, room
from attnlab.experiment.launchers.point import Point, busy, divide, mark, need, threads
from attnlab.experiment.launchers.several import refuse_several_processes
from attnlab.experiment.search.process import log_of
from attnlab.experiment.sweep import Sweep, summarize

RUN = """
import json, os, sys, time
from pathlib import Path
folder, seconds, state = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
folder.mkdir(parents=True, exist_ok=True)
def tell(**status): (folder / "status.json").write_text(json.dumps(status | {"pid": os.getpid()}))
with (folder / "starts").open("a") as file: print(os.environ["OMP_NUM_THREADS"], file=file)
tell(state="running")
try:
    time.sleep(seconds)
except KeyboardInterrupt:
    tell(state="interrupted", error="stopped")
    sys.exit(130)
tell(state=state, **({} if state == "finished" else {"error": "its own reason"}))
sys.exit(state != "finished")
"""


def point(folder: Path, name: str, seconds: float = 0.0, state: str = "finished") -> Point:
    return Point(name, folder / name, (sys.executable, "-c", RUN, str(folder / name), str(seconds), state))


def status(one: Point) -> dict:
    return json.loads((one.directory / "status.json").read_text())


def wait_for(condition, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def running(one: Point) -> bool:
    try:
        return status(one)["state"] == "running"
    except (OSError, ValueError):
        return False


def kill(one: Point) -> None:
    wait_for(lambda: running(one))
    os.kill(status(one)["pid"], signal.SIGKILL)


LOCAL = {"timeout_min": 5, "cpus_per_task": 1, "gpus_per_node": None}


@pytest.mark.parametrize(("launcher", "options"), [(with_joblib, {"n_jobs": 2}), (with_submitit_local, LOCAL)])
def test_a_point_that_fails_or_is_killed_stops_no_other(tmp_path, launcher, options, capfd, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    some = [point(tmp_path, "a=1/seed=1"), point(tmp_path, "killed", 60), point(tmp_path, "failed", state="failed")]
    some.append(point(tmp_path, "last", 0.5))
    sweep = Sweep(tmp_path)
    killer = threading.Thread(target=kill, args=(some[1],))
    killer.start()
    launcher(some, options, tmp_path, sweep._ended)
    killer.join()
    assert [status(one)["state"] for one in some] == ["finished", "failed", "failed", "finished"]
    assert "SIGKILL" in status(some[1])["error"]
    assert summarize(tmp_path, sweep.failures) == 1
    table = capfd.readouterr().out
    assert "its own reason" in table
    assert "SIGKILL" in table
    assert not any(busy(one.directory) for one in some)


def test_no_more_points_run_at_a_time_than_are_asked_for_and_they_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    some = [point(tmp_path, str(i), 0.3) for i in range(4)]
    at_once, ended = [], []
    thread = threading.Thread(
        target=with_joblib, args=(some, {"n_jobs": 2}, tmp_path, lambda one, code: ended.append((one.name, code)))
    )
    thread.start()
    while thread.is_alive():
        at_once.append(sum(busy(one.directory) for one in some))
        time.sleep(0.02)
    assert max(at_once) == 2
    assert sorted(ended) == [(str(i), 0) for i in range(4)]
    share = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert {(one.directory / "starts").read_text().strip() for one in some} == {share}


def test_cores_are_divided_and_a_smaller_wish_is_kept(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert divide(-1, 100) == (16, 1)
    assert divide(4, 100) == (4, 4)
    assert divide(-1, 3) == (3, 5)
    assert divide(64, 100) == (64, 1)
    assert room(1) == 16
    assert room(5) == 3
    assert room(None) == room(1)
    assert room(99) == 1
    for wrong in (0, -2, "all"):
        with pytest.raises(UserError, match="n_jobs"):
            divide(wrong, 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert threads(5)["OMP_NUM_THREADS"] == "2"
    assert threads(5)["MKL_NUM_THREADS"] == "5"


def test_a_missing_library_is_told_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"\.\[slurm\]"):
        with_submitit_local([], LOCAL, Path(), lambda *_: None)
    with pytest.raises(UserError, match=r"\.\[joblib\]"):
        need("no_such_library", "joblib")


STOPPED = """
import os, sys
os.sched_getaffinity = lambda _: {{0, 1}}
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_launchers import point, LOCAL
from attnlab.experiment.launchers import LAUNCHERS
from attnlab.experiment.sweep import Sweep
folder = Path({folder!r})
sweep = Sweep(folder)
sweep.launcher, sweep.options = {launcher!r}, {options!r}
sweep.waiting = [point(folder, str(i), {seconds}) for i in range(3)]
try:
    sweep.launch()
except KeyboardInterrupt:
    sys.exit(130)
"""


def sweep_process(folder: Path, launcher: str, options: dict, seconds: float) -> subprocess.Popen:
    script = STOPPED.format(
        tests=str(Path(__file__).parent), folder=str(folder), launcher=launcher, options=options, seconds=seconds
    )
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize(("launcher", "options"), [("Joblib", {"n_jobs": 2}), ("SubmititLocal", LOCAL)])
def test_a_sweep_that_is_stopped_stops_its_points_in_order_and_starts_no_more(tmp_path, launcher, options):
    some = [point(tmp_path, str(i)) for i in range(3)]
    with sweep_process(tmp_path, launcher, options, 60) as process:
        wait_for(lambda: running(some[0]) and running(some[1]))
        process.terminate()
    assert process.returncode == 130
    wait_for(lambda: not any(busy(one.directory) for one in some))
    assert [status(one)["state"] for one in some[:2]] == ["interrupted", "interrupted"]
    assert not some[2].directory.exists()


def test_a_sweep_that_is_killed_loses_nothing_and_the_same_one_waits_for_what_it_left_behind(tmp_path, capfd):
    some = [point(tmp_path, str(i), 1.5) for i in range(2)]
    with sweep_process(tmp_path, "Joblib", {"n_jobs": 2}, 1.5) as process:
        wait_for(lambda: running(some[0]) and running(some[1]))
        process.kill()
    assert all(busy(one.directory) for one in some)
    with_joblib([point(tmp_path, "0")], {"n_jobs": 1}, tmp_path, lambda *_: None)
    assert "left behind" in capfd.readouterr().out
    assert len((some[0].directory / "starts").read_text().splitlines()) == 2
    assert status(some[0])["state"] == "finished"


class Queue:
    """A cluster whose jobs are over after so many looks; one of them is requeued once it has ended."""

    def __init__(self, requeued: str) -> None:
        self.room, self.looks, self.left = 2, dict[str, int](), False
        self.requeued, self.now = requeued, set[str]()

    def submit(self, points):
        assert len(self.now) + len(points) <= self.room
        self.looks |= {one.name: 2 for one in points}

    def active(self):
        self.now = {name for name, looks in self.looks.items() if looks > 0}
        for name in self.looks:
            self.looks[name] -= 1
            if name == self.requeued and self.looks[name] == -1:
                self.looks[name] = 3
                self.requeued = ""
        return self.now

    def leave(self):
        self.left = True


def test_waiting_submits_as_there_is_room_and_waits_again_for_a_point_that_is_requeued(tmp_path):
    some = [point(tmp_path, name) for name in "abcd"]
    queue, ended = Queue("a"), []
    _wait(queue, some, some, lambda one, code: ended.append(one.name), 0)
    assert ended.count("a") == 2
    assert sorted(set(ended)) == list("abcd")
    assert not queue.left

    def break_off(one, code):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _wait(queue, some, [], break_off, 0)
    assert queue.left


def test_jobs_of_a_cluster_are_found_again(tmp_path, monkeypatch):
    class Executor:
        def map_array(self, job, points):
            return [type("Job", (), {"job_id": f"7_{i}"}) for i, _ in enumerate(points)]

    some = [point(tmp_path, name) for name in "ab"]
    _Slurm(Executor(), None, tmp_path, some).submit(some)
    monkeypatch.setattr("attnlab.experiment.launchers.jobs._squeue", lambda: {"7_1", "99"})
    assert _Slurm(Executor(), None, tmp_path, some).active() == {"b"}
    assert _Slurm(Executor(), None, tmp_path, some[:1]).active() == set()


def test_only_a_run_that_says_it_runs_is_marked(tmp_path):
    for state, after in (("running", "failed"), ("finished", "finished"), ("interrupted", "interrupted")):
        (tmp_path / "status.json").write_text(json.dumps({"state": state, "config_hash": "x"}))
        mark(tmp_path, "failed", "killed")
        told = json.loads((tmp_path / "status.json").read_text())
        assert told["state"] == after
        assert told["config_hash"] == "x"
    mark(tmp_path / "nowhere", "failed", "killed")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "trainer",
    [
        {"devices": 2},
        {"devices": "2"},
        {"devices": [0, 1]},
        {"devices": "0,1"},
        {"devices": -1},
        {"devices": "auto", "accelerator": "gpu"},
        {"num_nodes": 2},
        {"devices": 1, "strategy": "ddp_find_unused_parameters_true"},
    ],
)
def test_several_processes_in_the_process_of_a_sweep_are_refused_with_the_alternative(trainer):
    with pytest.raises(UserError, match=r"hydra/launcher=joblib.*submitit_slurm.*torchrun"):
        refuse_several_processes(trainer, None)
    refuse_several_processes(trainer, "SubmititSlurm")
    if trainer.get("num_nodes"):
        with pytest.raises(UserError, match=r"hydra/launcher=submitit_slurm hydra.launcher.nodes=2"):
            refuse_several_processes(trainer, "Joblib")
    else:
        refuse_several_processes(trainer, "Joblib")


@pytest.mark.parametrize(
    "trainer", [{}, {"devices": 1}, {"devices": [1]}, {"devices": "1,"}, {"devices": "auto", "accelerator": "cpu"}]
)
def test_one_process_is_not_refused(trainer):
    refuse_several_processes(trainer, None)


def test_numbers_that_only_a_step_of_slurm_has_are_asked_for():
    with pytest.raises(UserError, match=r"trainer=ddp trainer.devices=N hydra.launcher.tasks_per_node=N"):
        refuse_several_processes({"devices": None}, "SubmititSlurm")


def test_the_table_tells_what_no_directory_could(tmp_path, capsys):
    sweep = Sweep(tmp_path)
    sweep.fail(tmp_path / "attention=a" / "seed=1", "It [holds] another config.")
    assert summarize(tmp_path, sweep.failures) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "attention=a/seed=1" in told
    assert "It [holds] another config." in told


def test_the_log_is_beside_the_directory(tmp_path):
    one = point(tmp_path, "a=1/seed=1")
    with_joblib([one], {"n_jobs": 1}, tmp_path, lambda *_: None)
    assert log_of(one.directory) == tmp_path / "a=1" / "seed=1.log"
    assert log_of(one.directory).is_file()
