"""Processes of a run: who they are, and how they end together."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from runpy import run_path

import pytest

from attnlab.errors import UserError
from attnlab.experiment.distributed import Ranks, environment, find_ranks, start
from attnlab.experiment.record import RunRecord

GIVEN = ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_ID", "SLURM_JOB_NAME")
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "3"}
SRUN = {
    "SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_STEP_ID": "0", "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_JOB_NAME": "train", "SLURM_LOCALID": "0", "SLURM_NODEID": "1",
}  # fmt: skip


@pytest.fixture
def given(monkeypatch):
    """Sets what a launcher has given in the environment, and nothing else."""

    def give(variables):
        for name in GIVEN:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    give({})
    return give


@pytest.mark.parametrize(
    ("variables", "trainer", "ranks"),
    [
        ({}, {"devices": 1}, Ranks()),
        ({}, {"devices": 2, "strategy": "ddp", "num_nodes": 1}, Ranks(2, None)),
        ({}, {"devices": [0, 3], "strategy": "ddp"}, Ranks(2, None)),
        ({}, {"devices": "0,1,2"}, Ranks(3, None)),
        ({}, {"devices": "auto", "accelerator": "cpu"}, Ranks()),
        ({}, {"devices": "many"}, Ranks()),
        (TORCHRUN, {"devices": 2, "num_nodes": 2, "strategy": "ddp"}, Ranks(4, 3)),
        (TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"}, {"devices": 1}, Ranks()),
        (SRUN, {"devices": 2, "num_nodes": 2, "strategy": "ddp"}, Ranks(4, 2)),
        (SRUN, {"devices": 1}, Ranks()),  # tasks that train each for itself
        ({**SRUN, "SLURM_JOB_NAME": "interactive"}, {"devices": 4, "strategy": "ddp"}, Ranks(4, None)),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, {"devices": 2, "strategy": "ddp"}, Ranks(2, None)),  # no step
    ],
)
def test_a_process_knows_how_many_there_are_and_which_it_is(variables, trainer, ranks, given):
    given(variables)
    assert find_ranks(trainer) == ranks
    assert ranks.first == (ranks.rank in (0, None))


@pytest.mark.parametrize(
    ("variables", "trainer", "sentence"),
    [
        (TORCHRUN, {"devices": 1}, r"torchrun has started 4 processes, .*trainer=ddp"),
        (SRUN, {"devices": 2, "strategy": "ddp"}, r"srun has started 4 processes, and trainer.devices=2 .* are 2"),
        ({}, {"devices": 2, "num_nodes": 2, "strategy": "ddp"}, r"num_nodes=2 needs torchrun or srun"),
        ({}, {"devices": None, "strategy": "ddp"}, "trainer=slurm is for the tasks of a SLURM step"),
        ({}, {"devices": 2, "strategy": "ddp_spawn"}, "trainer.strategy=ddp_spawn is not supported; choose ddp"),
    ],
)
def test_what_cannot_be_started_is_told(variables, trainer, sentence, given):
    given(variables)
    with pytest.raises(UserError, match=sentence):
        find_ranks(trainer)


def test_lightning_is_told_who_started_the_processes(given):
    assert type(environment(Ranks())).__name__ == "LightningEnvironment"
    given(SRUN)
    assert type(environment(Ranks())).__name__ == "LightningEnvironment"
    slurm = environment(Ranks(4, 2))
    assert type(slurm).__name__ == "SLURMEnvironment"
    assert not slurm.auto_requeue
    assert (slurm.world_size(), slurm.global_rank(), slurm.node_rank()) == (4, 2, 1)
    given(TORCHRUN)
    assert type(environment(Ranks(4, 3))).__name__ == "TorchElasticEnvironment"


HEAD = """
import os, signal, sys, time
from pathlib import Path
from attnlab.experiment.distributed import find_ranks
folder = Path(__file__).parent
rank = find_ranks({"devices": 2, "strategy": "ddp"}).rank
def wait():
    try:
        (folder / f"{rank}.waits").touch()
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / f"{rank}.ended").touch()
        raise
def other():
    while not (folder / f"{1 - rank}.waits").exists():
        time.sleep(0.01)
"""


@pytest.fixture
def run(tmp_path):
    """Runs a script in two processes as those of a run; gives the exit code."""
    record = RunRecord(tmp_path / "run", {"seed": 1})
    record.begin([], {})

    def go(script):
        path = tmp_path / "script.py"
        path.write_text(HEAD + script)
        return start(run_path, (str(path),), 2, record)

    return go


def status(tmp_path):
    return json.loads((tmp_path / "run" / "status.json").read_text())


def test_processes_that_end_well(run, tmp_path):
    assert run("(folder / f'{rank}.done').touch(); sys.exit(0)") == 0
    assert sorted(path.name for path in tmp_path.glob("*.done")) == ["0.done", "1.done"]
    assert status(tmp_path)["state"] == "running"  # the first process marks a good end


def test_the_others_are_ended_when_one_fails(run, tmp_path):
    assert run("wait() if rank == 0 else (other(), sys.exit(3))") == 1
    assert (tmp_path / "0.ended").exists()


def test_a_process_that_is_killed_fails_the_run(run, tmp_path):
    with pytest.raises(UserError, match=r"Process 1 of the run was ended by SIGKILL"):
        run("wait() if rank == 0 else (other(), os.kill(os.getpid(), signal.SIGKILL))")
    assert (tmp_path / "0.ended").exists()
    assert status(tmp_path)["state"] == "failed"
    assert "SIGKILL" in status(tmp_path)["error"]


def test_a_signal_to_the_process_that_waits_interrupts_all(run, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    waits = [tmp_path / "0.waits", tmp_path / "1.waits"]

    def send():
        _until(lambda: all(path.exists() for path in waits))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    assert run("wait()") == 130
    assert (tmp_path / "0.ended").exists()
    assert (tmp_path / "1.ended").exists()
    assert status(tmp_path)["state"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) == before


def test_no_process_outlives_the_one_that_started_it(tmp_path):
    (tmp_path / "script.py").write_text(HEAD + "wait()")
    program = (
        "import sys; from pathlib import Path; from runpy import run_path\n"
        "from attnlab.experiment.distributed import start; from attnlab.experiment.record import RunRecord\n"
        "if __name__ == '__main__': start(run_path, (sys.argv[1],), 2, RunRecord(Path(sys.argv[2]), {}))\n"
    )
    main = tmp_path / "main.py"
    main.write_text(program)
    words = [sys.executable, str(main), str(tmp_path / "script.py"), str(tmp_path / "run")]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        files = [tmp_path / "0.waits", tmp_path / "1.waits"]
        _until(lambda: all(path.exists() for path in files), process)
        process.kill()
    _until(lambda: all((tmp_path / f"{rank}.ended").exists() for rank in range(2)))


def _until(happened, process=None, seconds=60):
    begun = time.monotonic()
    while not happened():
        assert time.monotonic() - begun < seconds
        assert process is None or process.poll() is None
        time.sleep(0.02)


def test_the_record_tells_what_another_process_has_marked(tmp_path):
    first, other = (RunRecord(tmp_path, {"seed": 1}) for _ in range(2))
    assert other.state is None
    first.begin([], {"task": "vision"})
    assert other.state == "running"
    other.end("failed", UserError("The disk is full."))
    assert first.state == "failed"
    marked = json.loads((tmp_path / "status.json").read_text())
    assert (marked["error"], marked["choices"]) == ("The disk is full.", {"task": "vision"})
    assert marked["pid"] == os.getpid()
