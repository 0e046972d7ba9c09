"""Does the attention align words as people do?

Attention weights become word links, which are compared with hand-made alignments by the alignment error rate
of Och & Ney 2003, "A Systematic Comparison of Various Statistical Alignment Models".

A link is a pair (i, j): source word i and target word j, both counted from 0.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Link = tuple[int, int]
Links = Collection[Link]


@dataclass(frozen=True)
class AlignmentScores:
    """Och & Ney 2003, over a corpus (counts are summed before they are divided). Fractions, 0 to 1.

    What nothing defines is NaN: precision without a hypothesised link, recall without a sure one, aer with
    neither.
    """

    aer: float
    """1 - (|A∩S| + |A∩P|) / (|A| + |S|); 0 is best."""
    precision: float
    """|A∩P| / |A|"""
    recall: float
    """|A∩S| / |S|"""


def word_weights(
    weights: Tensor, source_words: Sequence[int], target_words: Sequence[int], n_source: int, n_target: int
) -> Tensor:
    """Attention between words from attention between tokens.

    weights: [T, S], the attention of each target token over the source tokens.
    source_words [S], target_words [T]: the word that each token belongs to, or -1 for a token of no word (end
    of sentence, padding, a space). Returns [n_target, n_source] on the CPU, detached.

    Attention to a word is attention to any of its tokens, so the source's tokens are summed; attention from a
    word is that of its tokens on average, so the target's are averaged (Koehn & Knowles 2017, "Six Challenges
    for Neural Machine Translation", §3.5). Tokens of no word are left out and nothing is renormalised: a row
    sums to less than 1 by what went to them. A word without tokens gets zeros. Raises ValueError where shapes
    or words do not fit.
    """
    if tuple(weights.shape) != (len(target_words), len(source_words)):
        raise ValueError(
            f"The weights have the shape {tuple(weights.shape)}, but there are {len(target_words)} "
            f"target and {len(source_words)} source tokens."
        )
    source = _word_indices("source", source_words, n_source)
    target = _word_indices("target", target_words, n_target)
    # Small tables: on the CPU, where index_add_ repeats bit for bit, and never in half precision.
    weights = weights.detach().cpu()
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))

    inner = weights[target >= 0][:, source >= 0]
    source, target = source[source >= 0], target[target >= 0]
    to_words = inner.new_zeros(len(inner), n_source).index_add_(1, source, inner)
    sums = inner.new_zeros(n_target, n_source).index_add_(0, target, to_words)
    tokens = torch.bincount(target, minlength=n_target).clamp(min=1)
    return sums / tokens.unsqueeze(-1)


def _word_indices(side: str, words: Sequence[int], n_words: int) -> Tensor:
    indices = torch.as_tensor(words, dtype=torch.long).cpu()
    if len(indices) and (int(indices.min()) < -1 or int(indices.max()) >= n_words):
        raise ValueError(
            f"A {side} token belongs to a word from 0 to {n_words - 1}, or to none (-1); "
            f"found {int(indices.min())} to {int(indices.max())}."
        )
    return indices


def argmax_links(word_weights: Tensor) -> set[Link]:
    """Each target word's link to the source word that it attends to most.

    word_weights: [n_target, n_source]. Of equal weights the first source word wins. A target word without any
    weight (a row of zeros, or no source words) yields no link. Raises ValueError where a weight is NaN.
    """
    if word_weights.isnan().any():
        raise ValueError("The attention weights hold NaN, so that no link can be read from them.")
    if word_weights.numel() == 0:
        return set()
    rows = word_weights.detach().float().cpu().numpy()  # numpy promises the first of equals, torch does not
    return {(int(row.argmax()), j) for j, row in enumerate(rows) if row.max() > 0}


def alignment_error_rate(
    hypotheses: Sequence[Links], sure: Sequence[Links], possible: Sequence[Links]
) -> AlignmentScores:
    """AER, precision and recall of the links of N sentence pairs (Och & Ney 2003).

    A: hypothesised, S: sure, P: possible links. P includes S by definition, and the sure links are added to
    it here, so gold files that list the two kinds apart need no preparation. Raises ValueError where the
    lists differ in length.
    """
    if not len(hypotheses) == len(sure) == len(possible):
        raise ValueError(
            f"Every sentence pair needs its hypothesised, sure and possible links; there are "
            f"{len(hypotheses)}, {len(sure)} and {len(possible)}."
        )
    n_links = n_sure = hits_sure = hits_possible = 0
    for links, sure_links, possible_links in zip(hypotheses, sure, possible, strict=True):
        a, s = set(links), set(sure_links)
        p = s | set(possible_links)
        n_links += len(a)
        n_sure += len(s)
        hits_sure += len(a & s)
        hits_possible += len(a & p)
    return AlignmentScores(
        aer=1 - _ratio(hits_sure + hits_possible, n_links + n_sure),
        precision=_ratio(hits_possible, n_links),
        recall=_ratio(hits_sure, n_sure),
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def shift_profile(
    hypotheses: Sequence[Links],
    sure: Sequence[Links],
    possible: Sequence[Links],
    shifts: Sequence[int] = (-2, -1, 0, 1, 2),
) -> dict[int, float]:
    """The AER when every link (i, j) is moved to (i + shift, j), for each shift.

    Attention over a recurrent or bidirectional encoder looks at states, not at words: a neighbour's state may
    hold the word's information, and the model may learn an alignment that is right but displaced (Koehn &
    Knowles 2017, §3.5, found one by a word). A minimum away from 0 says so: at -1, the attention looks one
    word too far to the right.

    The profile stands beside the AER and does not mend it: the rate to report is that of shift 0. A link that
    leaves the sentence stays in the count and is wrong, so every shift is judged on the same number of links.
    """
    return {
        shift: alignment_error_rate([{(i + shift, j) for i, j in links} for links in hypotheses], sure, possible).aer
        for shift in shifts
    }


def entropy(weights: Tensor) -> Tensor:
    """Shannon entropy of attention: [..., S] -> [...], in nats, from 0 (one position) to log S (uniform).

    H = -Σ_j α_j log α_j with 0 log 0 = 0, in single precision or better. A measure, not a penalty to train
    with: its gradient is infinite where a weight is 0.
    """
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
    return torch.special.entr(weights).sum(-1)
