"""The report itself: everything that is read, tested and drawn, put together and written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from attnlab.files import write_bytes, write_text
from attnlab.report import figures, methods, page, tables
from attnlab.report.compare import Compared, Outcome, compare, sign_tests
from attnlab.report.figures import Drawn
from attnlab.report.maps import Example, examples
from attnlab.report.metrics import ACCURACY, AER, BLEU, ENTROPY, EXACT_MATCH, INSIDE, PARAMETERS, SECONDS, Metric
from attnlab.report.points import Comparison, DataSet, load
from attnlab.report.read import Problem
from attnlab.report.tables import Table
from attnlab.report.texts import Sample, by_length, samples

_MAPS_DRAWN = 3  # of the examples in the page, as figures too


@dataclass(frozen=True)
class Section:
    """What a report holds on one data set.

    Attributes:
        name: of the data set.
        results, modes, tests: its tables; None where there is nothing to show.
        verdicts: what may be said, a sentence a metric.
        figures: all but the attention maps.
        maps: the attention maps as figures.
        examples: the same and more, for the explorer.
        samples: predictions side by side.
        samples_note: which those are.
    """

    name: str
    results: Table
    modes: Table | None
    tests: Table | None
    verdicts: tuple[str, ...]
    figures: tuple[Drawn, ...]
    maps: tuple[Drawn, ...]
    examples: tuple[Example, ...]
    samples: tuple[Sample, ...]
    samples_note: str


@dataclass(frozen=True)
class Report:
    """All that the pages are made from."""

    title: str
    lead: tuple[str, ...]
    problems: Table | None
    sections: tuple[Section, ...]
    across: Table | None
    methods: tuple[tuple[str, str], ...]
    versions: str


@dataclass(frozen=True)
class Written:
    """What came of it: the folder that was written, and what is not in the report."""

    out: Path
    problems: tuple[Problem, ...]
    points: int
    finished: int


def write_report(
    folder: Path, out: Path | None = None, asked: Mapping[Path, Sequence[Sequence[str]]] | None = None
) -> Written:
    """Compares the runs of a folder and writes report.html, report.md, tables.tex, summary.csv, tests.csv and figures/.

    Args:
        folder: with run directories anywhere below it.
        out: where to write; by default beside the folder, under its name with `-report`.
        asked: by the folder of each sweep in it, the points that it asked for: the overrides that tell them apart.

    Raises:
        UserError: if there is nothing to report, or if it cannot be written.
    """
    comparison = load(folder, asked)
    if out is None:
        place = folder.resolve()
        out = place.with_name(f"{place.name}-report")
    compared = [compare(data) for data in comparison.sets]
    drawn = [examples(data) for data in comparison.sets]
    more = [problem for found in compared for problem in found.problems]
    more += [problem for _, problems in drawn for problem in problems]
    comparison = replace(comparison, problems=(*comparison.problems, *more))
    across = sign_tests(comparison)
    outcomes = [*(outcome for found in compared for outcome in found.outcomes), *across]
    look = figures.looks(comparison.names)
    several = len(comparison.sets) > 1
    sections = [
        _section(data, found, its, look, f"{_slug(data.name, place)}-" if several else "")
        for place, (data, found, (its, _)) in enumerate(zip(comparison.sets, compared, drawn, strict=True))
    ]
    _write(out, comparison, compared, outcomes, across, sections)
    return Written(out, comparison.problems, comparison.points, comparison.finished)


def _write(
    out: Path,
    comparison: Comparison,
    compared: Sequence[Compared],
    outcomes: Sequence[Outcome],
    across: Sequence[Outcome],
    sections: Sequence[Section],
) -> None:
    signatures = dict.fromkeys(signature for found in compared for signature in found.signatures)
    report = Report(
        comparison.title,
        tuple(methods.lead(comparison, compared, outcomes)),
        tables.problems(comparison),
        tuple(sections),
        tables.outcome_table(across, "Sign tests over data sets."),
        tuple(methods.methods(outcomes, signatures)),
        methods.versions(),
    )
    for section in sections:
        for figure in (*section.figures, *section.maps):
            write_bytes(out / "figures" / f"{figure.name}.png", figure.png)
            write_bytes(out / "figures" / f"{figure.name}.svg", figure.svg)
    write_text(out / "summary.csv", tables.summary_csv(comparison))
    write_text(out / "tests.csv", tables.tests_csv(outcomes))
    write_text(out / "tables.tex", page.latex(report))
    write_text(out / "report.md", page.markdown(report))
    write_text(out / "report.html", page.html(report))


def _slug(name: str, place: int) -> str:
    kept = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in name.lower())
    return f"{place + 1}-{kept.strip('-')}"


def _section(
    data: DataSet, found: Compared, its: Sequence[Example], look: dict[str, dict[str, object]], prefix: str
) -> Section:
    shown, note = samples(data, found.rows)
    maps = [
        figures.draw(
            f"{prefix}attention-{number}",
            f"Attention of each variant on “{example.title}”"
            + ("; dark is heavy." if example.path is None else "; bright is heavy."),
            figures.maps(example),
        )
        for number, example in enumerate(its[:_MAPS_DRAWN], 1)
    ]
    return Section(
        data.name,
        tables.results(data, found),
        tables.mode_table(data),
        tables.outcome_table(found.outcomes, f"{data.name}: every test that was made."),
        tuple(verdict.sentence for verdict in found.verdicts.values()),
        tuple(_figures(data, found, look, prefix)),
        tuple(maps),
        tuple(its),
        tuple(shown),
        note,
    )


def _main_metric(data: DataSet) -> Metric:
    """The one that curves and costs are drawn for: what checkpoints were selected by, where the report knows it."""
    names = {str(run.metrics.get("selected_by")) for run in data.runs}
    known = (ACCURACY,) if data.classification else (BLEU, EXACT_MATCH)
    chosen = [metric for metric in known if metric.key.replace("test/", "val/") in names and metric.key in data.keys]
    return (chosen or [metric for metric in known if metric.key in data.keys] or [known[0]])[0]


def _figures(data: DataSet, found: Compared, look: dict[str, dict[str, object]], prefix: str) -> Iterator[Drawn]:
    main = _main_metric(data)
    dots = "a dot a seed, the mean, and its 95 % interval"
    band = "mean over seeds, with a band of one standard deviation"
    validated = main.key.replace("test/", "val/")
    planned = [
        ("quality", f"{main.title} on the test set: {dots}.", figures.by_variant(data, main, look)),
        (
            "curves-quality",
            f"Learning curves, {main.label} on the validation set: {band}.",
            figures.curves(data, validated, f"validation {main.label}", look),
        ),
        (
            "curves-loss",
            f"Learning curves, loss on the validation set: {band}.",
            figures.curves(data, "val/loss", "validation loss, nats", look),
        ),
        (
            "cost-time",
            f"Quality against cost: {main.label} and training time, means over seeds, a standard deviation each way.",
            figures.trade(data, main, SECONDS, look),
        ),
    ]
    if len({run.metrics.get("params") for run in data.runs}) > 1:
        planned.append(
            (
                "cost-parameters",
                f"Quality against cost: {main.label} and parameters.",
                figures.trade(data, main, PARAMETERS, look),
            )
        )
    planned += [
        ("entropy", f"Entropy of the attention, in nats: {dots}.", figures.by_variant(data, ENTROPY, look)),
        (
            "alignment-error",
            f"Alignment error rate of the heaviest source word, 0 is best: {dots}.",
            figures.by_variant(data, AER, look),
        ),
        (
            "attention-inside",
            f"Share of the attention that lies on the object, in percent: {dots}.",
            figures.by_variant(data, INSIDE, look),
        ),
    ]
    lengths = by_length(data, found.rows)
    if lengths is not None and len(lengths.labels) > 1:
        for which, label in (("exact", "exact match, %"), ("chrf", "chrF")):
            planned.append(
                (
                    f"length-{which}",
                    f"Accuracy by source length, {label}: {band}.",
                    figures.lengths(lengths, which, label, look),
                )
            )
    for name, caption, figure in planned:
        if figure is not None:
            yield figures.draw(prefix + name, caption, figure)
