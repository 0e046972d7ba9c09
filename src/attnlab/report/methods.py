"""What a report says of itself: what was compared, by which tests, and what they can and cannot say."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version

from attnlab.report.compare import BOOTSTRAP, MCNEMAR, RANDOMISATION, SEEDS, SIGN, Compared, Outcome
from attnlab.report.points import Comparison, DataSet
from attnlab.report.stats import LEVEL

_TESTS = {
    BOOTSTRAP: (
        "Koehn 2004, sacreBLEU's own: are the two models' outputs equally good on sentences like these? Seed by seed."
    ),
    RANDOMISATION: (
        "Riezler and Maxwell 2005, sacreBLEU's own: would swapping outputs between the two models at random give as "
        "large a difference? Seed by seed. As sacreBLEU leaves ties out, p is never taken to be lower than 2^(1−d), "
        "where d outputs differ."
    ),
    MCNEMAR: (
        "On which items is just one of the two models right, and does one win more of them? Exact, two-sided, seed by "
        "seed."
    ),
    SEEDS: (
        "Do the means over seeds differ, their variances unequal? Welch's t referred to the studentized range, which "
        "corrects for all pairs of variants. It takes the test set as it is."
    ),
    SIGN: (
        "On how many data sets is one variant's mean better than the other's? Exact and two-sided (Demšar 2006); it "
        "takes six data sets or more to support anything."
    ),
}
_PAIRS = (
    "For each metric every variant is compared with the one of the best mean. Since that one is chosen by looking at "
    "the same numbers, p-values are corrected for all pairs of variants: by Holm's method within each test, metric and "
    "data set, the pairs that were not tested counted as p = 1."
)
_SEVERAL_SEEDS = (
    "Seeds of two variants are paired by number and never pooled, as they share their test sentences. A test of "
    "sentences or images has to hold with every seed: its p is the largest of the seeds', and 1 where they disagree on "
    "which variant is better. Whether another seed would turn the outcome the test over seeds asks."
)
_NOT_TESTED = (
    "Parameters, speed, time and memory are given as they are; entropy is neither good nor bad. None is marked."
)
_INTERVALS = (
    "95 % intervals are Student's, of the mean over seeds: they say how far the seeds spread, on this test set."
)
_ONE_SEED = (
    "With one seed, tests speak of these trained models, not of the variants: another seed may turn the outcome."
)


def lead(comparison: Comparison, compared: Sequence[Compared], outcomes: Sequence[Outcome]) -> list[str]:
    """The first sentences: what was compared, the seeds, the points, the tests, and when a value is marked."""
    sentences = [_compared(data, found) for data, found in zip(comparison.sets, compared, strict=True)]
    if comparison.finished < comparison.points:
        sentences.append(
            f"{comparison.finished} of {comparison.points} points are in the report; the others are listed below."
        )
    else:
        damaged = " What is doubtful or damaged in them is listed below." if comparison.problems else ""
        sentences.append(f"All {comparison.points} points are in the report.{damaged}")
    used = list(dict.fromkeys(outcome.test for outcome in outcomes))
    if not used:
        return [*sentences, "No test applies, so that no value is marked as the best."]
    sentences += [
        f"Tests: {_listed(used)}; corrected for all pairs of variants.",
        "A value is marked as the best only where every test that applies separates it from that of every other "
        f"variant (corrected p < {LEVEL}).",
    ]
    return sentences + [_ONE_SEED] * any(len(data.seeds) == 1 for data in comparison.sets)


def _compared(data: DataSet, found: Compared) -> str:
    """What was compared on one data set."""
    variants = "1 variant" if len(data.variants) == 1 else f"{len(data.variants)} variants"
    rows = next((len(rows) for by_seed in found.rows.values() for rows in by_seed.values()), 0)
    tested = f" ({rows:,} test {'images' if data.classification else 'sentences'})" if rows else ""
    seeds = "seed" if len(data.seeds) == 1 else f"{len(data.seeds)} seeds:"
    names = _listed([variant.name for variant in data.variants])
    return f"{variants} on {data.name}{tested}: {names}; {seeds} {_listed(map(str, data.seeds))}."


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def methods(outcomes: Sequence[Outcome], signatures: Iterable[str]) -> list[tuple[str, str]]:
    """Each test that was used, and how tests become marks: (name, text) each."""
    used = list(dict.fromkeys(outcome.test for outcome in outcomes))
    found = [(test[0].upper() + test[1:], _TESTS[test]) for test in used]
    if used:
        found += [("Pairs", _PAIRS), ("Several seeds", _SEVERAL_SEEDS), ("Not tested", _NOT_TESTED)]
    return [*found, ("Intervals", _INTERVALS), *(("sacreBLEU", signature) for signature in signatures)]


def versions() -> str:
    """What wrote the report."""
    return f"attnlab {version('attnlab')}, sacrebleu {version('sacrebleu')}, scipy {version('scipy')}"
