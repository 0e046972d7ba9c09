"""The study of a search in its database, its sampler and its pruner."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnlab.errors import UserError
from attnlab.experiment.search import need_optuna
from attnlab.experiment.search.space import Goal, Plan

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner

_NAME = "search"
_PLAN = "plan"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the folder of a search; UserError if another search does."""
    import filelock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "search.lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(f"Another search is running in {folder}; wait for it, or give another --out.") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}; give another --out.") from error
    try:
        yield
    finally:
        lock.release()


def make_pruner(name: str, epochs: int | None, startup: int = 5) -> "BasePruner":
    """A pruner by its name.

    Args:
        name: median, hyperband or none.
        epochs: how long a trial trains; the median leaves a trial alone in the first quarter of them.
        startup: trials that have to finish before the median stops any.
    """
    pruners = need_optuna().pruners
    longest = epochs or 1
    if name == "median":
        return pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=max(1, longest // 4))
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=max(1, longest // 9), max_resource=epochs or "auto")
    return pruners.NopPruner()


def make_sampler(seed: int, number: int) -> Any:
    """The sampler of one trial: a stopped search that goes on then draws what it would have drawn uninterrupted."""
    import numpy as np

    entropy = np.random.SeedSequence([seed, number])
    return need_optuna().samplers.TPESampler(seed=int(entropy.generate_state(1)[0]))


def open_study(folder: Path, plan: Plan, goal: Goal, pruner: "BasePruner") -> "Study":
    """The study of a folder, made if it is not there.

    Raises:
        UserError: if the database cannot be read, or holds another search.
    """
    optuna = need_optuna()
    from sqlalchemy import URL
    from sqlalchemy.exc import SQLAlchemyError

    path = folder / "study.db"
    now = plan.described() | {"goal": {"monitor": goal.monitor, "mode": goal.mode}}
    try:
        study = optuna.create_study(
            storage=URL.create("sqlite", database=str(path)).render_as_string(), study_name=_NAME, load_if_exists=True,
            direction="maximize" if goal.mode == "max" else "minimize", pruner=pruner,
        )  # fmt: skip
        before = study.user_attrs.get(_PLAN)
        if before is None and not study.trials:
            study.set_user_attr(_PLAN, now)
            before = now
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"The study {path} cannot be used ({reason}); give another --out.") from error
    if before != now:
        raise UserError(
            f"{folder} holds another search: {_difference(before or {}, now)}. Nothing was changed there; give the "
            "same overrides to go on with it, or another --out."
        )
    return study


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The first key in which two searches differ, in words."""
    parts = [(before.get(part) or {}, found) for part, found in now.items()]
    pairs = [
        (key, there.get(key), here.get(key)) for there, here in parts for key in sorted(there.keys() | here.keys())
    ]
    key, there, here = next(pair for pair in pairs if pair[1] != pair[2])
    return f"{key} is {there or 'not given'} there and {here or 'not given'} here"
