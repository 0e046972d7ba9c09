"""Learning-rate schedules that torch lacks in a form that tolerates a run of slightly different length."""

import inspect
import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from attnlab.errors import UserError


def make_schedule(
    factory: Callable[..., LRScheduler], optimizer: Optimizer, total_steps: Callable[[], int]
) -> LRScheduler:
    """A schedule of an optimizer, told the length of the run if its factory asks for it."""
    asks = "total_steps" in inspect.signature(factory).parameters
    return factory(optimizer, total_steps=total_steps()) if asks else factory(optimizer)


class OneCycle(LambdaLR):
    """Up from lr/25 to lr on a cosine over the first part of the run, down to lr/1e4 over the rest.

    The cycle of Smith and Topin 2019, in the form of torch's OneCycleLR, which ends at lr/250,000; past the last step
    it stays where it ended.

    Args:
        optimizer: its `lr` is the peak.
        total_steps: length of the run in optimizer steps.
        warmup: share of the run that goes up, in [0, 1].

    Raises:
        UserError: if that is no share.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.25) -> None:
        if not 0 <= warmup <= 1:
            raise UserError(f"schedule.warmup={warmup} is a share of the run: give one from 0 to 1.")
        rise = max(1.0, warmup * total_steps)

        def factor(step: int) -> float:
            if step < rise:
                return _cosine(1 / 25, 1.0, step / rise)
            return _cosine(1.0, 1e-4, min(1.0, (step - rise) / max(1.0, total_steps - rise)))

        super().__init__(optimizer, factor)


class InverseSquareRoot(LambdaLR):
    """Linear warm-up to lr over `warmup` steps, then lr sqrt(warmup / step) (Vaswani et al. 2017, equation 3).

    Raises:
        UserError: if there are fewer than one.
    """

    def __init__(self, optimizer: Optimizer, warmup: int = 2000) -> None:
        if warmup < 1:
            raise UserError(f"schedule.warmup={warmup} counts steps: give 1 or more.")
        super().__init__(optimizer, lambda step: min((step + 1) / warmup, math.sqrt(warmup / (step + 1))))


class Constant(LambdaLR):
    """The optimizer's own learning rate, throughout."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer, lambda step: 1.0)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
