"""How good, and how honest, a classifier's probabilities are, and how much of its attention falls where it should."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

_BINS = 15
_ROUNDING = 0.02  # a distribution over a thousand classes in bfloat16 misses 1 by less


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Scores of N examples over C classes."""

    top1: float
    """Percent of the examples whose most probable class is the label."""
    top5: float
    """Percent of the examples whose label is among the k most probable classes."""
    k: int
    """min(5, C - 1). With five classes or fewer every label is among the five most probable, which would say
    nothing; one class always has to be left out."""
    nll: float
    """Mean negative log-likelihood of the label, in nats; inf where a label has probability 0."""
    calibration_error: float
    """Expected calibration error, 0 to 1, 0 best (Guo et al. 2017, "On Calibration of Modern Neural Networks",
    eq. 3): the gap between confidence and accuracy in each of 15 equal bins of confidence, averaged over the
    examples."""
    confusion: Tensor
    """long [C, C] on the CPU: how many examples of class i (row) are predicted to be of class j (column)."""
    accuracy_by_class: Tensor
    """double [C] on the CPU: percent of each class's examples that are predicted to be of it; NaN for a class
    without examples."""


def classification_scores(log_probs: Tensor, labels: Tensor) -> ClassScores:
    """Score N predictions.

    log_probs: float [N, C], normalised log probabilities, C at least 2. labels: long [N], from 0 to C - 1.

    Of equally probable classes the one with the lower index ranks higher, in every score. Computed on the CPU
    in double precision. Raises ValueError where shapes, labels or probabilities do not fit.
    """
    log_probs, labels = _checked(log_probs, labels)

    from torchmetrics.functional.classification import binary_calibration_error, multiclass_confusion_matrix

    n_classes = log_probs.shape[1]
    k = min(5, n_classes - 1)
    ranked = log_probs.argsort(dim=1, descending=True, stable=True)  # stable: ties keep the order of the classes
    predicted = ranked[:, 0]
    right = predicted == labels
    # Beyond 1, where rounding may lead, torchmetrics would take the confidences for logits; at 1 it would open a
    # sixteenth bin.
    confidence = log_probs.amax(dim=1).exp().clamp(max=1 - torch.finfo(torch.double).eps)
    confusion = multiclass_confusion_matrix(predicted, labels, num_classes=n_classes, validate_args=False)
    return ClassScores(
        top1=100 * right.double().mean().item(),
        top5=100 * (ranked[:, :k] == labels[:, None]).any(dim=1).double().mean().item(),
        k=k,
        nll=nll_loss(log_probs, labels).item(),
        calibration_error=binary_calibration_error(confidence, right.long(), n_bins=_BINS).item(),
        confusion=confusion,
        accuracy_by_class=100 * confusion.diagonal().double() / confusion.sum(dim=1),
    )


def _checked(log_probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if log_probs.dim() != 2 or labels.shape != log_probs.shape[:1]:
        raise ValueError(
            f"Log probabilities [N, C] need labels [N]; the shapes are {tuple(log_probs.shape)} and "
            f"{tuple(labels.shape)}."
        )
    n_examples, n_classes = log_probs.shape
    if n_examples == 0:
        raise ValueError("There is nothing to score: there are no examples.")
    if n_classes < 2:
        raise ValueError("A classifier has at least two classes to choose from; there is one.")
    log_probs, labels = log_probs.detach().cpu().double(), labels.detach().cpu().long()
    if int(labels.min()) < 0 or int(labels.max()) >= n_classes:
        raise ValueError(
            f"A label is a class from 0 to {n_classes - 1}; found {int(labels.min())} to {int(labels.max())}."
        )
    mass = log_probs.exp().sum(dim=1)
    wrong = ~((mass - 1).abs() <= _ROUNDING)  # NaN is wrong, too
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"Every row holds log probabilities, but those of row {row} sum to {mass[row]:.4g} and not to 1."
        )
    return log_probs, labels


def mass_inside(maps: Tensor, boxes: Tensor, height: float, width: float) -> Tensor:
    """The share of each map's mass that lies inside its box: [N], from 0 to 1.

    maps: float [N, rows, cols], non-negative attention over the equal patches that an image of `height` by
    `width` pixels is cut into. boxes: [N, 4] in pixels: left, top, right, bottom, where pixel i reaches from i to
    i + 1; what sticks out of the image counts for nothing.

    A patch's mass is spread evenly over it, so a patch that the border cuts counts by the part of its area that
    lies inside; a uniform map scores the box's share of the image, which is what chance would get. NaN for a map
    without any mass. In single precision or better. Raises ValueError where the shapes do not fit or a box is
    turned inside out.
    """
    if maps.dim() != 3 or tuple(boxes.shape) != (len(maps), 4):
        raise ValueError(
            f"Maps [N, rows, cols] need boxes [N, 4]; the shapes are {tuple(maps.shape)} and {tuple(boxes.shape)}."
        )
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    left, top, right, bottom = boxes.to(maps).unbind(dim=1)
    if not ((left < right) & (top < bottom)).all():
        raise ValueError(
            "A box is left, top, right, bottom, and has its left before its right, its top above its bottom."
        )
    down = _overlap(top, bottom, maps.shape[1], height)
    across = _overlap(left, right, maps.shape[2], width)
    return torch.einsum("nij,ni,nj->n", maps, down, across) / maps.sum(dim=(1, 2))


def _overlap(start: Tensor, end: Tensor, n_cells: int, length: float) -> Tensor:
    """The part of each of `n_cells` equal cells of a line that lies between start and end: [N] -> [N, n_cells]."""
    cell = length / n_cells
    edges = torch.arange(n_cells + 1, device=start.device, dtype=start.dtype) * cell
    inside = torch.minimum(end[:, None], edges[1:]) - torch.maximum(start[:, None], edges[:-1])
    return inside.clamp(min=0) / cell
