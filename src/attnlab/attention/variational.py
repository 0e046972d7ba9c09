"""Hard attention as a latent variable with an inference network (Deng, Kim, Chiu, Guo and Rush 2018).

alpha is the prior p(z), q(z) the posterior of an inference network that has seen the target. What is maximised is a
lower bound of log sum_z p(z) p(y | z), token by token; a trained model is read under the prior alone.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from attnlab.attention.estimators import Estimator, Objective, token_mean
from attnlab.attention.reinforce import Reinforce
from attnlab.attention.selection import Candidates, entropy, enumerated, sampled

_MODES = ("exact", "argmax", "sample", "soft")
_UNFEEDABLE = "bounds the likelihood token by token, which holds only where a choice does not reach later steps"


def kl_divergence(posterior: Tensor, prior: Tensor) -> Tensor:
    """KL(q || p) in nats, [...], of weights [..., S], with 0 log 0 = 0; where q reaches beyond p it is cut off."""
    smallest = torch.finfo(prior.dtype).tiny
    ratio = posterior.clamp_min(smallest).log() - prior.clamp_min(smallest).log()
    return (posterior * ratio).sum(-1)


def _needed(posterior: Tensor | None, estimator: Estimator) -> Tensor:
    if posterior is None:
        raise ValueError(
            f"{type(estimator).__name__} learns from an inference network that sees the target, and this model has "
            "none; choose attention/estimator=exact or attention/estimator=reinforce."
        )
    return posterior


def _metrics(prior: Tensor, posterior: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {
        "kl": token_mean(kl_divergence(posterior, prior), mask).detach(),
        "attention_entropy": token_mean(entropy(prior), mask).detach(),
        "posterior_entropy": token_mean(entropy(posterior), mask).detach(),
    }


class Variational(Estimator):
    """The evidence lower bound, enumerated: sum_z q(z) log p(y | z) - KL(q || p) (Deng et al. 2018, equation 3)."""

    mode: ClassVar[str] = "exact"
    modes: ClassVar[tuple[str, ...]] = _MODES
    guided: ClassVar[bool] = True
    unfeedable: ClassVar[str | None] = _UNFEEDABLE

    def select(self, weights: Tensor, values: Tensor, posterior: Tensor | None = None) -> Candidates:
        return enumerated(weights, values)._replace(posterior=_needed(posterior, self))

    def objective(self, log_likelihoods: Tensor, candidates: Candidates, mask: Tensor, fed: bool = False) -> Objective:
        posterior = _needed(candidates.posterior, self)
        explained = (posterior.movedim(-1, 0) * log_likelihoods).sum(0)
        bound = token_mean(explained - kl_divergence(posterior, candidates.weights), mask)
        return Objective(-bound, {"nll": -bound.detach()} | _metrics(candidates.weights, posterior, mask))


class SampledVariational(Reinforce):
    """The evidence lower bound with K draws from q, whose gradient is the score function's; KL in closed form.

    The options are those of `Reinforce`; an entropy bonus is on the prior.
    """

    mode: ClassVar[str] = "exact"
    modes: ClassVar[tuple[str, ...]] = _MODES
    guided: ClassVar[bool] = True
    unfeedable: ClassVar[str | None] = _UNFEEDABLE

    def select(self, weights: Tensor, values: Tensor, posterior: Tensor | None = None) -> Candidates:
        posterior = _needed(posterior, self)
        return super().select(posterior, values)._replace(weights=weights, posterior=posterior)

    def objective(self, log_likelihoods: Tensor, candidates: Candidates, mask: Tensor, fed: bool = False) -> Objective:
        posterior = _needed(candidates.posterior, self)
        loss, metrics = super().objective(log_likelihoods, candidates, mask)
        divergence = token_mean(kl_divergence(posterior, candidates.weights), mask)
        metrics = metrics | _metrics(candidates.weights, posterior, mask)
        return Objective(loss + divergence, metrics | {"nll": metrics["nll"] + divergence.detach()})


class ImportanceWeighted(Estimator):
    """The importance-weighted bound, log 1/K sum_k p(z_k) p(y | z_k) / q(z_k), z_k drawn from q (Burda et al. 2016).

    Its gradient for q is the score function's with the baseline of VIMCO: the bound with the k-th log weight replaced
    by the mean of the others (Mnih and Rezende 2016, equation 11). K = 1 would be the evidence lower bound.

    Args:
        samples: number of draws K.
        query_size: width Q of the queries.

    Raises:
        ValueError: if there are fewer than two samples.
    """

    mode: ClassVar[str] = "exact"
    modes: ClassVar[tuple[str, ...]] = _MODES
    guided: ClassVar[bool] = True
    unfeedable: ClassVar[str | None] = _UNFEEDABLE

    def __init__(self, samples: int = 4, query_size: int = 0) -> None:
        super().__init__(query_size)
        if samples < 2:
            raise ValueError(
                f"An importance-weighted bound compares at least 2 samples, but attention.estimator.samples is "
                f"{samples}; draw more or choose attention/estimator=variational_sampled."
            )
        self.samples = samples

    def select(self, weights: Tensor, values: Tensor, posterior: Tensor | None = None) -> Candidates:
        posterior = _needed(posterior, self)
        return sampled(posterior, values, self.samples)._replace(weights=weights, posterior=posterior)

    def objective(self, log_likelihoods: Tensor, candidates: Candidates, mask: Tensor, fed: bool = False) -> Objective:
        posterior = _needed(candidates.posterior, self)
        assert candidates.positions is not None
        assert candidates.log_probs is not None
        count = len(log_likelihoods)
        smallest = torch.finfo(candidates.weights.dtype).tiny  # a prior may be 0 where q is not
        prior = candidates.weights.clamp_min(smallest).log().movedim(-1, 0).gather(0, candidates.positions)
        proposal = candidates.log_probs
        log_ratios = (log_likelihoods + prior - proposal).masked_fill(~mask, 0.0)
        bound = log_ratios.logsumexp(0) - math.log(count)
        fixed = log_ratios.detach()
        others = (fixed.sum(0) - fixed) / (count - 1)
        replaced = fixed.unsqueeze(0).expand(count, *fixed.shape).clone()  # [k, j, ...]: log weight j without draw k
        replaced.diagonal().copy_(others.movedim(0, -1))
        advantages = bound.detach() - (replaced.logsumexp(1) - math.log(count))
        score_function = (advantages * proposal.masked_fill(~mask, 0.0)).sum(0)
        nll = -token_mean(bound, mask)
        loss = nll - token_mean(score_function, mask)
        return Objective(loss, {"nll": nll.detach()} | _metrics(candidates.weights, posterior, mask))
