"""Scores: e_ij = score(q_i, k_j), how well source position j answers query i."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from attnlab.kernels.additive import additive_scores
from attnlab.kernels.products import Linear
from attnlab.kernels.steps import dots


class Score(nn.Module, ABC):
    """Scores every query against every key.

    What depends on the keys alone is computed once per source by `prepare`; `forward` does the rest at each query.

    Args:
        query_size: width Q of the queries.
        key_size: width D of the keys.
    """

    def __init__(self, query_size: int, key_size: int) -> None:
        super().__init__()
        self.query_size = query_size
        self.key_size = key_size

    def prepare(self, keys: Tensor) -> Tensor:
        """Returns what `forward` needs of the keys [..., S, D]; by default the keys themselves."""
        return keys

    @abstractmethod
    def forward(self, query: Tensor, prepared: Tensor) -> Tensor:
        """Returns scores [..., T, S] for queries [..., T, Q] and prepared keys [..., S, *]."""


class AdditiveScore(Score):
    """e_ij = v^T tanh(W q_i + U k_j + b): Bahdanau, Cho and Bengio 2015, section 3.1 and appendix A.1.2.

    Args:
        size: width A of the alignment layer.
    """

    def __init__(self, query_size: int, key_size: int, size: int = 256) -> None:
        super().__init__(query_size, key_size)
        self.query = Linear(query_size, size, bias=False)
        self.key = Linear(key_size, size)
        self.energy = nn.Linear(size, 1, bias=False)

    def prepare(self, keys: Tensor) -> Tensor:
        """Returns U k_j + b, [..., S, A]; in the precision of the scores where a search will read them step by step."""
        projected: Tensor = self.key(keys)
        return projected if torch.is_grad_enabled() else projected.to(torch.promote_types(keys.dtype, torch.float32))

    def forward(self, query: Tensor, prepared: Tensor) -> Tensor:
        return additive_scores(self.query(query), prepared, self.energy.weight.squeeze(0))


class DotScore(Score):
    """e_ij = q_i^T k_j: Luong, Pham and Manning 2015, equation 8 (dot).

    Raises:
        ValueError: if queries and keys differ in width.
    """

    def __init__(self, query_size: int, key_size: int) -> None:
        super().__init__(query_size, key_size)
        if query_size != key_size:
            raise ValueError(
                f"{type(self).__name__} multiplies queries and keys of one width, but the queries are {query_size} "
                f"wide and the keys {key_size}; make the widths equal or use attention/score=general."
            )

    def forward(self, query: Tensor, prepared: Tensor) -> Tensor:
        return dots(query, prepared)


class ScaledDotScore(DotScore):
    """e_ij = q_i^T k_j / sqrt(d): Vaswani et al. 2017, equation 1."""

    def forward(self, query: Tensor, prepared: Tensor) -> Tensor:
        return super().forward(query * (1.0 / math.sqrt(self.key_size)), prepared)


class GeneralScore(Score):
    """e_ij = q_i^T W k_j: Luong, Pham and Manning 2015, equation 8 (general).

    The parameter is sqrt(Q) W. Adam moves every entry by the learning rate, and Q x D entries that move together would
    move a score by many nats a step; so parametrised, they move it as those of a scaled dot product do.
    """

    def __init__(self, query_size: int, key_size: int) -> None:
        super().__init__(query_size, key_size)
        self.key = Linear(key_size, query_size, bias=False)
        self.scale = 1.0 / math.sqrt(query_size)

    def prepare(self, keys: Tensor) -> Tensor:
        """Returns sqrt(Q) W k_j, [..., S, Q]."""
        projected: Tensor = self.key(keys)
        return projected

    def forward(self, query: Tensor, prepared: Tensor) -> Tensor:
        return dots(query * self.scale, prepared)
