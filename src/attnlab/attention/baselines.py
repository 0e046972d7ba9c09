"""Baselines: control variates for REINFORCE. What is subtracted from a reward must not depend on its own draw."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Baseline(nn.Module, ABC):
    """Predicts the reward of each draw without looking at that draw."""

    samples_needed = 1
    """The least number K of samples with which the baseline is defined."""

    @abstractmethod
    def forward(self, rewards: Tensor, mask: Tensor) -> Tensor:
        """Returns the baseline, broadcastable to the rewards.

        Args:
            rewards: [K, ..., T], detached, in nats, 0 where masked.
            mask: bool [..., T], True at real target positions.
        """


class NoBaseline(Baseline):
    """b = 0: the plain estimator of Williams 1992."""

    def forward(self, rewards: Tensor, mask: Tensor) -> Tensor:
        return torch.zeros_like(rewards)


class MovingAverage(Baseline):
    """The exponential moving average of the mean rewards of earlier batches (Xu et al. 2015, equation 12).

    The current batch is left out, so that the baseline does not depend on the draws it is subtracted from; the
    start at 0 is corrected for, as in Adam.

    Args:
        decay: weight of the past, in [0, 1).
    """

    average: Tensor
    updates: Tensor

    def __init__(self, decay: float = 0.9) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"The decay of a moving average lies in [0, 1), found {decay}.")
        self.decay = decay
        self.register_buffer("average", torch.zeros((), dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def forward(self, rewards: Tensor, mask: Tensor) -> Tensor:
        correction = 1 - self.decay ** int(self.updates)
        baseline = (self.average / correction if correction > 0 else self.average).to(rewards.dtype).clone()
        if self.training:
            mean = rewards.sum() / (mask.sum() * rewards.shape[0]).clamp_min(1)
            self.average.mul_(self.decay).add_((1 - self.decay) * mean.double())
            self.updates.add_(1)
        return baseline


class LeaveOneOut(Baseline):
    """The mean reward of the other K - 1 draws of the same step (Kool, van Hoof and Welling 2019; "RLOO")."""

    samples_needed = 2

    def forward(self, rewards: Tensor, mask: Tensor) -> Tensor:
        count = rewards.shape[0]
        return (rewards.sum(0, keepdim=True) - rewards) / (count - 1)
