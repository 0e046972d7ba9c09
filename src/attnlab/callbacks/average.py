"""The moving average of the weights, which is validated, kept and tested in place of the last ones."""

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
        def blend(average: Tensor, current: Tensor, count: Tensor) -> Tensor:
            steps = int(count)
            return average.lerp(current, 1 - min(decay, (1 + steps) / (10 + steps)))

        super().__init__(use_buffers=False, avg_fn=blend)
