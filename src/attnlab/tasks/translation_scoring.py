"""Scoring a trained translator on a split: decoding, text metrics, alignment, entropy."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attnlab.data.translation import TranslationData
from attnlab.decoding import Hypothesis
from attnlab.evaluation.alignment import (
    alignment_error_rate,
    argmax_links,
    shift_profile,
    word_weights,
)
from attnlab.evaluation.text import corpus_scores
from attnlab.kernels.products import Packing
from attnlab.tasks.scoring import Outcome
from attnlab.tasks.translation import TranslationTask


@dataclass
class TranslationOutcome(Outcome):
    """The outcome on one split of translations.

    Attributes:
        hypotheses: what was decoded, in the split's order, with its attention weights.
    """

    hypotheses: list[Hypothesis] = field(default_factory=list)


def score(
    task: TranslationTask,
    data: TranslationData,
    split: str,
    *,
    beam: int = 1,
    alpha: float = 1.0,
    lowercase: bool = False,
) -> TranslationOutcome:
    """Scores one split in the model's own test mode.

    Metrics: `loss` (nats per target token), `bleu`, `chrf`, `accuracy` (exact match, percent), `edit_distance`
    (characters), `entropy` (of the attention, nats, mean over target tokens), `sentences_per_second`, and where the
    corpus has gold alignments `aer` and its companions.

    Args:
        beam: beam width; 1 is greedy.
        alpha: length penalty.
        lowercase: score BLEU without regard to case, as `sacrebleu -lc`.
    """
    task.eval()
    rows = data.splits[split]
    hypotheses: dict[int, Hypothesis] = {}
    weights: dict[int, Tensor] = {}
    likelihood, tokens, spread, seconds = 0.0, 0, 0.0, 0.0
    packing = Packing()
    for batch in data.loader(split):
        batch = type(batch)(*(part.to(task.device) for part in batch))
        index = batch.index.tolist()
        begun = time.perf_counter()
        with packing:
            found = task.search(batch.source, beam, alpha)
        seconds += time.perf_counter() - begun
        hypotheses |= dict(zip(index, found, strict=True))
        with torch.no_grad():
            scored, candidates, mask = task.scored(batch)
        likelihood += float((candidates.mixture(scored) * mask).sum())
        tokens += int(mask.sum())
        spread += float((candidates.entropy() * mask).sum())
        if "sure" in rows.rows.column_names:
            weights |= {row: w[: int(m.sum())].cpu() for row, w, m in zip(index, candidates.weights, mask, strict=True)}
    order = range(len(rows))
    sources, references, tags = rows.source_texts, data.references(split), rows.tags
    outputs = [data.tokenizers.target.decode(hypotheses[row].tokens) for row in order]
    text = corpus_scores(outputs, references, lowercase=lowercase)
    metrics = {
        "loss": -likelihood / tokens, "bleu": text.bleu, "chrf": text.chrf, "accuracy": text.exact_match,
        "edit_distance": text.edit_distance, "entropy": spread / tokens, "sentences_per_second": len(rows) / seconds,
    }  # fmt: skip
    if weights:
        metrics |= _alignment(data, split, weights)
    predictions = [
        {"source": sources[row], **({"tags": tags[row]} if tags else {}), "reference": references[row],
         "prediction": outputs[row], "log_probability": round(hypotheses[row].score, 4)}
        for row in order
    ]  # fmt: skip
    signatures = {"bleu": text.bleu_signature, "chrf": text.chrf_signature}
    return TranslationOutcome(metrics, signatures, predictions, [hypotheses[row] for row in order])


def _alignment(data: TranslationData, split: str, weights: dict[int, Tensor]) -> dict[str, float]:
    """AER of the argmax links between words under the forced reference, and the same with all links shifted.

    A shift that scores clearly better than 0 says that attention reads a neighbour of the aligned word.
    """
    rows = data.splits[split]
    sure, possible = _links(rows.sure), _links(rows.possible)
    sources, targets = rows.source_texts, rows.target_texts
    links = []
    for row in range(len(rows)):
        source = [*data.tokenizers.source.words(sources[row]), -1]
        target = [*data.tokenizers.target.words(targets[row]), -1]
        words = word_weights(weights[row][:, : len(source)], source, target, max(source) + 1, max(target) + 1)
        links.append(argmax_links(words))
    scores = alignment_error_rate(links, sure, possible)
    shifted = {shift: aer for shift, aer in shift_profile(links, sure, possible).items() if shift}
    best = min(shifted, key=shifted.__getitem__)
    return {
        "aer": scores.aer, "alignment_precision": scores.precision, "alignment_recall": scores.recall,
        "aer_best_shift": shifted[best], "best_shift": best,
    }  # fmt: skip


def _links(column: list[list[list[int]]] | None) -> list[set[tuple[int, int]]]:
    return [{(i, j) for i, j in row} for row in column or []]
