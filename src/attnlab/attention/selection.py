"""Selection: from weights and values to the candidate contexts that the model reads.

Soft attention reads one context, the expectation; hard attention reads values at single positions. All of them
are one record, `Candidates`: K contexts with log mixture weights. The four functions here are also the four modes
in which a model is tested (`MODES`).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from attnlab.kernels.steps import mix


class Candidates(NamedTuple):
    """K candidate contexts and where they come from.

    Attributes:
        contexts: [K, ..., T, D]; the dimension T is 1 where they are the same at every step.
        log_weights: [K, ..., T], log mixture weights: p(y) = sum_k exp(log_weights_k) p(y | contexts_k). A candidate
            of weight -inf is read for a baseline only.
        weights: [..., T, S], the attention weights alpha; [..., T, 0] where a fused kernel did not tell them.
        positions: [K, ..., T] long, the chosen source positions; None where there is not one for each candidate.
        log_probs: [K, ..., T], log-probability of the sampled positions, which carries the gradient of the score
            function (fewer than K where some candidates were not sampled); None where nothing was sampled.
        posterior: [..., T, S], the weights of an inference network that has seen the target, if there is one.
        queries: [..., T, Q], what attended.
        entropies: [..., T], the entropy of the attention in nats where it is that of more than these weights (a mean
            over layers and heads); None where it is theirs.
    """

    contexts: Tensor
    log_weights: Tensor
    weights: Tensor
    positions: Tensor | None = None
    log_probs: Tensor | None = None
    posterior: Tensor | None = None
    queries: Tensor | None = None
    entropies: Tensor | None = None

    def entropy(self) -> Tensor | None:
        """The entropy of the attention in nats, [..., T]; None where the weights are not known."""
        if self.entropies is not None:
            return self.entropies
        return entropy(self.weights) if self.weights.shape[-1] else None

    def mixture(self, log_likelihoods: Tensor) -> Tensor:
        """Reduces log p(y | candidate k) [K, ..., T] to log p(y) [..., T].

        `log_likelihoods` may carry one more, last dimension (the vocabulary).
        """
        log_weights = self.log_weights
        if log_likelihoods.dim() > log_weights.dim():
            log_weights = log_weights.unsqueeze(-1)
        if log_likelihoods.shape[0] == 1:
            return (log_likelihoods + log_weights).squeeze(0)
        return torch.logsumexp(log_likelihoods + log_weights, 0)


def entropy(weights: Tensor) -> Tensor:
    """The entropy of weights [..., S] in nats, [...], with 0 log 0 = 0."""
    smallest = torch.finfo(weights.dtype).tiny  # keeps the gradient finite where a weight is 0
    return -(weights * weights.clamp_min(smallest).log()).sum(-1)


Selection = Callable[[Tensor, Tensor], Candidates]
"""(weights [..., T, S], values [..., S, D]) -> Candidates."""


def expected(weights: Tensor, values: Tensor) -> Candidates:
    """Soft attention: the one context sum_j alpha_j v_j."""
    contexts = mix(weights, values).unsqueeze(0)
    return Candidates(contexts, weights.new_zeros(contexts.shape[:-1]), weights)


def gather(values: Tensor, positions: Tensor) -> Tensor:
    """Reads the values [..., S, D] at positions [K, ..., T]: [K, ..., T, D], without a product over S."""
    values = values.expand(*positions.shape[:-1], *values.shape[-2:])
    return values.gather(-2, positions.unsqueeze(-1).expand(*positions.shape, values.shape[-1]))


def argmax(weights: Tensor, values: Tensor) -> Candidates:
    """Hard attention read deterministically: the value at the heaviest position."""
    positions = weights.argmax(-1).unsqueeze(0)
    contexts = gather(values, positions)
    return Candidates(contexts, weights.new_zeros(positions.shape), weights, positions)


def sampled(weights: Tensor, values: Tensor, samples: int = 1, generator: torch.Generator | None = None) -> Candidates:
    """Hard attention: `samples` positions drawn from alpha, each with its value, equally weighted."""
    rows = weights.detach().reshape(-1, weights.shape[-1])
    drawn = torch.multinomial(rows, samples, replacement=True, generator=generator)  # [rows, K]
    positions = drawn.t().reshape(samples, *weights.shape[:-1])
    chosen = weights.expand(samples, *weights.shape).gather(-1, positions.unsqueeze(-1)).squeeze(-1)
    log_weights = weights.new_full(positions.shape, -math.log(samples))
    return Candidates(gather(values, positions), log_weights, weights, positions, chosen.log())


def log_weights_of(weights: Tensor) -> Tensor:
    """log alpha, -inf where alpha is 0, with a finite gradient everywhere."""
    logs = weights.clamp_min(torch.finfo(weights.dtype).tiny).log()  # clamped, since log 0 has no finite gradient
    return logs.masked_fill(weights == 0, float("-inf"))


def enumerated(weights: Tensor, values: Tensor) -> Candidates:
    """Hard attention with the position summed out: every position is a candidate, K = S, weighted by log alpha."""
    size = weights.shape[-1]
    log_weights = log_weights_of(weights).movedim(-1, 0)
    shape = (size, *weights.shape[:-1])
    positions = torch.arange(size, device=weights.device).view(-1, *[1] * (len(shape) - 1)).expand(shape)
    values = values.expand(*weights.shape[:-2], *values.shape[-2:])
    return Candidates(values.movedim(-2, 0).unsqueeze(-2), log_weights, weights, positions)


def heaviest(weights: Tensor, values: Tensor, count: int) -> Candidates:
    """The `count` heaviest positions of each query; their mixture is a lower bound of the whole one."""
    chosen, places = weights.topk(min(count, weights.shape[-1]), -1)
    positions = places.movedim(-1, 0)
    return Candidates(gather(values, positions), log_weights_of(chosen).movedim(-1, 0), weights, positions)


MODES: dict[str, Selection] = {"soft": expected, "argmax": argmax, "sample": sampled, "exact": enumerated}
"""The test modes by name."""
