"""What a search has found: its trials from the best to those that failed, as a table and as CSV."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnlab.experiment.search import need_optuna
from attnlab.experiment.search.space import Goal, Plan, written

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial
    from rich.table import Table

_STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "RUNNING": "interrupted", "WAITING": "waiting", "FAIL": "failed"}
_COLOURS = {"finished": "green", "failed": "red"}
_ENOUGH = 5
"""Finished trials that a statement about importance needs."""


@dataclass(frozen=True)
class Row:
    """A trial.

    Attributes:
        number: counted from 0.
        state: finished, pruned, interrupted or failed.
        value: the best value of the monitored metric, None where there is none.
        epochs: how many it reported.
        params: its values by key.
        directory: name of its run directory.
        error: why it failed.
    """

    number: int
    state: str
    value: float | None
    epochs: int
    params: dict[str, str] = field(default_factory=dict)
    directory: str = ""
    error: str = ""


def rows(study: "Study", goal: Goal) -> list[Row]:
    """The trials of a study: finished, pruned, interrupted, failed, the best first in each."""
    found = [_row(trial, goal) for trial in study.get_trials(deepcopy=False)]
    sign = -1 if goal.mode == "max" else 1
    order = list(_STATES.values())
    worst = float("inf")
    return sorted(found, key=lambda row: (order.index(row.state), worst if row.value is None else sign * row.value))


def _row(trial: "FrozenTrial", goal: Goal) -> Row:
    state, reported = _STATES[trial.state.name], trial.intermediate_values
    return Row(
        number=trial.number,
        state=state,
        value=trial.value if state == "finished" else goal.best(reported.values()),
        epochs=max(reported, default=0),
        params={key: written(value) for key, value in trial.params.items()},
        directory=trial.user_attrs.get("directory", ""),
        error=trial.user_attrs.get("error", ""),
    )


def table(found: list[Row], plan: Plan, goal: Goal, title: str, most: int = 10) -> "Table":
    """The best trials as a table for the terminal, under as much of a key as tells it from the others."""
    from rich.table import Table

    shown = Table(title=title, title_justify="left")
    for heading in ("directory", goal.monitor, "state", "epochs"):
        shown.add_column(heading, no_wrap=True)
    for key in plan.spaces:
        shown.add_column(_short(key, plan.spaces), overflow="fold")
    for row in found[:most]:
        value = "" if row.value is None else f"{row.value:.6g}"
        state = f"[{_COLOURS.get(row.state, 'yellow')}]{row.state}"
        chosen = [_rounded(row.params.get(key, "")) for key in plan.spaces]
        shown.add_row(row.directory or f"trial={row.number}", value, state, str(row.epochs), *chosen)
    return shown


def _rounded(text: str) -> str:
    """A number with a point to four digits; anything else as it is."""
    try:
        return text if text.lstrip("-").isdecimal() else f"{float(text):.4g}"
    except ValueError:
        return text


def _short(key: str, keys: Iterable[str]) -> str:
    """The end of a key, as long as no other key ends so."""
    names = key.split(".")
    ends = (".".join(names[-count:]) for count in range(1, len(names)))
    return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1), key)


def as_csv(found: list[Row], plan: Plan, goal: Goal) -> str:
    """All trials as CSV, with a heading."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", goal.monitor, "epochs", *plan.spaces, "directory", "error"])
    for row in found:
        chosen = [row.params.get(key, "") for key in plan.spaces]
        value: Any = "" if row.value is None else row.value
        writer.writerow([row.number, row.state, value, row.epochs, *chosen, row.directory, row.error])
    return text.getvalue()


def importances(study: "Study") -> dict[str, float]:
    """Each key's share of what the values differ by, the greatest first (PED-ANOVA; Watanabe et al. 2023).

    Empty where too few trials have finished, or they do not differ.
    """
    optuna = need_optuna()
    finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(finished) < _ENOUGH or len({trial.value for trial in finished}) < 2:
        return {}
    try:
        found: dict[str, float] = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError):
        return {}
    return found
