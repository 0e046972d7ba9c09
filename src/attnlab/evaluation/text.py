"""How close generated text is to its references.

BLEU and chrF are sacreBLEU's (Post 2018, "A Call for Clarity in Reporting BLEU Scores"), on detokenized text,
and each score travels with its signature: a BLEU without one cannot be compared with anybody else's.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TextScores:
    """Scores of a corpus of N hypotheses, with one reference each."""

    bleu: float
    """Corpus BLEU (Papineni et al. 2002), 0 to 100."""
    bleu_signature: str
    """sacreBLEU's record of how BLEU was computed: case, tokenizer, smoothing, version."""
    chrf: float
    """Corpus chrF (Popović 2015; chrF2 with 6-grams of characters), 0 to 100."""
    chrf_signature: str
    """sacreBLEU's record of how chrF was computed."""
    exact_match: float
    """Percent of the hypotheses that equal their reference, character for character."""
    edit_distance: float
    """Mean Levenshtein distance of a sentence to its reference, in characters."""


def corpus_scores(hypotheses: Sequence[str], references: Sequence[str], *, lowercase: bool = False) -> TextScores:
    """Score N detokenized hypotheses against N references.

    lowercase makes BLEU ignore case, as `sacrebleu -lc` does, and the signature says so; the other three
    measures always heed it. An empty hypothesis is scored like any other. Nothing is normalised: text that
    may come in composed and decomposed Unicode has to be brought to one form first.

    Raises ValueError where the two lists differ in length or are empty, TypeError where one is a single
    string.
    """
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise TypeError("Hypotheses and references are lists of sentences, not one string.")
    if len(hypotheses) != len(references):
        raise ValueError(
            f"Every hypothesis needs its reference: there are {len(hypotheses)} hypotheses and "
            f"{len(references)} references."
        )
    if not hypotheses:
        raise ValueError("There is nothing to score: the list of hypotheses is empty.")

    from sacrebleu.metrics import BLEU, CHRF  # heavy, and of use only here

    hypotheses, references = list(hypotheses), list(references)
    bleu, chrf = BLEU(lowercase=lowercase), CHRF()
    bleu_score = bleu.corpus_score(hypotheses, [references]).score
    chrf_score = chrf.corpus_score(hypotheses, [references]).score
    pairs = list(zip(hypotheses, references, strict=True))
    return TextScores(
        bleu=float(bleu_score),
        bleu_signature=str(bleu.get_signature()),
        chrf=float(chrf_score),
        chrf_signature=str(chrf.get_signature()),
        exact_match=100 * sum(hypothesis == reference for hypothesis, reference in pairs) / len(pairs),
        edit_distance=sum(levenshtein(hypothesis, reference) for hypothesis, reference in pairs) / len(pairs),
    )


def levenshtein(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """The least number of insertions, deletions and substitutions that turn `a` into `b`.

    The items are characters where `a` and `b` are strings, else whatever they list (phonemes, words).

    Myers 1999, "A Fast Bit-Vector Algorithm for Approximate String Matching", in the form of Hyyrö 2003 for
    whole strings. Neighbours in a column of the distance table differ by +1, 0 or -1, so that a column is two
    bit vectors, one bit an item of `a`; Python's integers have as many bits as it takes, and a step is a
    dozen operations.
    """
    if not a:
        return len(b)
    full, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    occurs: dict[Hashable, int] = {}  # item -> the positions of `a` that hold it
    for position, item in enumerate(a):
        occurs[item] = occurs.get(item, 0) | 1 << position

    distance = len(a)
    up, down = full, 0  # vertical differences +1 and -1; the first column counts 0, 1, 2, ...
    for item in b:
        match = occurs.get(item, 0)
        diagonal = (((match & up) + up) ^ up) | match
        right_up = down | ~(diagonal | up)  # horizontal differences +1 and -1
        right_down = up & diagonal
        if right_up & last:
            distance += 1
        elif right_down & last:
            distance -= 1
        right_up = right_up << 1 | 1  # the first row counts 0, 1, 2, ... too
        right_down <<= 1
        step = match | down
        up = (right_down | ~(step | right_up)) & full
        down = right_up & step & full
    return distance
