"""Estimators: which contexts the model reads while it trains, and how the gradient reaches alpha.

The objective has one form for all of them, `objective(log_likelihoods, candidates, mask)`; a model or a task
never asks which estimator it holds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from attnlab.attention.baselines import Baseline
from attnlab.attention.selection import Candidates, enumerated, expected, sampled


class Objective(NamedTuple):
    """What to minimise, and what to watch.

    Attributes:
        loss: scalar to minimise, in nats per target token; its value need not be a likelihood.
        metrics: detached scalars by name; `nll` is always there, in nats per target token.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of values [..., T] over the target positions that mask (bool [..., T]) marks as real."""
    return (values * mask).sum() / mask.sum()


def entropy(weights: Tensor) -> Tensor:
    """The entropy of weights [..., S] in nats, [...], with 0 log 0 = 0."""
    smallest = torch.finfo(weights.dtype).tiny  # keeps the gradient finite where a weight is 0
    return -(weights * weights.clamp_min(smallest).log()).sum(-1)


class Estimator(nn.Module, ABC):
    """How attention weights become contexts in training, and the objective that goes with it.

    Attributes:
        mode: the test mode in which the model is validated and selected.
        modes: all test modes in which a trained model is reported.
        samples: the number of candidates K that a decoder which feeds its context back has to run side by side.
        enumerates: whether every position is a candidate, so that candidates cannot be fed back (the number of
            paths through a decoder that does so grows as S^T).
    """

    mode: ClassVar[str] = "soft"
    modes: ClassVar[tuple[str, ...]] = ("soft",)
    samples: int = 1
    enumerates: ClassVar[bool] = False

    @abstractmethod
    def select(self, weights: Tensor, values: Tensor, samples: int | None = None) -> Candidates:
        """Returns candidates for weights [..., T, S] and values [..., S, D]; `samples` overrides the number drawn."""

    def objective(self, log_likelihoods: Tensor, candidates: Candidates, mask: Tensor, fed: bool = False) -> Objective:
        """The negative log-likelihood of the mixture of the candidates, a mean over target tokens.

        Args:
            log_likelihoods: [K, ..., T], log p(y_t | candidate k) in nats.
            candidates: as `select` returned them; the contexts are not needed.
            mask: bool [..., T], True at real target positions.
            fed: whether choices at one step change later steps (the decoder feeds its context back).
        """
        nll = -token_mean(candidates.mixture(log_likelihoods), mask)
        return Objective(nll, {"nll": nll.detach()})


class Expectation(Estimator):
    """Soft attention: c_i = sum_j alpha_ij v_j, trained by backpropagation (Bahdanau et al. 2015, equation 5)."""

    def select(self, weights: Tensor, values: Tensor, samples: int | None = None) -> Candidates:
        return expected(weights, values)


class ExactMarginal(Estimator):
    """Hard attention summed out: -log sum_z alpha_z p(y | z) per target token (Wu, Shapiro and Cotterell 2018)."""

    mode = "exact"
    modes = ("exact", "argmax", "sample", "soft")
    enumerates = True

    def select(self, weights: Tensor, values: Tensor, samples: int | None = None) -> Candidates:
        return enumerated(weights, values)


class Reinforce(Estimator):
    """Hard attention by the score function (Williams 1992; Xu et al. 2015, section 4.1).

    Positions z_1..z_K are drawn from alpha at every step. With reward r_k = log p(y | z_k), the gradient of the
    sampled bound E_z[log p(y | z)] is estimated without bias by that of

        1/K sum_k [ log p(y | z_k) + sg(r_k - b_k) log alpha(z_k) ],

    sg stopping the gradient and b the baseline. Rewards are per token: where choices do not reach later steps, a
    choice is credited with its own token only; where the decoder feeds its context back, with all tokens from its own
    on (reward-to-go). Both terms are the same mean over real target tokens.

    Args:
        baseline: () -> Baseline.
        samples: number of draws K.
        entropy_bonus: weight of the attention entropy (nats, token mean) that is added to what is maximised.

    Raises:
        ValueError: if the baseline needs more samples than there are.
    """

    mode = "argmax"
    modes = ("argmax", "sample", "soft", "exact")

    def __init__(self, baseline: Callable[[], Baseline], samples: int = 4, entropy_bonus: float = 0.0) -> None:
        super().__init__()
        self.baseline = baseline()
        self.samples = samples
        self.entropy_bonus = entropy_bonus
        if samples < self.baseline.samples_needed:
            raise ValueError(
                f"The baseline {type(self.baseline).__name__} compares at least {self.baseline.samples_needed} "
                f"samples, but attention.estimator.samples is {samples}; draw more or choose "
                "attention/estimator/baseline=moving_average."
            )

    def select(self, weights: Tensor, values: Tensor, samples: int | None = None) -> Candidates:
        return sampled(weights, values, samples or self.samples)

    def objective(self, log_likelihoods: Tensor, candidates: Candidates, mask: Tensor, fed: bool = False) -> Objective:
        assert candidates.log_probs is not None
        rewards = log_likelihoods.detach() * mask
        if fed:
            rewards = rewards.flip(-1).cumsum(-1).flip(-1) * mask
        advantages = (rewards - self.baseline(rewards, mask)).detach()
        log_probs = candidates.log_probs.masked_fill(~mask, 0.0)
        bound = token_mean(log_likelihoods.mean(0), mask)
        attention_entropy = token_mean(_over_candidates(entropy(candidates.weights), mask), mask)
        score_function = token_mean((advantages * log_probs).mean(0), mask)
        loss = -(bound + score_function + self.entropy_bonus * attention_entropy)
        real = advantages[:, mask]
        return Objective(
            loss,
            {
                "nll": -bound.detach(),
                "advantage_mean": real.mean(),
                "advantage_std": real.std(correction=0),
                "attention_entropy": attention_entropy.detach(),
            },
        )


def _over_candidates(values: Tensor, mask: Tensor) -> Tensor:
    """Means values [K, ..., T] over K where each candidate has its own (a fed decoder); leaves [..., T] alone."""
    return values.mean(0) if values.dim() > mask.dim() else values
