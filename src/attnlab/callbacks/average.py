"""The moving average of the weights, which is validated, kept and tested in place of the last ones."""

from collections.abc import Iterable

from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """The exponential moving average of the weights over the steps (Polyak and Juditsky 1992).

    After n steps the decay is min(decay, (1 + n) / (10 + n)), so that the average leaves the initial weights behind
    at once and the first epochs are judged by what was learned.

    Args:
        decay: of the average in the long run.
    """

    def __init__(self, decay: float) -> None:
        def blend(averages: Iterable[Tensor], weights: Iterable[Tensor], count: Tensor) -> None:
            steps = int(count)  # once a step: on an accelerator it waits for the device
            for average, weight in zip(averages, weights, strict=True):
                average.lerp_(weight, 1 - min(decay, (1 + steps) / (10 + steps)))

        super().__init__(use_buffers=False, multi_avg_fn=blend)
