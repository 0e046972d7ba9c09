"""Texts beside each other: which words differ, which sentences show it, and how well each length does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import mean
from typing import Any, Literal

from attnlab.report.compare import Rows, correct
from attnlab.report.parallel import side_by_side
from attnlab.report.points import DataSet

_BUCKETS = 6
SAMPLES = 8


@dataclass(frozen=True)
class Piece:
    """A stretch of a prediction, the same as in the reference or differing, or of the reference, missing in it."""

    text: str
    kind: Literal["same", "differs", "missing"]


def pieces(prediction: str, reference: str, *, by_words: bool) -> list[Piece]:
    """A prediction cut where it agrees with its reference and where it does not (the longest common blocks match)."""
    split: Callable[[str], list[str]] = str.split if by_words else list
    joint = " " if by_words else ""
    ours, theirs = split(prediction), split(reference)
    found = []
    for kind, a, b, c, d in SequenceMatcher(None, theirs, ours, autojunk=False).get_opcodes():
        if kind == "delete":
            found.append(Piece(joint.join(theirs[a:b]), "missing"))
        else:
            found.append(Piece(joint.join(ours[c:d]), "same" if kind == "equal" else "differs"))
    return found


def has_words(texts: Sequence[str]) -> bool:
    """Whether texts are of several words, rather than single words to be read by characters."""
    return sum(" " in text.strip() for text in texts) * 2 > len(texts)


@dataclass(frozen=True)
class Sample:
    """One test row and what each variant made of it.

    Attributes:
        number: of the row, from 1.
        source: the source; empty for an image.
        reference: the reference, or the true class.
        outputs: (variant, pieces) each.
    """

    number: int
    source: str
    reference: str
    outputs: tuple[tuple[str, tuple[Piece, ...]], ...]


def samples(data: DataSet, rows: Rows, count: int = SAMPLES) -> tuple[list[Sample], str]:
    """Test rows on which the variants differ, evenly spaced so that nobody picks, and a sentence that says so.

    Each variant speaks with its lowest seed.
    """
    chosen = {v.name: rows[v.name][min(rows[v.name])] for v in data.variants if rows.get(v.name)}
    if not chosen:
        return [], ""
    total = len(next(iter(chosen.values())))
    different = [i for i in range(total) if len({its[i]["prediction"] for its in chosen.values()}) > 1]
    pool = different or list(range(total))
    places = [pool[k * len(pool) // min(count, len(pool))] for k in range(min(count, len(pool)))]
    first = next(iter(chosen.values()))
    references = [row["label" if data.classification else "reference"] for row in first]
    by_words = data.classification or has_words(references)
    made = [
        Sample(
            place + 1,
            _source(first[place]),
            references[place],
            tuple(
                (n, _output(its[place]["prediction"], references[place], data, by_words)) for n, its in chosen.items()
            ),
        )
        for place in places
    ]
    kind = "images" if data.classification else "sentences"
    seeds = sorted({min(rows[name]) for name in chosen})
    told = "seed " + ", ".join(map(str, seeds))
    if len(chosen) == 1:
        return made, f"{len(made)} of {total:,} test {kind}, evenly spaced ({told})."
    if not different:
        return (
            made,
            f"All variants give the same output for each of {total:,} test {kind}; {len(made)} of them ({told}).",
        )
    return made, (
        f"The variants differ on {len(different):,} of {total:,} test {kind}; these are {len(made)} of them, "
        f"evenly spaced ({told})."
    )


def _source(row: dict[str, Any]) -> str:
    tags = row.get("tags")
    listed = ", ".join(map(str, tags)) if isinstance(tags, list) else str(tags or "")
    return " ".join(part for part in (row.get("source", ""), f"[{listed}]" if listed else "") if part)


def _output(prediction: str, reference: str, data: DataSet, by_words: bool) -> tuple[Piece, ...]:
    if data.classification:  # a class is right or wrong as a whole
        return (Piece(prediction, "same" if prediction == reference else "differs"),)
    return tuple(pieces(prediction, reference, by_words=by_words))


@dataclass(frozen=True)
class Lengths:
    """Quality by the length of the source.

    Attributes:
        unit: words or characters.
        labels: of the buckets (`4-6`), with about equally many sentences each.
        counts: sentences in each.
        exact: percent right by variant and seed, bucket by bucket.
        chrf: chrF in the same manner.
    """

    unit: str
    labels: list[str]
    counts: list[int]
    exact: dict[str, dict[int, list[float]]]
    chrf: dict[str, dict[int, list[float]]]


def by_length(data: DataSet, rows: Rows) -> Lengths | None:
    """Exact match and chrF of the sentences of like length; None without texts."""
    if data.classification or not rows:
        return None
    first = next(iter(next(iter(rows.values())).values()))
    sources = [row["source"] for row in first]
    by_words = has_words(sources)
    lengths = [len(source.split() if by_words else source) for source in sources]
    buckets = _buckets(lengths)
    members = [[i for i, length in enumerate(lengths) if low <= length <= high] for low, high in buckets]
    jobs = [(name, seed, its) for name, by_seed in rows.items() for seed, its in by_seed.items()]
    found: dict[str, dict[str, dict[int, list[float]]]] = {"exact": {}, "chrf": {}}
    scores = side_by_side(_chrf, [(its, members) for *_, its in jobs], len(jobs) * len(sources))
    for (name, seed, its), chrf in zip(jobs, scores, strict=True):
        right = correct(its)
        found["exact"].setdefault(name, {})[seed] = [100 * mean(right[i] for i in part) for part in members]
        found["chrf"].setdefault(name, {})[seed] = chrf
    labels = [str(low) if low == high else f"{low}–{high}" for low, high in buckets]
    return Lengths("words" if by_words else "characters", labels, list(map(len, members)), **found)


def _chrf(rows: Sequence[dict[str, Any]], parts: Sequence[Sequence[int]]) -> list[float]:
    """Of each part of the rows."""
    from sacrebleu.metrics import CHRF

    outputs, references = ([row[side] for row in rows] for side in ("prediction", "reference"))
    return [
        float(CHRF().corpus_score([outputs[i] for i in part], [[references[i] for i in part]]).score) for part in parts
    ]


def _buckets(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """At most six ranges of lengths, from one length to another that occurs, with about equally many sentences each."""
    ordered, total = sorted(lengths), len(lengths)
    ends = sorted({ordered[(k + 1) * total // _BUCKETS - 1] for k in range(_BUCKETS) if (k + 1) * total >= _BUCKETS})
    starts = [ordered[0], *(next(length for length in ordered if length > end) for end in ends[:-1])]
    return list(zip(starts, ends, strict=True))
