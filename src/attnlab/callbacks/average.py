"""The moving average of the weights, which is validated, kept and tested in place of the last ones."""

from collections.abc import Iterable

from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

from attnlab.errors import UserError


class MovingAverage(WeightAveraging):
    """The exponential moving average of the weights over the steps (Polyak and Juditsky 1992).

    After n steps the decay is min(decay, (1 + n) / (10 + n)), so that the average leaves the initial weights behind
    at once and the first epochs are judged by what was learned.

    Args:
        decay: of the average in the long run, in [0, 1).

    Raises:
        UserError: if it lies elsewhere.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"task.average={decay} is the decay of an average: give one in [0, 1), such as 0.999.")

        def blend(averages: Iterable[Tensor], weights: Iterable[Tensor], count: Tensor) -> None:
            steps = int(count)  # once a step: on an accelerator it waits for the device
            for average, weight in zip(averages, weights, strict=True):
                average.lerp_(weight.to(average.dtype), 1 - min(decay, (1 + steps) / (10 + steps)))

        super().__init__(use_buffers=False, multi_avg_fn=blend)
