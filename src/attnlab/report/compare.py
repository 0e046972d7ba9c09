"""Which tests apply to what, and what they allow to be said.

Each variant is compared with the one whose mean over seeds is best, metric by metric. Since that one is picked by
looking at the same numbers, every correction is for all pairs of variants and not only for those that are tested.

Two things can deceive: the test sentences, and the seeds. Tests over sentences compare the outputs of two trained
models, seed by seed; with several seeds a difference needs every one of them (`stats.over_seeds`). Sentences of several
seeds are never pooled, for they are the same sentences. What they cannot see, that another seed might turn the outcome,
a test over the seeds' scores sees (`stats.games_howell`). A difference is supported where every test that applies says
so.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean
from typing import Any

from attnlab.report.metrics import Metric, quality
from attnlab.report.parallel import side_by_side
from attnlab.report.points import Comparison, DataSet, Variant
from attnlab.report.read import Problem
from attnlab.report.stats import (
    LEVEL,
    games_howell,
    holm,
    mcnemar,
    over_seeds,
    resamples,
    sign_test,
    text_tests,
)

BOOTSTRAP = "paired bootstrap resampling"
RANDOMISATION = "approximate randomisation"
MCNEMAR = "McNemar's exact test"
SEEDS = "Games-Howell test over seeds"
SIGN = "sign test over data sets"

_TEXT = {"test/bleu": "bleu", "test/chrf": "chrf"}
_TOLERANCE = 0.05
"""By how much a score may differ between predictions.jsonl and metrics.json: versions of sacrebleu differ."""

Rows = dict[str, dict[int, tuple[dict[str, Any], ...]]]
"""Predictions by variant and seed."""


@dataclass(frozen=True)
class Outcome:
    """One test of one pair of variants.

    Attributes:
        data: the data set; empty for a test over data sets.
        metric: what is compared.
        test: its name.
        best: the variant with the best mean.
        other: the one that is compared with it.
        seeds: the seeds that were compared.
        difference: of the means over all seeds, best minus other, in the metric's unit; over data sets, the wins minus
            the losses.
        by_seed: p-values by seed, where the test is of sentences or images.
        p: of all seeds together; None where the test corrects by itself.
        corrected: for all pairs of variants.
        pairs: how many these are.
    """

    data: str
    metric: Metric
    test: str
    best: str
    other: str
    seeds: tuple[int, ...]
    difference: float
    by_seed: tuple[float, ...]
    p: float | None
    corrected: float
    pairs: int

    @property
    def supported(self) -> bool:
        """Whether it supports a difference."""
        return self.corrected < LEVEL


@dataclass(frozen=True)
class Verdict:
    """What may be said of a metric on a data set.

    Attributes:
        metric: which.
        best: the variant with the best mean.
        supported: whether it is better than every other by every test that applies.
        sentence: the same in words, with what speaks against it.
    """

    metric: Metric
    best: str
    supported: bool
    sentence: str


@dataclass(frozen=True)
class Compared:
    """The outcomes and verdicts of a data set, and the predictions that they rest on.

    Attributes:
        outcomes: all tests.
        verdicts: by metric key.
        rows: the predictions of runs that were tested on the same sentences or images.
        problems: runs whose predictions are not what the others' are, or not what their metrics say.
        signatures: sacrebleu's.
    """

    outcomes: tuple[Outcome, ...]
    verdicts: dict[str, Verdict]
    rows: Rows
    problems: tuple[Problem, ...]
    signatures: tuple[str, ...]


def compare(data: DataSet) -> Compared:
    """Runs every test that applies to a data set."""
    rows, problems = same_rows(data)
    outcomes: list[Outcome] = []
    verdicts: dict[str, Verdict] = {}
    signatures: dict[str, None] = {}
    tested = [metric for metric in quality(data.keys, classification=data.classification) if metric.better]
    contests = [contest for metric in tested if (contest := _contest(data, metric)) is not None]
    texts = [] if data.classification else [contest for contest in contests if contest.metric.key in _TEXT]
    found = _text_outcomes(data, texts, rows, problems, signatures)
    for contest in contests:
        here = [*found.get(contest.metric.key, [])]
        if contest.metric.key == "test/accuracy":
            here += _mcnemar_outcomes(data, contest, rows)
        here += _seed_outcomes(data, contest)
        outcomes += here
        verdicts[contest.metric.key] = _verdict(contest, here, len(data.seeds))
    return Compared(tuple(outcomes), verdicts, rows, tuple(problems), tuple(signatures))


def same_rows(data: DataSet) -> tuple[Rows, list[Problem]]:
    """The predictions of the runs that were tested on what most were; a problem for each other run that has any."""
    runs = [
        (variant.name, seed, run) for variant in data.variants for seed, run in variant.runs.items() if run.predictions
    ]
    tested = {run.name: tuple(_tested_on(row) for row in run.predictions) for _, _, run in runs}
    if not tested:
        return {}, []
    standard = Counter(tested.values()).most_common(1)[0][0]
    rows: Rows = {}
    problems = []
    for name, seed, run in runs:
        if tested[run.name] == standard:
            rows.setdefault(name, {})[seed] = run.predictions
            continue
        count = f"{len(run.predictions):,} of them, and the others {len(standard):,}"
        problems.append(
            Problem(
                run.name,
                "damaged",
                "Left out of the tests and samples: its predictions.jsonl is not of the same test rows as the others' "
                f"(it has {count if len(run.predictions) != len(standard) else 'as many, with other texts'}).",
            )
        )
    return rows, problems


def _tested_on(row: dict[str, Any]) -> tuple[str, ...]:
    return (row["label"],) if "label" in row else (row["source"], row["reference"], *map(str, row.get("tags") or ()))


@dataclass(frozen=True)
class _Contest:
    """A metric that two variants or more have, the best of them, and the others."""

    metric: Metric
    best: Variant
    others: tuple[Variant, ...]

    @property
    def pairs(self) -> int:
        return len(self.others) * (len(self.others) + 1) // 2

    def difference(self, other: Variant) -> float:
        return mean(self.best.values(self.metric.key).values()) - mean(other.values(self.metric.key).values())


def _contest(data: DataSet, metric: Metric) -> _Contest | None:
    variants = [variant for variant in data.variants if variant.values(metric.key)]
    if len(variants) < 2:
        return None
    best = max(variants, key=lambda variant: metric.better * mean(variant.values(metric.key).values()))
    return _Contest(metric, best, tuple(variant for variant in variants if variant is not best))


def _text_outcomes(
    data: DataSet, contests: Sequence[_Contest], rows: Rows, problems: list[Problem], signatures: dict[str, None]
) -> dict[str, list[Outcome]]:
    """Both of sacrebleu's tests for each metric of text; seeds are independent pieces of work, done side by side."""
    jobs = []
    for contest in contests:
        for seed, of_best in sorted(rows.get(contest.best.name, {}).items()):
            others = [other for other in contest.others if seed in rows.get(other.name, {})]
            if others:
                texts = [[row["prediction"] for row in rows[v.name][seed]] for v in (contest.best, *others)]
                references = [row["reference"] for row in of_best]
                search = contest.best.runs[seed].config.get("search")
                lowercase = bool(isinstance(search, dict) and search.get("lowercase"))
                arguments = (_TEXT[contest.metric.key], texts, references, resamples(contest.pairs), lowercase)
                jobs.append((contest, seed, others, arguments))
    outputs = sum(len(texts) * len(references) for *_, (_, texts, references, *_) in jobs)
    results = side_by_side(text_tests, [arguments for *_, arguments in jobs], outputs)
    p_values: dict[tuple[str, str, str], dict[int, float]] = {}
    wins: dict[tuple[str, str], dict[int, float]] = {}
    for (contest, seed, others, _), found in zip(jobs, results, strict=True):
        key = contest.metric.key
        signatures[found.signature] = None
        for variant, score in zip((contest.best, *others), found.scores, strict=True):
            problems += _disagreement(variant, seed, contest.metric, score)
        for place, other in enumerate(others):
            wins.setdefault((key, other.name), {})[seed] = found.scores[0] - found.scores[place + 1]
            p_values.setdefault((key, BOOTSTRAP, other.name), {})[seed] = found.bootstrap[place]
            p_values.setdefault((key, RANDOMISATION, other.name), {})[seed] = found.randomisation[place]
    return {
        contest.metric.key: [
            outcome
            for test in (BOOTSTRAP, RANDOMISATION)
            for outcome in _by_seed(
                data,
                contest,
                test,
                {other.name: p_values.get((contest.metric.key, test, other.name), {}) for other in contest.others},
                {other.name: wins.get((contest.metric.key, other.name), {}) for other in contest.others},
            )
        ]
        for contest in contests
    }


def _disagreement(variant: Variant, seed: int, metric: Metric, score: float) -> list[Problem]:
    recorded = variant.values(metric.key).get(seed)
    if recorded is None or abs(recorded - score) <= _TOLERANCE:
        return []
    sentence = (
        f"Doubtful: its predictions.jsonl gives {metric.label} {score:.2f}, its metrics.json says {recorded:.2f}. "
        "The table holds the latter, the tests rest on the former."
    )
    return [Problem(variant.runs[seed].name, "damaged", sentence)]


def _mcnemar_outcomes(data: DataSet, contest: _Contest, rows: Rows) -> list[Outcome]:
    p_values: dict[str, dict[int, float]] = {}
    wins: dict[str, dict[int, float]] = {}
    for other in contest.others:
        for seed in sorted(set(rows.get(contest.best.name, {})) & set(rows.get(other.name, {}))):
            first, second = (correct(rows[variant.name][seed]) for variant in (contest.best, other))
            p_values.setdefault(other.name, {})[seed] = mcnemar(first, second)
            wins.setdefault(other.name, {})[seed] = float(sum(first) - sum(second))
    return _by_seed(data, contest, MCNEMAR, p_values, wins)


def correct(rows: Iterable[dict[str, Any]]) -> list[bool]:
    """Which rows are right: the class, or the whole text."""
    return [row["prediction"] == row["label" if "label" in row else "reference"] for row in rows]


def _by_seed(
    data: DataSet,
    contest: _Contest,
    test: str,
    p_values: dict[str, dict[int, float]],
    differences: dict[str, dict[int, float]],
) -> list[Outcome]:
    """The outcomes of a test of sentences or images: over seeds the largest p, then Holm's correction."""
    tested = [other for other in contest.others if p_values.get(other.name)]
    combined = []
    for other in tested:
        signed = list(differences[other.name].values())
        # that the other wins with every seed at hand is a claim too, and not the one made here
        combined.append(1.0 if sum(signed) < 0 else over_seeds(signed, list(p_values[other.name].values())))
    return [
        Outcome(
            data.name, contest.metric, test, contest.best.name, other.name, tuple(p_values[other.name]),
            contest.difference(other), tuple(p_values[other.name].values()), p, corrected, contest.pairs,
        )
        for other, p, corrected in zip(tested, combined, holm(combined, contest.pairs), strict=True)
    ]  # fmt: skip


def _seed_outcomes(data: DataSet, contest: _Contest) -> list[Outcome]:
    key, outcomes = contest.metric.key, []
    best = contest.best.values(key)
    for other in contest.others:
        values = other.values(key)
        corrected = games_howell(list(best.values()), list(values.values()), len(contest.others) + 1)
        if corrected is None:
            continue
        seeds = tuple(sorted(set(best) | set(values)))
        outcomes.append(
            Outcome(
                data.name, contest.metric, SEEDS, contest.best.name, other.name, seeds, contest.difference(other), (),
                None, corrected, contest.pairs,
            )
        )  # fmt: skip
    return outcomes


def _verdict(contest: _Contest, outcomes: Sequence[Outcome], seeds: int) -> Verdict:
    """The best is supported where every test that applies separates it from every other variant.

    With several seeds the test over seeds has to be among them, so that a variant of which a single seed is left cannot
    be judged.
    """
    unclear: list[str] = []
    for other in contest.others:
        here = [outcome for outcome in outcomes if outcome.other == other.name]
        if seeds > 1 and (single := _single(contest, other)):
            unclear.append(f"{other.name} ({single})")
        elif not here:
            unclear.append(f"{other.name} (no test applies)")
        elif not all(outcome.supported for outcome in here):
            worst = max(here, key=lambda outcome: outcome.corrected)
            unclear.append(f"{other.name} ({worst.test}: {p_phrase(worst.corrected)})")
    name, best = contest.metric.title, contest.best.name
    value = contest.metric.write(mean(contest.best.values(contest.metric.key).values()))
    extreme = "highest" if contest.metric.better > 0 else "lowest"
    if ties := [other.name for other in contest.others if not contest.difference(other)]:
        return Verdict(
            contest.metric, best, False, f"{name}: {', '.join([best, *ties])} share the {extreme} mean, {value}."
        )
    start = f"{name}: {best} has the {extreme} mean, {value}"
    if not unclear:
        highest = max(outcome.corrected for outcome in outcomes)
        sentence = (
            f"{start}, and every test separates it from every other variant (largest corrected {p_phrase(highest)})."
        )
    elif len(unclear) == len(contest.others):
        sentence = f"{start}; no other variant is told apart from it by every test: {', '.join(unclear)}."
    else:
        sentence = f"{start}; it is not told apart from {', '.join(unclear)}."
    return Verdict(contest.metric, best, not unclear, sentence)


def _single(contest: _Contest, other: Variant) -> str:
    """In words, that of one of two variants a single seed is left; empty where of neither."""
    if len(other.values(contest.metric.key)) < 2:
        return "a single seed is left"
    return f"a single seed of {contest.best.name} is left" if len(contest.best.values(contest.metric.key)) < 2 else ""


def p_number(p: float) -> str:
    """A p-value in a table."""
    if p < 0.001:
        return "< 0.001"
    if p > 0.9995:
        return "1"
    return f"{p:.4f}" if round(p, 3) == LEVEL else f"{p:.3f}"  # on which side of the level has to be seen


def p_phrase(p: float) -> str:
    """A p-value in a sentence."""
    return f"p {p_number(p)}" if p < 0.001 else f"p = {p_number(p)}"


def sign_tests(comparison: Comparison) -> list[Outcome]:
    """The sign test over data sets: does one variant win on more of them than chance would give it?

    Demšar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets", §3.1.3. A data set on which both have
    the same mean is left out. The variant that all others are compared with wins most pairwise contests. Empty for
    fewer than two data sets with the same variants.
    """
    outcomes = []
    metrics = {m.key: m for data in comparison.sets for m in quality(data.keys, classification=data.classification)}
    for metric in (metric for metric in metrics.values() if metric.better):
        means: dict[str, dict[str, float]] = {}
        for data in comparison.sets:
            for variant in data.variants:
                if values := variant.values(metric.key):
                    means.setdefault(variant.name, {})[data.name] = mean(values.values())
        contests = {pair: _wins(means, *pair, metric.better) for pair in combinations(means, 2)}
        contests = {pair: won for pair, won in contests.items() if sum(won) > 1}
        if not contests:
            continue
        total = Counter(dict.fromkeys(means, 0))
        for (first, second), (won, lost) in contests.items():
            total[first] += won - lost
            total[second] += lost - won
        best = total.most_common(1)[0][0]
        against = {}
        for (first, second), (won, lost) in contests.items():
            if best in (first, second):
                against[second if best == first else first] = (won, lost) if best == first else (lost, won)
        p_values = [sign_test(*counts) for counts in against.values()]
        pairs = len(means) * (len(means) - 1) // 2
        for (other, (won, lost)), p, corrected in zip(against.items(), p_values, holm(p_values, pairs), strict=True):
            outcomes.append(
                Outcome("", metric, SIGN, best, other, (), float(won - lost), (), p, corrected, pairs)
            )  # fmt: skip
    return outcomes


def _wins(means: dict[str, dict[str, float]], first: str, second: str, better: int) -> tuple[int, int]:
    """On how many data sets the first of two is better, and on how many the second."""
    shared = [name for name in means[first] if name in means[second]]
    differences = [better * (means[first][name] - means[second][name]) for name in shared]
    return sum(d > 0 for d in differences), sum(d < 0 for d in differences)
