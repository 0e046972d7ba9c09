"""Estimators: which contexts the model reads while it trains, and how the gradient reaches alpha.

The objective has one form for all of them, `objective(log_likelihoods, candidates, mask)`; a model or a task
never asks which estimator it holds. Here are the base and the two that draw nothing; those that draw are in
`reinforce`, `gumbel` and `variational`.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from attnlab.attention.selection import Candidates, enumerated, expected, heaviest


class Objective(NamedTuple):
    """What to minimise, and what to watch.

    Attributes:
        loss: scalar to minimise, in nats per target token; its value need not be a likelihood.
        metrics: detached scalars by name; `nll` is always there, in nats per target token, of smoothed targets where
            labels are smoothed.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of values [..., T] over the target positions that mask (bool [..., T]) marks as real."""
    return (values * mask).sum() / mask.sum()


class Estimator(nn.Module, ABC):
    """How attention weights become contexts in training, and the objective that goes with it.

    Attributes:
        mode: the test mode in which the model is validated and selected.
        modes: all test modes in which a trained model is reported.
        guided: whether `select` needs the weights of an inference network that has seen the target.
        unfeedable: why a decoder cannot feed these contexts back, as the end of a sentence; None where it can.
        enumerates: whether its candidates are all positions, so that several heads cannot be read at once.
        recordable: whether a CUDA graph may hold the selection: it draws nothing and does not wait for the device.
        paths: the number of copies of the batch that a decoder which feeds its context back runs side by side.

    Args:
        query_size: width Q of the queries.
    """

    mode: ClassVar[str] = "soft"
    modes: ClassVar[tuple[str, ...]] = ("soft",)
    guided: ClassVar[bool] = False
    unfeedable: ClassVar[str | None] = None
    enumerates: ClassVar[bool] = False
    recordable: ClassVar[bool] = False

    def __init__(self, query_size: int = 0) -> None:
        super().__init__()

    @property
    def paths(self) -> int:
        return 1

    @property
    def single(self) -> bool:
        """Whether all that is read while training is values at single positions, no mixtures of them."""
        return False

    @abstractmethod
    def select(self, weights: Tensor, values: Tensor, posterior: Tensor | None = None) -> Candidates:
        """Returns candidates for weights [..., T, S], values [..., S, D] and, if guided, a posterior [..., T, S]."""

    def follow(self, weights: Tensor, values: Tensor) -> Candidates:
        """One context a row, for a decoder that feeds it back.

        The rows, the first dimension of weights [N, T, S] and values [N, S, D], are `paths` copies of the batch, one
        after the other.
        """
        return self.select(weights, values)

    def anneal(self, progress: float) -> None:
        """Tells how much of the training is done, from 0 to 1, before each step."""
        return

    def objective(self, log_likelihoods: Tensor, candidates: Candidates, mask: Tensor, fed: bool = False) -> Objective:
        """The negative log-likelihood of the mixture of the candidates, a mean over target tokens.

        Args:
            log_likelihoods: [K, ..., T], log p(y_t | candidate k) in nats.
            candidates: as `select` returned them; the contexts are not needed.
            mask: bool [..., T], True at real target positions.
            fed: whether choices at one step change later steps (the decoder feeds its context back).
        """
        nll = -token_mean(candidates.mixture(log_likelihoods), mask)
        spread = mean_entropy(candidates, mask)
        known = {} if spread is None else {"attention_entropy": spread.detach()}
        return Objective(nll, {"nll": nll.detach()} | known)


class Expectation(Estimator):
    """Soft attention: c_i = sum_j alpha_ij v_j, trained by backpropagation (Bahdanau et al. 2015, equation 5)."""

    recordable = True

    def select(self, weights: Tensor, values: Tensor, posterior: Tensor | None = None) -> Candidates:
        return expected(weights, values)


class ExactMarginal(Estimator):
    """Hard attention summed out: -log sum_z alpha_z p(y | z) per target token (Wu, Shapiro and Cotterell 2018).

    Args:
        top: sum over so many positions only, the heaviest of each query, while training; None for all. The objective is
            then an upper bound of the negative log-likelihood.
        query_size: width Q of the queries.

    Raises:
        ValueError: if `top` is not positive.
    """

    mode = "exact"
    modes = ("exact", "argmax", "sample", "soft")
    enumerates = True
    unfeedable = "sums over every source position at every step, so the number of paths would grow as S^T"

    def __init__(self, top: int | None = None, query_size: int = 0) -> None:
        super().__init__(query_size)
        if top is not None and top < 1:
            raise ValueError(f"attention.estimator.top={top} must be 1 or more, or null for every position.")
        self.top = top

    def select(self, weights: Tensor, values: Tensor, posterior: Tensor | None = None) -> Candidates:
        return enumerated(weights, values) if self.top is None else heaviest(weights, values, self.top)


def over_candidates(values: Tensor, mask: Tensor, count: int | None = None) -> Tensor:
    """Means values [K, ..., T] over K (its first `count`) where each candidate has its own, as where contexts are fed
    back; leaves values [..., T] as they are."""
    return values[:count].mean(0) if values.dim() > mask.dim() else values


def mean_entropy(candidates: Candidates, mask: Tensor, count: int | None = None) -> Tensor | None:
    """The entropy of the attention, a mean over target tokens and (the first `count`) candidates; None if unknown."""
    values = candidates.entropy()
    return None if values is None else token_mean(over_candidates(values, mask, count), mask)


def uniform(log_weights: Tensor, count: int) -> Tensor:
    """Log mixture weights of `count` copies of the batch that stand for one."""
    return log_weights - math.log(count)
