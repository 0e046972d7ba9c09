"""Points as processes of this machine."""

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlab.experiment.launchers.point import Ended, Point, divide, finish, need, threads, wait_for_leftover
from attnlab.experiment.search.process import TrialProcess


def with_joblib(points: Sequence[Point], options: Mapping[str, Any], directory: Path, ended: Ended) -> None:
    """Runs points as processes of this machine, `n_jobs` at a time.

    joblib's threads each wait for a process, rather than that its own workers train: joblib ends all workers when one
    of them is killed.
    """
    joblib = need("joblib", "joblib")
    jobs, count = divide(options["n_jobs"], len(points))
    print(f"{jobs} at a time, {count} thread{'s' * (count > 1)} each.", flush=True)
    crew = _Crew(threads(count))
    runs = (joblib.delayed(crew.run)(point) for point in points)
    try:
        for point, code in joblib.Parallel(jobs, backend="threading", return_as="generator_unordered")(runs):
            ended(point, code)
    except BaseException:
        print("Stopping what runs; the same command goes on with it.", flush=True)
        crew.stop()
        raise


class _Crew:
    """The processes of the points that run now; once it is stopped, it starts no more."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._lock = threading.Lock()
        self._stopped = False
        self._started: list[tuple[Point, TrialProcess]] = []

    def run(self, point: Point) -> tuple[Point, int]:
        wait_for_leftover(point)
        with self._lock:
            if self._stopped:
                return point, 130
            process = TrialProcess(point.command, point.directory, os.environ | self.environment)
            self._started.append((point, process))
        return point, finish(point, process)

    def stop(self) -> None:
        """Ends the processes in order; each records itself as interrupted."""
        with self._lock:
            self._stopped = True
        living = [(point, process) for point, process in self._started if process.poll() is None]
        for _, process in living:
            process.interrupt()
        for point, process in living:
            process.wait()
            finish(point, process)
