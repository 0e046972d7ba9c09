"""The tables of a report, as cells that each kind of page writes in its own way, and as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attnlab.report.compare import Compared, Outcome, p_number
from attnlab.report.metrics import Metric, cost, modes, quality
from attnlab.report.points import Comparison, DataSet
from attnlab.report.stats import Summary, summarise

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """A value, its spread and interval where there are any, and whether it is marked as the best."""

    value: str
    spread: str = ""
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A heading: label, unit, which way is better; text is set to the left, numbers to the right."""

    label: str
    unit: str = ""
    arrow: str = ""
    text: bool = False


@dataclass(frozen=True)
class Table:
    """A caption, columns, and rows of which the first cell is the heading."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def results(data: DataSet, compared: Compared) -> Table:
    """Variants by metrics: mean ± standard deviation [95 % interval] over seeds; cost without an interval."""
    good, dear = _columns(data)
    rows = []
    for variant in data.variants:
        cells = [Cell(variant.name), Cell(f"{len(variant.runs)}/{len(data.seeds)}")]
        for metric in (*good, *dear):
            verdict = compared.verdicts.get(metric.key)
            best = verdict is not None and verdict.supported and verdict.best == variant.name
            cells.append(_cell(metric, list(variant.values(metric.key).values()), best, interval=metric in good))
        rows.append(tuple(cells))
    several = len(data.seeds) > 1
    caption = f"{data.name}: " + (
        "mean ± standard deviation over seeds, with the 95 % interval of the mean." if several else "one seed."
    )
    columns = (Column("variant", text=True), Column("seeds"), *map(_column, (*good, *dear)))
    return Table(caption, columns, tuple(rows))


def _columns(data: DataSet) -> tuple[list[Metric], list[Metric]]:
    return quality(data.keys, classification=data.classification), cost(data.keys)


def _column(metric: Metric) -> Column:
    return Column(metric.label, metric.unit, metric.arrow)


def _cell(metric: Metric, values: Sequence[float], best: bool, *, interval: bool) -> Cell:
    if not values:
        return Cell(NOTHING)
    summary = summarise(values)
    value = metric.write(summary.mean)
    if summary.sd is None or (not interval and not summary.sd):
        return Cell(value, best=best)
    between = f"{metric.write(summary.low or 0.0)} to {metric.write(summary.high or 0.0)}" if interval else ""
    return Cell(value, f"± {metric.write(summary.sd)}", between, best)


def mode_table(data: DataSet) -> Table | None:
    """Each way of reading the same trained models, side by side; None where there is but one."""
    good, _ = _columns(data)
    rows = []
    for variant in data.variants:
        runs = list(variant.runs.values())
        for mode in modes(key for run in runs for key in run.metrics):
            selects = any(run.metrics.get("test_mode") == mode for run in runs)
            cells = [Cell(variant.name), Cell(mode, "(selects the checkpoint)" if selects else "")]
            for metric in good:
                key = f"test/{mode}/{metric.key.removeprefix('test/')}"
                cells.append(_cell(metric, list(variant.values(key).values()), False, interval=False))
            rows.append(tuple(cells))
    if not rows:
        return None
    columns = (Column("variant", text=True), Column("test mode", text=True), *map(_column, good))
    return Table(
        f"{data.name}: hard attention read in each test mode, mean ± standard deviation over seeds.",
        columns,
        tuple(rows),
    )


def outcome_table(outcomes: Sequence[Outcome], caption: str) -> Table | None:
    """Every test: what was compared, by how much they differ, and the p-values; None where there was none."""
    if not outcomes:
        return None
    columns = (
        Column("metric", text=True), Column("best", text=True), Column("compared with", text=True),
        Column("difference"), Column("test", text=True), Column("p, seed by seed"), Column("p"), Column("p corrected"),
        Column("difference supported", text=True),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(outcome.metric.label), Cell(outcome.best), Cell(outcome.other), Cell(_difference(outcome)),
            Cell(outcome.test), Cell(", ".join(map(p_number, outcome.by_seed)) or NOTHING),
            Cell(NOTHING if outcome.p is None else p_number(outcome.p)), Cell(p_number(outcome.corrected)),
            Cell("yes" if outcome.supported else "no"),
        )
        for outcome in outcomes
    )  # fmt: skip
    return Table(caption, columns, rows)


def _difference(outcome: Outcome) -> str:
    if not outcome.data:
        return f"{outcome.difference:+.0f} data sets"
    sign = "+" if outcome.difference > 0 else "−" if outcome.difference < 0 else ""
    return sign + outcome.metric.write(abs(outcome.difference))


def problems(comparison: Comparison) -> Table | None:
    """What is failed, missing or damaged; None where nothing is."""
    if not comparison.problems:
        return None
    rows = tuple((Cell(p.point), Cell(p.sentence)) for p in comparison.problems)
    columns = (Column("point", text=True), Column("what happened", text=True))
    return Table("Points, or parts of them, that are not in this report.", columns, rows)


def summary_csv(comparison: Comparison) -> str:
    """A row per data set, variant and metric: mean, sd, ci_low, ci_high, n; every number of metrics.json is in it."""
    lines: list[Sequence[object]] = [("data", "variant", "metric", "mean", "sd", "ci_low", "ci_high", "n")]
    for data in comparison.sets:
        for variant in data.variants:
            measured = {key: list(variant.values(key).values()) for key in data.keys}
            lines += [(data.name, variant.name, key, *_numbers(summarise(v))) for key, v in measured.items() if v]
    return _csv(lines)


def _numbers(summary: Summary) -> tuple[object, ...]:
    parts = (summary.mean, summary.sd, summary.low, summary.high)
    return (*("" if part is None else f"{part:.10g}" for part in parts), summary.n)


def tests_csv(outcomes: Iterable[Outcome]) -> str:
    """A row a test; `p_by_seed` lists the seeds' p-values as SEED:P."""
    lines: list[Sequence[object]] = [
        ("data", "metric", "test", "best", "other", "difference", "p_by_seed", "p", "p_corrected", "pairs", "supported")
    ]
    for o in outcomes:
        by_seed = " ".join(f"{seed}:{p:.6g}" for seed, p in zip(o.seeds, o.by_seed, strict=bool(o.by_seed)))
        lines.append(
            (
                o.data or "all", o.metric.key, o.test, o.best, o.other, f"{o.difference:.10g}", by_seed,
                "" if o.p is None else f"{o.p:.6g}", f"{o.corrected:.6g}", o.pairs, "yes" if o.supported else "no",
            )
        )  # fmt: skip
    return _csv(lines)


def _csv(lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
