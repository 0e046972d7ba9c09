"""Hard attention by the score function."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from attnlab.attention.baselines import Baseline
from attnlab.attention.estimators import Estimator, Objective, mean_entropy, token_mean, uniform
from attnlab.attention.selection import MODES, Candidates, expected, sampled


class Reinforce(Estimator):
    """Hard attention by the score function (Williams 1992; Xu et al. 2015, section 4.1).

    Positions z_1..z_K are drawn from alpha at every step. With reward r_k = log p(y | z_k), the gradient of the
    sampled bound E_z[log p(y | z)] is estimated without bias by that of

        1/K sum_k [ log p(y | z_k) + sg(r_k - b_k) log alpha(z_k) ],

    sg stopping the gradient and b the baseline. Rewards are per token: where choices do not reach later steps, a
    choice is credited with its own token only; where the decoder feeds its context back, with all tokens from its own
    on (reward-to-go). Both terms are the same mean over real target tokens. (The gradient of the entropy bonus goes
    through the weights only: where choices are fed back, their effect on later entropies is left out.)

    Args:
        baseline: (query_size=Q) -> Baseline.
        samples: number of draws K.
        entropy_bonus: weight of the attention entropy (nats, token mean) that is added to what is maximised.
        final_entropy_bonus: what it becomes, linearly, by the end of the training; None if it stays.
        semi_sampling: probability, of every query, to read the expected context instead of the draws (Xu et al. 2015,
            section 4.2, where it is 0.5 and drawn once for an image).
        score_function: whether choices are credited; without that term attention learns through its entropy alone: the
            control that shows what the term does.
        query_size: width Q of the queries.

    Raises:
        ValueError: if the baseline needs more samples than there are, or an option lies outside its range.
    """

    mode: ClassVar[str] = "argmax"
    modes: ClassVar[tuple[str, ...]] = ("argmax", "sample", "soft", "exact")

    def __init__(
        self,
        baseline: Callable[..., Baseline],
        samples: int = 4,
        entropy_bonus: float = 0.0,
        final_entropy_bonus: float | None = None,
        semi_sampling: float = 0.0,
        score_function: bool = True,
        query_size: int = 0,
    ) -> None:
        super().__init__(query_size)
        self.baseline = baseline(query_size=query_size)
        self.samples = samples
        self.entropy_bonus = entropy_bonus
        self._bonuses = (entropy_bonus, entropy_bonus if final_entropy_bonus is None else final_entropy_bonus)
        self.semi_sampling = semi_sampling
        self.score_function = score_function
        if samples < self.baseline.samples_needed:
            raise ValueError(
                f"The baseline {type(self.baseline).__name__} compares at least {self.baseline.samples_needed} "
                f"samples, but attention.estimator.samples is {samples}; draw more or choose "
                "attention/estimator/baseline=moving_average."
            )
        if not 0 <= semi_sampling <= 1:
            raise ValueError(f"attention.estimator.semi_sampling is a probability, found {semi_sampling}.")

    def anneal(self, progress: float) -> None:
        first, last = self._bonuses
        self.entropy_bonus = first + (last - first) * progress

    @property
    def paths(self) -> int:
        return self.samples + (self.baseline.reads is not None)

    @property
    def single(self) -> bool:
        return self.baseline.reads != "soft" and not self.semi_sampling

    def _draw(self, weights: Tensor, values: Tensor, samples: int) -> Candidates:
        drawn = sampled(weights, values, samples)
        if not self.semi_sampling:
            return drawn
        assert drawn.log_probs is not None
        soft = torch.rand(weights.shape[:-1], device=weights.device) < self.semi_sampling  # [..., T]
        contexts = torch.where(soft.unsqueeze(-1), expected(weights, values).contexts, drawn.contexts)
        return drawn._replace(contexts=contexts, log_probs=drawn.log_probs.masked_fill(soft, 0.0))

    def select(self, weights: Tensor, values: Tensor, posterior: Tensor | None = None) -> Candidates:
        drawn = self._draw(weights, values, self.samples)
        if self.baseline.reads is None:
            return drawn
        compared = MODES[self.baseline.reads](weights, values)
        return drawn._replace(
            contexts=torch.cat([drawn.contexts, compared.contexts]),
            log_weights=torch.cat([drawn.log_weights, torch.full_like(compared.log_weights, float("-inf"))]),
            positions=None,
        )

    def follow(self, weights: Tensor, values: Tensor) -> Candidates:
        if self.baseline.reads is None:
            drawn = self._draw(weights, values, 1)
            return drawn._replace(log_weights=uniform(drawn.log_weights, self.samples))
        rows = weights.shape[0] // self.paths * self.samples  # the last copy walks the path that is compared with
        drawn = self._draw(weights[:rows], values[:rows], 1)
        compared = MODES[self.baseline.reads](weights[rows:], values[rows:])
        assert drawn.positions is not None
        assert drawn.log_probs is not None
        return Candidates(
            contexts=torch.cat([drawn.contexts, compared.contexts], 1),
            log_weights=torch.cat(
                [
                    uniform(drawn.log_weights, self.samples),
                    torch.full_like(compared.log_weights, float("-inf")),
                ],
                1,
            ),
            weights=weights,
            positions=None if compared.positions is None else torch.cat([drawn.positions, compared.positions], 1),
            log_probs=torch.cat([drawn.log_probs, torch.zeros_like(compared.log_weights)], 1),
        )

    def objective(self, log_likelihoods: Tensor, candidates: Candidates, mask: Tensor, fed: bool = False) -> Objective:
        assert candidates.log_probs is not None
        rewards = log_likelihoods.detach() * mask
        if fed:
            later = torch.ones(2 * rewards.shape[-1:], dtype=rewards.dtype, device=rewards.device).tril()
            # not cumsum, which does not repeat on a GPU, nor a product, which autocast would round
            rewards = (rewards.unsqueeze(-1) * later).sum(-2) * mask
        count = len(rewards) - (self.baseline.reads is not None)
        compared, rewards = rewards[-1], rewards[:count]
        queries = candidates.queries
        if queries is not None and queries.dim() > mask.dim() + 1:  # each path has its own
            queries = queries[:count]
        baseline = self.baseline(rewards, mask, compared, queries)
        advantages = (rewards - baseline).detach()
        log_probs = candidates.log_probs[:count].masked_fill(~mask, 0.0)
        bound = token_mean(log_likelihoods[:count].mean(0), mask)
        spread = mean_entropy(candidates, mask, count)
        assert spread is not None
        score_function = token_mean((advantages * log_probs).mean(0), mask)
        loss = -(bound + score_function * self.score_function + self.entropy_bonus * spread)
        if self.baseline.learned:
            error = token_mean((rewards - baseline).square().mean(0), mask)
            loss = loss + error / (
                1 + error.detach()
            )  # of bounded gradient, lest clipping by the norm drown the model's
        real = advantages[:, mask]
        return Objective(
            loss,
            {
                "nll": -bound.detach(),
                "advantage_mean": real.mean(),
                "advantage_std": real.std(correction=0),
                "attention_entropy": spread.detach(),
            },
        )
