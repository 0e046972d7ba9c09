"""Hard attention by reparametrised noise."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from attnlab.attention.estimators import Estimator, Objective, mean_entropy, token_mean, uniform
from attnlab.attention.selection import Candidates, gather, log_weights_of


class GumbelSoftmax(Estimator):
    """A relaxed draw, softmax((log alpha + g) / tau) with Gumbel noise g (Jang et al. 2017; Maddison et al. 2017).

    Straight-through, the model reads the value at the largest entry and the gradient is that of the relaxed draw; else
    it reads the relaxed mixture itself. Both are biased, and less noisy than the score function.

    Args:
        temperature: tau at the start of the training.
        final_temperature: tau at its end, reached geometrically.
        straight_through: whether one value is read, or the mixture.
        samples: number of draws K, whose log-likelihoods are averaged.
        query_size: width Q of the queries.

    Raises:
        ValueError: if a temperature or the number of samples is not positive.
    """

    mode: ClassVar[str] = "argmax"
    modes: ClassVar[tuple[str, ...]] = ("argmax", "sample", "soft", "exact")

    def __init__(
        self,
        temperature: float = 1.0,
        final_temperature: float = 0.5,
        straight_through: bool = True,
        samples: int = 1,
        query_size: int = 0,
    ) -> None:
        super().__init__(query_size)
        if min(temperature, final_temperature) <= 0:
            raise ValueError(f"Gumbel temperatures must be positive, found {temperature} and {final_temperature}.")
        if samples < 1:
            raise ValueError(f"attention.estimator.samples={samples} must be 1 or more.")
        self.temperature = temperature
        self._temperatures = (temperature, final_temperature)
        self.straight_through = straight_through
        self.samples = samples

    def anneal(self, progress: float) -> None:
        first, last = self._temperatures
        self.temperature = first * (last / first) ** progress

    @property
    def paths(self) -> int:
        return self.samples

    @property
    def single(self) -> bool:
        return self.straight_through

    def _draw(self, weights: Tensor, values: Tensor, samples: int) -> Candidates:
        noise = -torch.empty(samples, *weights.shape, dtype=weights.dtype, device=weights.device).exponential_().log()
        relaxed = ((log_weights_of(weights) + noise) / self.temperature).softmax(-1)
        # straight through, the values' gradient is that of what is read; the relaxed draw has the weights' alone
        contexts = relaxed.to(values.dtype) @ (values.detach() if self.straight_through else values)
        positions = None
        if self.straight_through:
            positions = relaxed.argmax(-1)
            contexts = gather(values, positions) + (contexts - contexts.detach())
        log_weights = weights.new_full(contexts.shape[:-1], -math.log(samples))
        return Candidates(contexts, log_weights, weights, positions)

    def select(self, weights: Tensor, values: Tensor, posterior: Tensor | None = None) -> Candidates:
        return self._draw(weights, values, self.samples)

    def follow(self, weights: Tensor, values: Tensor) -> Candidates:
        drawn = self._draw(weights, values, 1)
        return drawn._replace(log_weights=uniform(drawn.log_weights, self.samples))

    def objective(self, log_likelihoods: Tensor, candidates: Candidates, mask: Tensor, fed: bool = False) -> Objective:
        nll = -token_mean(log_likelihoods.mean(0), mask)
        spread = mean_entropy(candidates, mask)
        assert spread is not None
        return Objective(nll, {"nll": nll.detach(), "attention_entropy": spread.detach()})
