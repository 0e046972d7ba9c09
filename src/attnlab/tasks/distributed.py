"""What the processes that train one model together tell each other. Where there is one process, it is told what it
said itself."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed


def _alone() -> bool:
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1


def weighted(loss: Tensor, metrics: Mapping[str, Tensor], count: int) -> tuple[Tensor, dict[str, Tensor], int]:
    """A loss in its share of the whole batch, of which this process has a part.

    A loss is a mean over the targets of its part, and gradients are averaged over processes. Weighted by its part's
    share of the targets, times the number of processes, what is averaged is the gradient of the mean over all targets.

    Args:
        loss: scalar, a mean over this part's targets.
        metrics: scalars, means over this part's targets.
        count: number of this part's targets.

    Returns:
        the weighted loss, the means of the metrics over the whole batch, and the number of its targets, where a batch
        of fewer rows than there are processes, which each of them has whole, counts once for each.
    """
    if _alone():
        return loss, dict(metrics), count
    sums = torch.stack([value.detach().double() for value in (torch.ones_like(loss), *metrics.values())]) * count
    distributed.all_reduce(sums)
    total = int(sums[0])
    means = (sums[1:] / total).to(loss.dtype)
    share = distributed.get_world_size() * count / total
    return loss * share, dict(zip(metrics, means, strict=True)), total


def merged(part: Mapping[int, Any]) -> dict[int, Any]:
    """What all processes have found, by row: each row once."""
    if _alone():
        return dict(part)
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, dict(part))
    return {row: found for part in parts for row, found in part.items()}
