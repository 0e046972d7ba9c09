"""The statistics of a comparison, each by its published name.

scipy and sacrebleu are imported where they are used, so that mistakes are told before they are waited for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np

LEVEL = 0.05
"""A corrected p below this supports a difference."""
LEAST_RESAMPLES = 1000


@dataclass(frozen=True)
class Summary:
    """Values over seeds: mean, standard deviation (n - 1), 95 % interval of the mean; of one seed, the mean."""

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    n: int


def summarise(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and Student's t interval, mean ± t(0.975, n - 1) sd / √n, of one value or more."""
    centre, n = mean(values), len(values)
    if n == 1:
        return Summary(centre, None, None, None, n)
    from scipy.special import stdtrit

    spread = stdev(values)
    half = float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n)
    return Summary(centre, spread, centre - half, centre + half, n)


def holm(p_values: Sequence[float], comparisons: int | None = None) -> list[float]:
    """Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure": corrected p-values, in the order given.

    comparisons: how many there are in the family, if more than were tested. Those not tested count as p = 1, so that
    the correction holds for all of them.
    """
    count = len(p_values) if comparisons is None else comparisons
    if count < len(p_values):
        raise ValueError(f"A family of {count} comparisons cannot hold {len(p_values)} p-values.")
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (count - rank) * p_values[index]))
        corrected[index] = least
    return corrected


def over_seeds(differences: Sequence[float], p_values: Sequence[float]) -> float:
    """One p-value for the claim that a variant is better with every seed: the largest of the seeds'.

    Berger 1982, "Multiparameter Hypothesis Testing and Acceptance Sampling": a claim that is a conjunction is rejected
    where each of its parts is, and needs no correction. The seeds share their test sentences, so that their p-values
    depend on each other; a maximum is sound all the same. Where seeds disagree on which is better, it is 1.
    """
    signs = {math.copysign(1, difference) for difference in differences if difference}
    return max(p_values) if len(signs) == 1 else 1.0


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """McNemar's exact test (1947): do two systems differ in how many of the same items they get right?

    The two-sided binomial probability of how the items on which just one of them is right fall to the two.
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    return sign_test(only_first, only_second)


def sign_test(wins: int, losses: int) -> float:
    """The two-sided sign test; ties are left out beforehand. 1 where nothing is left."""
    if not wins + losses:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue)


def games_howell(first: Sequence[float], second: Sequence[float], groups: int) -> float | None:
    """Games and Howell 1976: do the means of two of several groups of seeds differ, their variances unequal?

    Welch's t with his degrees of freedom, referred to the studentized range of `groups` means, and so corrected for
    all pairs of groups, the best one picked by looking included. For two groups it is Welch's t-test.

    Returns:
        the corrected two-sided p; None where it is not defined: a group with one seed, or two that do not vary.
    """
    if min(len(first), len(second)) < 2:
        return None
    errors = [stdev(values) ** 2 / len(values) for values in (first, second)]
    if not sum(errors):
        return None
    from scipy.stats import studentized_range

    freedom = sum(errors) ** 2 / sum(
        error**2 / (len(values) - 1) for error, values in zip(errors, (first, second), strict=True)
    )
    t = abs(mean(first) - mean(second)) / math.sqrt(sum(errors))
    return float(min(1.0, max(0.0, studentized_range.sf(t * math.sqrt(2), groups, freedom))))


def resamples(pairs: int) -> int:
    """How many resamples or trials: 1,000, or more where the least p that they give, corrected, would be too large."""
    return max(LEAST_RESAMPLES, math.ceil(1.25 * pairs / LEVEL))


@dataclass(frozen=True)
class TextTests:
    """Outcome for several systems on the same sentences, the first of them the one that the others are compared with.

    Attributes:
        scores: of every system.
        bootstrap: p of each system after the first, by paired bootstrap resampling.
        randomisation: the same by approximate randomisation.
        signature: sacrebleu's, of the scores and the resampling.
    """

    scores: list[float]
    bootstrap: list[float]
    randomisation: list[float]
    signature: str


def text_tests(
    metric: str, systems: Sequence[Sequence[str]], references: Sequence[str], trials: int, lowercase: bool = False
) -> TextTests:
    """Paired bootstrap resampling and approximate randomisation of sacrebleu, the first system against each other.

    Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation"; Riezler and Maxwell 2005, "On Some
    Pitfalls in Automatic Evaluation and Significance Testing for MT". The null hypothesis is about these outputs: that
    two trained models are equally good on sentences like these. What another seed would give it does not know.

    sacrebleu counts the shuffles that differ by more than the systems do, and not those that differ by as much. Where
    few outputs differ most shuffles tie, and equal systems would seem to differ; so a p lies no lower than 2^(1-d), the
    least that an exact test can give when d outputs differ.

    Args:
        metric: bleu or chrf.
        systems: each with an output a sentence.
        references: one a sentence.
        trials: resamples and shuffles.
        lowercase: BLEU without regard to case.
    """
    from sacrebleu.metrics import BLEU, CHRF
    from sacrebleu.significance import PairedTest

    outputs = [list(system) for system in systems]
    floor = [_least_p(outputs[0], other) for other in outputs[1:]]
    scorer = BLEU(lowercase=lowercase) if metric == "bleu" else CHRF()
    remember(scorer)
    named = [(str(number), texts) for number, texts in enumerate(outputs)]
    p_values: dict[str, list[float]] = {}
    scores: list[float] = []
    signature: Any = None
    for kind in ("bs", "ar"):
        signatures, found = PairedTest(named, {metric: scorer}, [list(references)], kind, n_samples=trials)()
        ((name, its),) = signatures.items()
        signature = signature or its
        results = found[name]
        scores = [float(result.score) for result in results]
        p_values[kind] = [max(low, float(result.p_value)) for low, result in zip(floor, results[1:], strict=True)]
    signature.update("ar", trials)  # it names the resamples already
    return TextTests(scores, p_values["bs"], p_values["ar"], f"{name}|{signature}")


def _least_p(first: Sequence[str], second: Sequence[str]) -> float:
    differing = sum(a != b for a, b in zip(first, second, strict=True))
    return min(1.0, 2.0 ** (1 - differing))


def remember(scorer: object) -> None:
    """Lets a sacrebleu metric extract the statistics of a list of outputs once, however often it is asked to.

    They are kept as numbers that a matrix product is fast with, which hold the same counts exactly. Should sacrebleu
    rename what is wrapped here, its tests are slower and no different.
    """
    extract = getattr(scorer, "_extract_corpus_statistics", None)
    if extract is None:
        return
    known: dict[int, tuple[object, object]] = {}

    def extracted(hypotheses: Sequence[str], references: object) -> object:
        if id(hypotheses) not in known:  # the list is kept beside its statistics, so that its id stays its own
            known[id(hypotheses)] = hypotheses, np.asarray(extract(hypotheses, references), dtype=np.float64)
        return known[id(hypotheses)][1]

    scorer._extract_corpus_statistics = extracted  # type: ignore[attr-defined]
