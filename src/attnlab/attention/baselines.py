"""Baselines: control variates for REINFORCE. What is subtracted from a reward must not depend on its own draw."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class Baseline(nn.Module, ABC):
    """Predicts the reward of each draw without looking at that draw.

    Attributes:
        samples_needed: the least number K of samples with which the baseline is defined.
        reads: the mode (`MODES`) of one more context that is read beside the draws, whose reward is `compared`.
        learned: whether the baseline has parameters, which are fitted to the rewards by least squares.

    Args:
        query_size: width Q of the queries.
    """

    samples_needed: ClassVar[int] = 1
    reads: ClassVar[str | None] = None
    learned: ClassVar[bool] = False

    def __init__(self, query_size: int = 0) -> None:
        super().__init__()

    @abstractmethod
    def forward(
        self, rewards: Tensor, mask: Tensor, compared: Tensor | None = None, queries: Tensor | None = None
    ) -> Tensor:
        """Returns the baseline, broadcastable to the rewards.

        Args:
            rewards: [K, ..., T], detached, in nats, 0 where masked.
            mask: bool [..., T], True at real target positions.
            compared: [..., T], the reward of the context that the baseline `reads`.
            queries: [..., T, Q], what attended; one for each draw, [K, ..., T, Q], where choices are fed back.
        """


class NoBaseline(Baseline):
    """b = 0: the plain estimator of Williams 1992."""

    def forward(
        self, rewards: Tensor, mask: Tensor, compared: Tensor | None = None, queries: Tensor | None = None
    ) -> Tensor:
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

    def __init__(self, decay: float = 0.9, query_size: int = 0) -> None:
        super().__init__(query_size)
        if not 0 <= decay < 1:
            raise ValueError(f"The decay of a moving average lies in [0, 1), found {decay}.")
        self.decay = decay
        self.register_buffer("average", torch.zeros((), dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def forward(
        self, rewards: Tensor, mask: Tensor, compared: Tensor | None = None, queries: Tensor | None = None
    ) -> Tensor:
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

    def forward(
        self, rewards: Tensor, mask: Tensor, compared: Tensor | None = None, queries: Tensor | None = None
    ) -> Tensor:
        count = rewards.shape[0]
        return (rewards.sum(0, keepdim=True) - rewards) / (count - 1)


class _Compared(Baseline):
    """The reward of the one context that is read beside the draws."""

    def forward(
        self, rewards: Tensor, mask: Tensor, compared: Tensor | None = None, queries: Tensor | None = None
    ) -> Tensor:
        assert compared is not None
        return compared


class SelfCritic(_Compared):
    """The reward of the greedy choice, that of the test mode `argmax` (Rennie et al. 2017).

    Where choices are fed back, of the path that is greedy at every step.
    """

    reads = "argmax"


class SoftContext(_Compared):
    """The log-likelihood under the expected context, log p(y | sum_j alpha_j v_j) (Deng et al. 2018, section 4)."""

    reads = "soft"


class Learned(Baseline):
    """A value head on the query, b_t = w^T tanh(W q_t), fitted to the rewards (Mnih and Gregor 2014, section 2.3).

    Its gradient stops at the query. Where that is a parameter, as in an attention pooling and a glimpse model, it is
    the same for all inputs, and no more than a mean that follows the rewards.

    Args:
        size: width of the hidden layer.
        query_size: width Q of the queries.
    """

    learned = True

    def __init__(self, size: int = 64, query_size: int = 0) -> None:
        super().__init__(query_size)
        self.head = nn.Sequential(nn.Linear(query_size, size), nn.Tanh(), nn.Linear(size, 1))

    def forward(
        self, rewards: Tensor, mask: Tensor, compared: Tensor | None = None, queries: Tensor | None = None
    ) -> Tensor:
        assert queries is not None
        values: Tensor = self.head(queries.detach()).squeeze(-1)
        return values.to(rewards.dtype)
