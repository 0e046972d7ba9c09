"""What a search varies and what it keeps fixed, from overrides in Hydra's grammar of sweeps."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from attnlab.errors import UserError
from attnlab.experiment.build import compose
from attnlab.experiment.checks import check_values

FORMS = "choice(a,b), interval(0,0.4), int(interval(1,4)), range(1,5) or tag(log,interval(1e-4,1e-2))"


@dataclass(frozen=True)
class Plan:
    """The overrides of a search, by key; of two for one key the later holds, as on Hydra's command line.

    Attributes:
        fixed: the overrides of every trial, as they were given.
        spaces: Optuna's distribution of every key that is searched.
        prefixes: `+` or `++` of those keys that the config lacks, else nothing.
    """

    fixed: Mapping[str, str]
    spaces: Mapping[str, Any]
    prefixes: Mapping[str, str]

    def chosen(self, params: Mapping[str, Any]) -> list[str]:
        """The overrides that give the searched keys their values."""
        return [f"{self.prefixes[key]}{key}={written(params[key])}" for key in self.spaces]

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """All overrides of a trial."""
        return [*self.fixed.values(), *self.chosen(params)]

    def described(self) -> dict[str, dict[str, str]]:
        """What makes this search and no other."""
        fixed = {key: override.partition("=")[2] or override for key, override in self.fixed.items()}
        return {"fixed": fixed, "spaces": {key: describe(space) for key, space in self.spaces.items()}}


@dataclass(frozen=True)
class Goal:
    """What a search looks for.

    Attributes:
        monitor: the validation metric.
        mode: max or min.
        epochs: how long a trial trains at most, where the config says so.
    """

    monitor: str
    mode: str
    epochs: int | None = None

    def best(self, values: Iterable[float]) -> float | None:
        """The best of some values; None of none."""
        return (max if self.mode == "max" else min)(values, default=None)


def plan(overrides: Iterable[Any]) -> Plan:
    """Sorts overrides, as Hydra's parser reads them, into fixed ones and search spaces.

    Raises:
        UserError: for a key that a search sets itself, a space that Optuna refuses, and where nothing is searched.
    """
    fixed: dict[str, str] = {}
    spaces: dict[str, Any] = {}
    prefixes: dict[str, str] = {}
    for override in overrides:
        element = override.get_key_element()
        key = element.lstrip("+~")
        if key == "run_dir" or override.is_hydra_override():
            raise UserError(f"{override.input_line}: a search sets {key} itself; say with --out where it writes.")
        fixed.pop(key, None)
        spaces.pop(key, None)
        if override.is_sweep_override():
            spaces[key], prefixes[key] = distribution(override), element.removesuffix(key)
        else:
            fixed[key] = override.input_line
    if not spaces:
        raise UserError(f"There is nothing to search: give at least one key a space, KEY={FORMS}.")
    return Plan(fixed, spaces, prefixes)


def distribution(override: Any) -> Any:
    """Optuna's distribution for an override that is a sweep.

    Choices are kept as Hydra writes them, so that lists, quoted texts and null keep their meaning.

    Raises:
        UserError: if it is no space that can be searched.
    """
    tags = set(getattr(override.value(), "tags", ()))
    if tags - {"log"}:
        raise UserError(
            f"{override.input_line}: a space has no tag {min(tags - {'log'})!r}; the one that it can have is log."
        )
    try:
        if override.is_interval_sweep():
            make = _interval(override.value())
        elif override.is_range_sweep():
            make = _range(override.value())
        else:
            make = _choice(override)
        return make(log=True) if tags else make()
    except (TypeError, ValueError) as error:
        raise UserError(f"{override.input_line} is no search space: {error}") from error


def _interval(value: Any) -> Any:
    from optuna.distributions import FloatDistribution, IntDistribution

    kind = IntDistribution if isinstance(value.start, int) else FloatDistribution
    return partial(kind, value.start, value.end)


def _range(value: Any) -> Any:
    """The values that Hydra's range enumerates, its end left out."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if not value.step:
        raise ValueError("its step is 0")
    values = list(value.range())
    if not values:
        raise ValueError("it holds no value")
    kind = IntDistribution if isinstance(values[0], int) else FloatDistribution
    return partial(kind, min(values), max(values), step=abs(value.step))


def _choice(override: Any) -> Any:
    from optuna.distributions import CategoricalDistribution

    if not hasattr(override.value(), "list"):
        raise ValueError("name the options, choice(a,b)")
    return partial(CategoricalDistribution, tuple(dict.fromkeys(override.sweep_string_iterator())))


def written(value: Any) -> str:
    """A value as an override writes it: of a number eight digits, which is more than a search can tell apart."""
    return repr(float(f"{value:.8g}")) if isinstance(value, float) else str(value)


def describe(space: Any) -> str:
    """A distribution in Hydra's grammar."""
    if hasattr(space, "choices"):
        return f"choice({','.join(map(str, space.choices))})"
    name = type(space).__name__
    text = f"interval({written(space.low)},{written(space.high)})"
    text = f"int({text})" if name.startswith("Int") else text
    text = f"tag(log,{text})" if space.log else text
    return text if space.step in (None, 1) else f"{text} in steps of {written(space.step)}"


def check(conf: Path, search: Plan) -> Goal:
    """Composes the configs that a search can come to, every choice once, before any trial starts.

    Args:
        conf: the folder of configs.
        search: its overrides.

    Returns:
        what all of its trials look for.

    Raises:
        UserError: that names the mistake: an unknown key or option, a value of a wrong type, a value that must be
            given, or choices that look for different metrics.
    """
    first = {key: getattr(space, "choices", None) or (space.low,) for key, space in search.spaces.items()}
    base = {key: values[0] for key, values in first.items()}
    others = itertools.chain.from_iterable(({key: value} for value in values[1:]) for key, values in first.items())
    goal = _goal(conf, search, base)
    for changed in others:
        other = _goal(conf, search, base | changed)
        if (other.monitor, other.mode) != (goal.monitor, goal.mode):
            raise UserError(
                f"The trials of a search look for one metric, and {' '.join(search.chosen(base | changed))} looks for "
                f"{other.monitor}, others for {goal.monitor}; set task.monitor and task.mode, or search them apart."
            )
    return goal


def _goal(conf: Path, search: Plan, params: Mapping[str, Any]) -> Goal:
    overrides = search.overrides(params)
    config = compose(conf, overrides)
    check_values(conf, overrides, config)
    for key in _missing(config):
        raise UserError(f"{key} must be given: add {key}=VALUE to the command.")
    monitor, mode, epochs = config["task"]["monitor"], config["task"]["mode"], config["trainer"]["max_epochs"]
    if mode not in ("max", "min"):
        raise UserError(f"task.mode={mode} must be max or min.")
    return Goal(monitor, mode, epochs if isinstance(epochs, int) and epochs > 0 else None)


def _missing(config: Any, prefix: str = "") -> Iterable[str]:
    """The keys whose value the command has to give."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield from _missing(value, f"{prefix}.{key}" if prefix else str(key))
    elif config == "???":
        yield prefix
