"""Points as jobs of submitit, on this machine or on a SLURM cluster."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from attnlab.errors import UserError
from attnlab.experiment.launchers.point import (
    LOOK,
    Ended,
    Point,
    cores,
    finish,
    mark,
    need,
    threads,
    wait_for_leftover,
)
from attnlab.experiment.search.process import TrialProcess
from attnlab.files import write_json

_SHARED = (
    "name",
    "timeout_min",
    "mem_gb",
    "nodes",
    "cpus_per_task",
    "gpus_per_node",
    "tasks_per_node",
    "stderr_to_stdout",
)
"""Options that submitit translates for every cluster; the others bear the name of the cluster."""
_TIMEOUTS, _DELAY = 100, 120
"""How often a job of this machine may reach its time limit, and the seconds that it then has to end in order."""
_ARRAY = 1000
"""The most jobs of an array, by SLURM's default."""


def with_submitit_local(points: Sequence[Point], options: Mapping[str, Any], directory: Path, ended: Ended) -> None:
    """Runs points as jobs of submitit on this machine, as many at a time as its cores allow."""
    submitit = need("submitit", "slurm")
    executor = submitit.LocalExecutor(_folder(directory), max_num_timeout=_TIMEOUTS)
    given = {name: options[name] for name in ("timeout_min", "gpus_per_node") if options[name] is not None}
    executor.update_parameters(signal_delay_s=_DELAY, **given)
    count = options["cpus_per_task"] or 1
    queue = _Local(executor, Job(threads(count)), room(count))
    print(f"{queue.room} at a time, {count} thread{'s' * (count > 1)} each.", flush=True)
    _wait(queue, points, points, ended, LOOK)


def room(count: int | None) -> int:
    """How many points have room on this machine, with so many cores each."""
    return max(1, cores() // (count or 1))


def with_submitit_slurm(points: Sequence[Point], options: Mapping[str, Any], directory: Path, ended: Ended) -> None:
    """Runs points as jobs of a SLURM cluster, an array of them; those that wait or run already are waited for.

    Raises:
        UserError: if submitit or SLURM is missing, or an option is refused.
    """
    submitit = need("submitit", "slurm")
    own = {key if key in _SHARED else f"slurm_{key}": options[key] for key in options if key != "submitit_folder"}
    limit = {"slurm_max_num_timeout": own.pop("slurm_max_num_timeout")}
    try:
        executor = submitit.AutoExecutor(_folder(directory), "slurm", **limit)
        executor.update_parameters(**own)
    except RuntimeError as error:
        raise UserError(f"hydra/launcher=submitit_slurm needs a SLURM cluster: {error}") from error
    except (NameError, ValueError, AssertionError) as error:
        raise UserError(f"submitit refuses the options of hydra.launcher: {error}") from error
    _squeue()  # whether the cluster answers at all
    queue = _Slurm(executor, Job(threads(options["cpus_per_task"] or 1)), directory, points)
    before = queue.active()
    if before:
        print(f"{len(before)} of the jobs are there from before.", flush=True)
    _wait(queue, points, [point for point in points if point.name not in before], ended, 2.0)


def _folder(directory: Path) -> Path:
    """Where submitit keeps what it needs of each job, `%j`."""
    return directory.resolve() / ".submitit" / "%j"


class Job:
    """What submitit runs for a point: its command, with the signals of a cluster in mind.

    A job that is requeued, or whose time is up, runs the same command again, which goes on from the last checkpoint.

    Args:
        environment: variables of the command.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._process: TrialProcess | None = None

    def __call__(self, point: Point) -> None:
        environment = os.environ | self.environment
        if int(os.environ.get("SLURM_PROCID", "0")) > 0:  # the first task of a job speaks for it
            sys.exit(subprocess.call(point.command, env=environment))
        wait_for_leftover(point)
        with _deaf():
            self._process = TrialProcess(point.command, point.directory, environment)
        try:
            code = finish(point, self._process)
        except BaseException:
            self._stop()
            raise
        if code:  # and no result for submitit, so that SLURM too counts the job as failed
            sys.exit(code if code > 0 else 128 - code)

    def checkpoint(self, point: Point) -> Any:
        """Stops the point in order, since submitit is about to requeue its job, and says what that is to run then."""
        self._stop()
        return importlib.import_module("submitit").helpers.DelayedSubmission(Job(self.environment), point)

    def _stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.interrupt()
            self._process.wait()


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started within ignores the warning that the time is up, which SLURM sends to every process of a job."""
    from submitit.core.job_environment import JobEnvironment

    warning = JobEnvironment._usr_sig()
    handler = signal.signal(warning, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(warning, handler)


class _Queue(Protocol):
    """Where jobs are, with room for some at a time."""

    room: int

    def submit(self, points: Sequence[Point]) -> None: ...

    def active(self) -> set[str]:
        """The names of the points whose jobs wait or run."""
        ...

    def leave(self) -> None:
        """Nobody waits for the jobs any more."""
        ...


def _wait(queue: _Queue, points: Sequence[Point], todo: Sequence[Point], ended: Ended, look: float) -> None:
    """Submits what is to do as there is room, and waits until all points have ended, also one that is requeued."""
    todo, over = list(todo), set[str]()
    try:
        while True:
            active = queue.active()
            pending = active | {point.name for point in todo}
            for point in points:
                if point.name not in pending | over:
                    mark(point.directory, "failed", "Its job has ended: cancelled, killed, or lost with its node.")
                    ended(point, 1)
            over = {point.name for point in points} - pending
            free = max(0, queue.room - len(active))
            now, todo = todo[:free], todo[free:]
            if now:
                queue.submit(now)
            elif not pending:
                return
            time.sleep(look)
    except BaseException:
        queue.leave()
        raise


class _Local:
    """Jobs of submitit's local executor."""

    def __init__(self, executor: Any, job: Job, room: int) -> None:
        self.executor, self.job, self.room = executor, job, room
        self.jobs: dict[str, Any] = {}

    def submit(self, points: Sequence[Point]) -> None:
        self.jobs |= {point.name: self.executor.submit(self.job, point) for point in points}

    def active(self) -> set[str]:
        return {name for name, job in self.jobs.items() if not job.done()}

    def leave(self) -> None:
        print("Stopping what runs; the same command goes on with it.", flush=True)
        for name in self.active():
            self.jobs[name].cancel()
        while self.active():
            time.sleep(LOOK)


class _Slurm:
    """Jobs of a SLURM cluster. Which point is which job is written down, for the same command to find them again."""

    def __init__(self, executor: Any, job: Job, directory: Path, points: Sequence[Point]) -> None:
        self.executor, self.job, self.room = executor, job, len(points)
        self.names = {point.name for point in points}
        self.path = directory / ".submitit" / "jobs.json"
        self.ids: dict[str, str] = {}
        with suppress(OSError, ValueError):
            self.ids = json.loads(self.path.read_text())

    def submit(self, points: Sequence[Point]) -> None:
        for first in range(0, len(points), _ARRAY):
            some = points[first : first + _ARRAY]
            try:
                jobs = self.executor.map_array(self.job, some)
            except Exception as error:  # of several kinds, with what sbatch has said
                raise UserError(f"SLURM refuses the jobs: {error}") from error
            self.ids |= {point.name: job.job_id for point, job in zip(some, jobs, strict=True)}
            write_json(self.path, self.ids)

    def active(self) -> set[str]:
        while True:
            with suppress(UserError):  # a cluster may fall silent for a while
                listed = _squeue()
                return {name for name in self.names if self.ids.get(name) in listed}
            time.sleep(10)

    def leave(self) -> None:
        ids = " ".join(sorted({self.ids[name] for name in self.active()}))
        if ids:
            print(f"The jobs go on. The same command waits for them again; `scancel {ids}` ends them.", flush=True)


def _squeue() -> set[str]:
    """The ids of this user's jobs that wait or run.

    Not sacct, which submitit asks: many a cluster keeps no accounts.

    Raises:
        UserError: if the cluster does not answer.
    """
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip()
        raise UserError(f"The SLURM cluster does not answer; see what squeue says: {said}") from error
    return set(listed.stdout.split())
