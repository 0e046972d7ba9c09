"""Runs grouped into points: data set by data set, variant by variant, seed by seed.

A data set is what runs are tested on; a variant is everything else in which their configs differ, the seed left out.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnlab.errors import UserError
from attnlab.report.metrics import number
from attnlab.report.read import Problem, Run, missing, read_runs

_WITHOUT_EFFECT = ("run_dir", "wandb", "maps", "seed")
"""Keys of a config that do not make another variant."""
_DATA = {
    *("_target_", "path", "name", "splits", "test", "generation_seed"),
    *("validation_share", "test_share", "split_seed"),
    *("language", "source", "target", "tags"),
    *("image", "label", "size", "pieces", "piece_size", "scale"),
}
"""Keys of `data` that say what a run is tested on; all others (tokenizer, training pairs) are the variant's."""
_ABSENT = "default"


@dataclass(frozen=True)
class Variant:
    """The usable runs of one variant on one data set, by seed; none of them where all failed."""

    name: str
    runs: dict[int, Run]

    def values(self, key: str) -> dict[int, float]:
        """A metric by seed, of the runs that have it."""
        found = {seed: number(run.metrics, key) for seed, run in self.runs.items()}
        return {seed: value for seed, value in found.items() if value is not None}


@dataclass(frozen=True)
class DataSet:
    """What was measured on one data set.

    Attributes:
        name: of the data set, unique in the comparison.
        variants: in the order of their run directories.
        seeds: all seeds that any variant was started with.
        classification: whether its predictions are of classes, else of texts.
    """

    name: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    classification: bool

    @property
    def runs(self) -> list[Run]:
        """Every usable run."""
        return [run for variant in self.variants for run in variant.runs.values()]

    @property
    def keys(self) -> list[str]:
        """Every metric that any run has, in the order of the first."""
        return list(
            dict.fromkeys(key for run in self.runs for key in run.metrics if number(run.metrics, key) is not None)
        )


@dataclass(frozen=True)
class Comparison:
    """All that a folder holds, ready to be compared.

    Attributes:
        title: the folder's name.
        sets: the data sets.
        problems: what is failed, missing or damaged.
        points: how many points there are or should be, of which some may be a problem.
        finished: how many of them have metrics.
    """

    title: str
    sets: tuple[DataSet, ...]
    problems: tuple[Problem, ...]
    points: int
    finished: int

    @property
    def names(self) -> list[str]:
        """The variants of all data sets."""
        return list(dict.fromkeys(variant.name for data in self.sets for variant in data.variants))


def load(folder: Path, asked: Mapping[Path, Sequence[Sequence[str]]] | None = None) -> Comparison:
    """Reads and groups the runs of a folder.

    Args:
        folder: with run directories anywhere below it.
        asked: by the folder of each sweep in it, the points that it asked for, as `missing` takes them.

    Raises:
        UserError: if the folder has no runs, or none that finished and can be read.
    """
    runs, problems = read_runs(folder)
    if not any(run.usable for run in runs):
        first = "; ".join(f"{problem.point}: {problem.sentence}" for problem in problems[:3])
        raise UserError(
            f"No run in {folder} has finished, so that there is nothing to report. {first}"
            + (f" And {len(problems) - 3} more." if len(problems) > 3 else "")
        )
    return group(runs, [*problems, *missing(folder, asked or {})], folder.resolve().name)


@dataclass
class _Group:
    """The runs of one variant on one data set, while its name is being found."""

    data: str
    runs: list[Run]
    shown: list[tuple[str, str]] = field(default_factory=list)

    @property
    def run(self) -> Run:
        return self.runs[0]


def group(runs: Sequence[Run], problems: Sequence[Problem], title: str) -> Comparison:
    """Groups runs; beside their points there are those that problems tell of and no run that could be read is."""
    by_data: dict[str, dict[str, _Group]] = {}
    for run in runs:
        keys = _data_key(run), _variant_key(run)
        by_data.setdefault(keys[0], {}).setdefault(keys[1], _Group(keys[0], [])).runs.append(run)
    groups = [group for variants in by_data.values() for group in variants.values()]
    names = dict(zip(map(id, groups), _variant_names(groups), strict=True))
    data_names = _data_names([next(iter(variants.values())).run for variants in by_data.values()])
    lost = {problem.point for problem in problems} - {run.name for run in runs}

    found, sets, points = list(problems), [], len(lost)
    for data_name, variants in zip(data_names, by_data.values(), strict=True):
        begun = [{run.seed for run in group.runs} for group in variants.values()]
        seeds = tuple(sorted(set().union(*begun)))
        points += sum(map(len, begun))
        made = [Variant(names[id(group)], _newest(group.runs, found)) for group in variants.values()]
        usable = [run for variant in made for run in variant.runs.values()]
        classes = any("label" in row for run in usable for row in run.predictions[:1])
        sets.append(DataSet(data_name, tuple(made), seeds, classes))
    return Comparison(
        title, tuple(sets), tuple(found + _unmeasured(sets)), points, sum(len(data.runs) for data in sets)
    )


def _newest(runs: Iterable[Run], problems: list[Problem]) -> dict[int, Run]:
    """The usable run of each seed, the newest where there are several."""
    chosen: dict[int, Run] = {}
    for run in sorted((run for run in runs if run.usable), key=lambda run: run.ended):
        if (older := chosen.get(run.seed)) is not None:
            problems.append(Problem(older.name, "repeated", f"Left out: {run.name} is a newer run of the same point."))
        chosen[run.seed] = run
    return dict(sorted(chosen.items()))


def _unmeasured(sets: Iterable[DataSet]) -> list[Problem]:
    """Runs that lack a metric which another seed of their variant has."""
    return [
        Problem(run.name, "missing", f"Without {key}: its metrics.json gives no finite number for it.")
        for data in sets
        for variant in data.variants
        for key in data.keys
        if 0 < len(variant.values(key)) < len(variant.runs)
        for seed, run in variant.runs.items()
        if seed not in variant.values(key)
    ]


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """A config with dotted keys; lists are values."""
    if not isinstance(config, dict):
        return {prefix.rstrip("."): config}
    return {k: v for key, value in config.items() for k, v in flat(value, f"{prefix}{key}.").items()}


def _is_data(key: str) -> bool:
    parts = key.split(".")
    return key == "task.name" or (parts[0] == "data" and len(parts) > 1 and parts[1] in _DATA)


def _data_key(run: Run) -> str:
    return _canonical({key: value for key, value in flat(run.config).items() if _is_data(key)})


def _variant_key(run: Run) -> str:
    keys = flat(run.config).items()
    return _canonical({k: v for k, v in keys if not _is_data(k) and k.split(".")[0] not in _WITHOUT_EFFECT})


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _data_names(runs: Sequence[Run]) -> list[str]:
    """The folder, the option or the class that the data come from, and what else tells data sets of one name apart."""
    names = [_data_name(run) for run in runs]
    result = []
    for run, name in zip(runs, names, strict=True):
        alike = [flat(other.config) for other, its in zip(runs, names, strict=True) if its == name]
        mine = flat(run.config)
        keys = [key for key in mine if _is_data(key) and len({_canonical(other.get(key)) for other in alike}) > 1]
        result.append(", ".join([name, *(f"{key.rpartition('.')[2]}={_written(mine[key])}" for key in keys)]))
    return result


def _data_name(run: Run) -> str:
    data = run.config.get("data")
    data = data if isinstance(data, dict) else {}
    path, target = data.get("path"), data.get("_target_")
    return (
        (Path(path).name if isinstance(path, str) else "")
        or run.choices.get("data", "")
        or str(target or "data").rpartition(".")[2]
    )


def _variant_names(groups: Sequence[_Group]) -> list[str]:
    """Names that say no more than it takes: a key is named where it tells variants of one data set apart.

    Config groups come first, `attention` before `attention/score`, so that `hard` needs nothing else unless there are
    two of it; then keys of the command line, then any other key of the config.
    """
    for key in _candidates([group.run for group in groups]):
        if _told_apart(groups):
            break
        alike: dict[tuple[Any, ...], list[_Group]] = {}
        for group in groups:
            alike.setdefault(tuple(group.shown), []).append(group)
        for members in alike.values():
            values = {id(group): _value(group.run, key) for group in members}
            by_data: dict[str, set[str]] = {}
            for group in members:
                by_data.setdefault(group.data, set()).add(values[id(group)])
            if any(len(several) > 1 for several in by_data.values()):
                for group in members:
                    group.shown.append((key, values[id(group)]))
    return _unique([(group.data, _label(group)) for group in groups])


def _told_apart(groups: Sequence[_Group]) -> bool:
    return len({(group.data, *group.shown) for group in groups}) == len(groups)


def _label(group: _Group) -> str:
    if not group.shown:
        return _value(group.run, "attention")
    keys = [key.replace("/", ".").removesuffix("._target_") for key, _ in group.shown]
    ends = [key.rpartition(".")[2] for key in keys]
    return ", ".join(
        value if key == "attention" else f"{key if ends.count(end) > 1 else end}={value}"
        for key, end, (_, value) in zip(keys, ends, group.shown, strict=True)
    )


def _unique(labels: Sequence[tuple[str, str]]) -> list[str]:
    """The second of each pair, numbered where a pair comes again."""
    seen: dict[tuple[str, str], int] = {}
    result = []
    for pair in labels:
        seen[pair] = seen.get(pair, 0) + 1
        result.append(pair[1] if seen[pair] == 1 else f"{pair[1]} ({seen[pair]})")
    return result


def _candidates(runs: Sequence[Run]) -> list[str]:
    groups = {key for run in runs for key in (*run.choices, *_group_overrides(run))}
    named = [key for run in runs for key in _overrides(run) if key not in groups]
    rest = sorted({key for run in runs for key in flat(run.config)})
    ordered = sorted(groups, key=lambda key: (key == "experiment", key.count("/"), key != "attention", key))
    keys = dict.fromkeys([*ordered, *named, *rest])
    return [key for key in keys if not _is_data(key) and key.replace("/", ".").split(".")[0] not in _WITHOUT_EFFECT]


def _overrides(run: Run) -> dict[str, str]:
    pairs = (text.lstrip("+~").partition("=") for text in run.overrides)
    return {key.partition("@")[0]: value for key, _, value in pairs}


def _group_overrides(run: Run) -> dict[str, str]:
    """Overrides that choose an option of a group: `attention=hard`, `attention/score=dot`."""
    keys = flat(run.config)
    groups = {".".join(key.split(".")[:depth]) for key in keys for depth in range(1, key.count(".") + 1)}
    return {k: v for k, v in _overrides(run).items() if k == "experiment" or k.replace("/", ".") in groups}


def _value(run: Run, key: str) -> str:
    """What a run has for a key: the option of a group, or the value in its config."""
    chosen = run.choices | _group_overrides(run)
    if key in chosen:
        return str(chosen[key])
    keys, dotted = flat(run.config), key.replace("/", ".")
    if dotted in keys:
        return _written(keys[dotted])
    inner = [str(value) for name, value in keys.items() if name.startswith(f"{dotted}.") and name.endswith("._target_")]
    return " + ".join(target.rpartition(".")[2] for target in inner if not target.endswith(".Attention")) or _ABSENT


def _written(value: Any) -> str:
    """A value in a name; of a path or a class only the last part."""
    if isinstance(value, str):
        value = value.rpartition(".")[2] if value.startswith("attnlab.") else value
        return value.rstrip("/").rpartition("/")[2] or value
    return json.dumps(value, default=str)
