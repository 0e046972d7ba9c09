"""Scoring a trained image classifier on a split: accuracy, calibration, and where its attention lies."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attnlab.attention.selection import entropy
from attnlab.data.images import ImageData
from attnlab.evaluation.classification import classification_scores, mass_inside
from attnlab.evaluation.images import rollout, to_grid
from attnlab.tasks.scoring import Outcome
from attnlab.tasks.vision import VisionTask


@dataclass
class VisionOutcome(Outcome):
    """The outcome on one split of images.

    Attributes:
        confusion: long [C, C], rows the true classes.
        log_probs: [N, C].
    """

    confusion: Tensor = field(default_factory=lambda: torch.empty(0))
    log_probs: Tensor = field(default_factory=lambda: torch.empty(0))


def score(task: VisionTask, data: ImageData, split: str) -> VisionOutcome:
    """Scores one split in the test mode that is set.

    Metrics: `loss` (nats an image), `accuracy` and `top5` (percent), `calibration_error` (expected, percent), `entropy`
    (of the variant, nats, mean over layers, heads and the queries that are read), `images_per_second`, and where the
    corpus has boxes `inside`, the percent of attention that lies in them, and `inside_chance`, the boxes' share of the
    image.
    """
    task.eval()
    rows = data.splits[split]
    log_probs, labels, spreads, focused = [], [], [], []
    seconds = 0.0
    for batch in data.loader(split):
        images = batch.images.to(task.device)
        begun = time.perf_counter()
        log_probs.append(task.predict(images).cpu())
        seconds += time.perf_counter() - begun
        labels.append(batch.labels)
        maps = task.model.maps(images)
        spreads += [float(entropy(maps[name]).mean()) * len(images) for name in task.model.variant_names]
        if rows.boxes is not None:
            focused.append(focus(task, maps, task.model.chosen(images)).cpu())
    scored, truth = torch.cat(log_probs), torch.cat(labels)
    scores = classification_scores(scored, truth)
    metrics = {
        "loss": scores.nll, "accuracy": scores.top1, "top5": scores.top5,
        "calibration_error": 100 * scores.calibration_error,
        "entropy": sum(spreads) / len(truth) / len(task.model.variant_names),
        "images_per_second": len(truth) / seconds,
    }  # fmt: skip
    if rows.boxes is not None:
        boxes = torch.as_tensor(rows.boxes)
        found = torch.cat(focused)
        metrics["inside"] = 100 * float(mass_inside(found, boxes, data.height, data.width).mean())
        even = torch.ones_like(found)
        metrics["inside_chance"] = 100 * float(mass_inside(even, boxes, data.height, data.width).mean())
    probabilities, predicted = scored.exp().max(-1)
    predictions = [
        {"label": data.classes[label], "prediction": data.classes[best], "probability": round(share, 4),
         "correct": best == label}
        for label, best, share in zip(truth.tolist(), predicted.tolist(), probabilities.tolist(), strict=True)
    ]  # fmt: skip
    return VisionOutcome(metrics, predictions=predictions, confusion=scores.confusion, log_probs=scored)


def focus(task: VisionTask, maps: dict[str, Tensor], chosen: Tensor | None) -> Tensor:
    """Where a classifier looks, as one map [B, rows, columns] that sums to 1.

    The patches that a glimpse model reads, evenly; the weights of an attention pooling, a mean over heads; else the
    rollout of the class token.

    Args:
        task: the classifier.
        maps: its weights on the images.
        chosen: the only patches that it reads, [B, k], if there are such.
    """
    rows, columns = task.model.grid
    if chosen is not None:
        even = torch.zeros(len(chosen), rows * columns, device=chosen.device)
        return even.scatter(1, chosen, 1 / chosen.shape[1]).view(-1, rows, columns)
    if "pooling" in maps:
        return to_grid(maps["pooling"].mean(1)[:, 0], rows, columns)
    return to_grid(rollout(list(maps.values()))[:, 0], rows, columns, task.model.leading)
