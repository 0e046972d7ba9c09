"""The loop that runs the trials of a study."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnlab.experiment.record import read_config
from attnlab.experiment.search import need_optuna
from attnlab.experiment.search.process import TrialProcess, curve, end_leftover, log_of, why_it_failed
from attnlab.experiment.search.space import Goal, Plan
from attnlab.experiment.search.study import make_sampler

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

_LOOK = 0.2
"""Seconds between two looks at the trials that run."""


class Search:
    """Runs the trials of a study, several at a time, until there are as many as asked for.

    Args:
        study: the study.
        plan: the overrides of its trials.
        goal: what it looks for.
        folder: where the run directories are.
        command: the words that start a run, before its overrides.
        trials: how many the study shall have, those of earlier calls included.
        jobs: how many run at a time; they share the threads.
        seed: of the sampler.
        say: takes a line for the user.
    """

    def __init__(
        self, study: "Study", plan: Plan, goal: Goal, folder: Path, command: Sequence[str], *, trials: int,
        jobs: int = 1, seed: int = 1, say: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        self.study, self.plan, self.goal, self.folder, self.command = study, plan, goal, folder, list(command)
        self.trials, self.jobs, self.seed, self.say = trials, jobs, seed, say
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.environment = {"OMP_NUM_THREADS": str(max(1, cores // jobs))} | os.environ

    def run(self) -> None:
        """Runs the trials; of whatever exception ends it early, Ctrl-C included, the runs are stopped first."""
        running: list[_Running] = []
        interrupted = [trial for trial in self.study.trials if trial.state.name == "RUNNING"]
        try:
            while True:
                while len(running) < self.jobs and (trial := self._next(interrupted)) is not None:
                    if not self._as_before(trial):
                        running.append(self._start(trial))
                if not running:
                    return
                time.sleep(_LOOK)
                running = [one for one in running if not one.ended()]
        except BaseException:
            if running:
                self.say("Stopping what runs; it can go on from its last checkpoint.")
            _stop([one.process for one in running])
            raise

    def _next(self, interrupted: "list[FrozenTrial]") -> "Trial | None":
        """The next trial: one that was interrupted, else a new one; None if there are enough."""
        optuna = need_optuna()
        while interrupted:
            before = interrupted.pop(0)
            trial = optuna.Trial(self.study, before._trial_id)
            if before.params.keys() == self.plan.spaces.keys():
                end_leftover(self.directory(trial), before.user_attrs.get("process"))
                return trial
            self._fail(trial, "It was interrupted before its values were chosen.")
        number = sum(trial.state.name != "WAITING" for trial in self.study.get_trials(deepcopy=False))
        if number >= self.trials:
            return None
        self.study.sampler = make_sampler(self.seed, number)
        return self.study.ask(dict(self.plan.spaces))

    def _as_before(self, trial: "Trial") -> bool:
        """Whether a trial with the same values has finished, whose values this one then takes."""
        from optuna.trial import TrialState

        for other in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if other.params == trial.params:
                reported = trial.storage.get_trial(trial._trial_id).intermediate_values
                for epoch in sorted(other.intermediate_values.keys() - reported.keys()):
                    trial.report(other.intermediate_values[epoch], epoch)
                trial.set_user_attr("directory", self.directory(other).name)
                self.study.tell(trial, other.value)
                self.say(f"trial {trial.number}: as trial {other.number}, {other.value:.6g}")
                return True
        return False

    def _start(self, trial: "Trial") -> "_Running":
        directory = self.directory(trial)
        chosen = self.plan.chosen(trial.params)
        self.say(f"trial {trial.number}{' goes on' if directory.exists() else ''}: {' '.join(chosen)}")
        words = [*self.command, *self.plan.fixed.values(), *chosen, f"run_dir={directory}"]
        process = TrialProcess(words, directory, self.environment)
        trial.set_user_attr("process", process.pid)
        trial.set_user_attr("directory", directory.name)
        return _Running(self, trial, process, directory)

    def _fail(self, trial: "Trial", reason: str) -> None:
        from optuna.trial import TrialState

        trial.set_user_attr("error", reason)
        self.study.tell(trial, state=TrialState.FAIL)
        self.say(f"trial {trial.number}: failed. {reason}")

    def directory(self, trial: "Trial | FrozenTrial") -> Path:
        """The run directory of a trial."""
        return self.folder / f"trial={trial.number}"


class _Running:
    """A trial that runs: what it has reported, and what becomes of it."""

    def __init__(self, search: Search, trial: "Trial", process: TrialProcess, directory: Path) -> None:
        self.search, self.trial, self.process, self.directory = search, trial, process, directory
        self.reported = set(trial.storage.get_trial(trial._trial_id).intermediate_values)

    def ended(self) -> bool:
        """Reports what is new, prunes or records the trial if it is time to, and says whether it has ended."""
        code = self.process.poll()  # before the curve is read: so nothing that a run has written at last is missed
        values = curve(self.directory, self.search.goal.monitor)
        for epoch in sorted(values.keys() - self.reported):
            self.reported.add(epoch)
            self.trial.report(values[epoch], epoch)
            if code is None and not self._last(epoch) and self.trial.should_prune():
                self._prune(epoch)
                return True
        if code is None:
            return False
        self._record(code, values)
        return True

    def _last(self, epoch: int) -> bool:
        """Whether nothing is left to train, and so nothing to spare."""
        epochs = read_config(self.directory)["trainer"].get("max_epochs")
        return epochs is not None and 0 < epochs <= epoch

    def _prune(self, epoch: int) -> None:
        from optuna.trial import TrialState

        self.process.interrupt()
        self.process.wait()
        self.search.study.tell(self.trial, state=TrialState.PRUNED)
        self.search.say(f"trial {self.trial.number}: pruned after epoch {epoch}")

    def _record(self, code: int, values: dict[int, float]) -> None:
        value = self.search.goal.best(values.values())
        if code or value is None:
            missing = f"It recorded no {self.search.goal.monitor}; see {log_of(self.directory)}."
            self.search._fail(self.trial, why_it_failed(self.directory, code) if code else missing)
            return
        self.search.study.tell(self.trial, value)
        self.search.say(f"trial {self.trial.number}: {self.search.goal.monitor} {value:.6g}")


def _stop(processes: Sequence[TrialProcess]) -> None:
    """Stops processes in order, at once; a second Ctrl-C ends them without waiting."""
    try:
        for process in processes:
            process.interrupt()
        for process in processes:
            process.wait()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
