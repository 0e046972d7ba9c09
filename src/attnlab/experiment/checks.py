"""What is wrong with a config by its values alone: keys that are missing, types, numbers out of range.

Imports no torch, so that mistakes in a command are told at once and leave nothing behind.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from attnlab.errors import UserError
from attnlab.experiment.build import compose
from attnlab.experiment.precision import check_precision
from attnlab.experiment.tracking import MODES


class _Range(NamedTuple):
    """The numbers that a key may have, both ends included."""

    least: int
    most: int | None = None
    kind: Any = int
    null: bool = False

    def holds(self, value: Any) -> bool:
        if value is None or isinstance(value, bool) or not isinstance(value, self.kind):
            return value is None and self.null
        return bool(self.least <= value and (self.most is None or value <= self.most))

    def __str__(self) -> str:
        kind = "a whole number" if self.kind is int else "a number"
        limits = f"of {self.least} or more" if self.most is None else f"from {self.least} to {self.most}"
        return f"{kind} {limits}" + (", or null" if self.null else "")


# of what no class of ours owns: libraries refuse these late, each in its way, or take them and make nothing of them
_RANGES = {
    "seed": _Range(0, 2**32 - 1),
    "maps": _Range(0),
    "search.alpha": _Range(-10, 10, kind=int | float),
    "search.beam": _Range(1),
    "search.draws": _Range(1),
    "task.patience": _Range(0),
    "trainer.max_epochs": _Range(1, null=True),
    "trainer.max_steps": _Range(1),
    "trainer.gradient_clip_val": _Range(0, kind=int | float, null=True),
    "trainer.log_every_n_steps": _Range(0, null=True),
}


def check_values(conf: Path, overrides: Sequence[str], config: dict[str, Any]) -> None:
    """Refuses a config that lacks a key that every run reads, or has a value that no run can use.

    Args:
        conf: the folder of configs.
        overrides: the command line's, in Hydra's grammar.
        config: what they compose.

    Raises:
        UserError: that names the key, what it should be and what it is.
    """
    _check_presence(conf, overrides, config)
    _check_types(conf, overrides, config)
    for group in sorted({"wandb", *(key.partition(".")[0] for key in _RANGES if "." in key)}):
        if not isinstance(config[group], dict):
            raise UserError(
                f"{group}={_shown(config[group])} leaves out what every run has; set its keys one by one, as "
                f"{group}.NAME=VALUE."
            )
    kinds = sorted(path.stem for path in (conf / "task").glob("*.yaml"))
    if (kind := config["task"]["name"]) not in kinds:
        raise UserError(
            f"task.name={_shown(kind)} is no kind of task; choose {' or '.join(f'task={k}' for k in kinds)}."
        )
    for key, numbers in _RANGES.items():
        if _has(config, key) and not numbers.holds(value := _at(config, key)):
            raise UserError(f"{key}={_shown(value)} must be {numbers}.")
    trainer = config["trainer"]
    if trainer["max_epochs"] is None and "max_steps" not in trainer:
        raise UserError("trainer.max_epochs=null leaves the length of the run open: add +trainer.max_steps=N.")
    check_precision(trainer)
    if (mode := config["wandb"]["mode"]) not in MODES:
        raise UserError(f"wandb.mode={_shown(mode)} is none of W&B's: choose {', '.join(MODES[:-1])} or {MODES[-1]}.")


def _check_presence(conf: Path, overrides: Sequence[str], config: dict[str, Any]) -> None:
    """Refuses to leave out what is read of every run, as `~attention` does; an option of an object has a default."""
    removals = [part for part in overrides if part.startswith("~")]
    if removals and (lost := next(_lost(compose(conf, _choices(conf, overrides)), config), None)):
        raise UserError(f"Every run has {lost}, and {' '.join(removals)} leaves it out: give {lost}= another value.")


def _lost(defaults: dict[str, Any], config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys of the defaults that a config lacks, but for those of objects."""
    for key, value in defaults.items():
        if key not in config:
            yield prefix + key
        elif isinstance(value, dict) and isinstance(config[key], dict) and "_target_" not in value:
            yield from _lost(value, config[key], f"{prefix}{key}.")


def _check_types(conf: Path, overrides: Sequence[str], config: dict[str, Any]) -> None:
    """Refuses a value of another type than the config's own, `data.test=abc`; the trainer's are for Lightning."""
    keys = [_key(part) for part in overrides if not _is_group(conf, part)]
    keys = [key for key in keys if not key.startswith(("trainer.", "hydra.", "run_dir"))]
    if not keys:
        return
    defaults = compose(conf, _choices(conf, overrides))
    for key in keys:
        check_type(key, _at(defaults, key), _at(config, key))


def check_type(key: str, expected: Any, found: Any) -> None:
    """Refuses, with a UserError, a value of another type than is expected; null on either side says nothing."""
    kind = next((kind for kind in _KINDS if isinstance(expected, kind)), None)
    if kind is None or found is None:
        return
    allowed, name = _KINDS[kind]
    if not isinstance(found, allowed) or (isinstance(found, bool) and kind is not bool):
        raise UserError(f"{key}={_shown(found)} must be {name}, such as {json.dumps(expected)}.")


_KINDS: dict[type, tuple[Any, str]] = {
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: (int | float, "a number"),
    list: (list, "a list"),
    dict: (dict, "a group of keys"),
}


def _choices(conf: Path, overrides: Sequence[str]) -> list[str]:
    """The overrides that choose an option of a group."""
    return [part for part in overrides if _is_group(conf, part) and not part.startswith("~")]


def _is_group(conf: Path, override: str) -> bool:
    return (conf / _key(override).partition("@")[0]).is_dir()


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _at(config: Any, key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def _has(config: dict[str, Any], key: str) -> bool:
    parent, _, name = key.rpartition(".")
    return name in (_at(config, parent) if parent else config)


def _shown(value: Any) -> str:
    """A value as the command line has it."""
    return value if isinstance(value, str) else json.dumps(value)
