"""Attention = score -> normalizer -> estimator."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attnlab.attention.estimators import Estimator, Expectation
from attnlab.attention.normalizers import Normalizer, Softmax, refuse_empty_rows
from attnlab.attention.scores import ScaledDotScore, Score
from attnlab.attention.selection import MODES, Candidates
from attnlab.kernels.dot_product import dot_product_attention
from attnlab.kernels.steps import attend_one


class Memory(NamedTuple):
    """What a source offers to attention, computed once per source.

    Attributes:
        keys: [..., S, *], the keys as the score prepared them.
        values: [..., S, D].
        mask: bool, broadcastable to [..., T, S], True at real positions; None if all are.
        rows: long [N], of each row of queries its row of all these, where rows share them; None where each has its own.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None
    rows: Tensor | None = None

    def select(self, rows: Tensor) -> "Memory":
        """The memory of the given rows (long [N]) of the first dimension."""
        if self.rows is not None:
            return self._replace(rows=self.rows[rows])
        return Memory(self.keys[rows], self.values[rows], None if self.mask is None else self.mask[rows])

    def shared(self) -> "Memory":
        """This memory, of which `select` copies nothing from now on."""
        return self._replace(rows=torch.arange(len(self.keys), device=self.keys.device))

    def apart(self) -> "Memory":
        """This memory with a row of its own for each row of queries."""
        return self if self.rows is None else self._replace(rows=None).select(self.rows)

    def append(self, later: "Memory") -> "Memory":
        """This source and the positions that follow it, all of them real."""
        return Memory(torch.cat([self.keys, later.keys], -2), torch.cat([self.values, later.values], -2), None)


class Attention(nn.Module):
    """One attention mechanism: any score, normalised any way, read by any estimator.

    The three parts are given as factories, so that each layer of a model owns its modules.

    Args:
        score: (query_size, key_size) -> Score.
        normalizer: (query_size=Q) -> Normalizer.
        estimator: (query_size=Q) -> Estimator.
        query_size: width Q of the queries.
        key_size: width D of keys and values.
    """

    def __init__(
        self,
        score: Callable[[int, int], Score],
        normalizer: Callable[..., Normalizer],
        estimator: Callable[..., Estimator],
        *,
        query_size: int,
        key_size: int,
    ) -> None:
        super().__init__()
        self.score = score(query_size, key_size)
        self.normalizer = normalizer(query_size=query_size)
        self.estimator = estimator(query_size=query_size)
        self.mode: str | None = None

    @property
    def fusible(self) -> bool:
        """Whether a fused kernel gives the same contexts: softmax(q K^T / sqrt(d)) V, read as an expectation."""
        return (
            type(self.score) is ScaledDotScore
            and type(self.normalizer) is Softmax
            and self.normalizer.temperature == 1
            and (type(self.estimator) is Expectation if self.training else (self.mode or self.estimator.mode) == "soft")
        )

    @property
    def recordable(self) -> bool:
        """Whether a CUDA graph may hold this attention, as it trains."""
        return self.estimator.recordable and self.normalizer.recordable

    def prepare(self, values: Tensor, mask: Tensor | None = None, keys: Tensor | None = None) -> Memory:
        """Prepares a source: values [..., S, D] (also the keys, unless those are given) and mask as in `Memory`.

        Raises:
            ValueError: if a row of the mask allows no position.
        """
        refuse_empty_rows(mask)
        return Memory(self.score.prepare(values if keys is None else keys), values, mask)

    def weights(self, query: Tensor, memory: Memory, start: int = 0) -> Tensor:
        """Returns the attention weights [..., T, S] of queries [..., T, Q], the first at target step `start`."""
        weights: Tensor = self.normalizer(self.score(query, memory.keys), memory.mask, query, start)
        return weights

    def forward(
        self, query: Tensor, memory: Memory, start: int = 0, posterior: Tensor | None = None,
        follow: bool = False, maps: bool = True,
    ) -> Candidates:  # fmt: skip
        """Attends: queries [..., T, Q] to the candidate contexts.

        While training, the estimator selects; in evaluation the test mode does: the one set by `reading`, else the
        estimator's own.

        Args:
            query: [..., T, Q].
            memory: as `prepare` made it.
            start: the target step of the first query.
            posterior: weights [..., T, S] of an inference network, for an estimator that is guided.
            follow: give each row one context to feed back; the rows are `estimator.paths` copies of the batch.
            maps: whether the weights are asked for; where they are not, a fused kernel may hide them.
        """
        if self.fusible and not maps:
            return _fused(query, memory.apart())
        if self.fusible and query.dim() == 4 and query.shape[2] == 1 and not self.training:
            return _fused_step(query, memory)
        memory = memory.apart()
        weights = self.weights(query, memory, start)
        if not self.training:
            candidates = MODES[self.mode or self.estimator.mode](weights, memory.values)
        elif follow:
            candidates = self.estimator.follow(weights, memory.values)
        else:
            candidates = self.estimator.select(weights, memory.values, posterior)
        return candidates._replace(queries=query)


def _fused(query: Tensor, memory: Memory) -> Candidates:
    """Scaled dot-product attention by a fused kernel: the weights are never made."""
    refuse_empty_rows(memory.mask)
    contexts = dot_product_attention(query, memory.keys, memory.values, memory.mask).unsqueeze(0)
    return Candidates(contexts, contexts.new_zeros(contexts.shape[:-1]), contexts.new_empty(*query.shape[:-1], 0))


def _fused_step(query: Tensor, memory: Memory) -> Candidates:
    """The same of one query [N, H, 1, Q] a row, with its weights."""
    refuse_empty_rows(memory.mask)
    contexts, weights = attend_one(query, *memory)
    contexts = contexts.unsqueeze(0)
    return Candidates(contexts, contexts.new_zeros(contexts.shape[:-1]), weights, queries=query)


@contextmanager
def reading(model: nn.Module, mode: str) -> Iterator[None]:
    """Within this context every attention of a model in evaluation that has the test mode `mode` is read in it (see
    `MODES`); the others, soft ones among hard, stay as they are."""
    if mode not in MODES:
        raise ValueError(f"There is no test mode {mode!r}; the modes are {', '.join(MODES)}.")
    layers = [module for module in model.modules() if isinstance(module, Attention) and mode in module.estimator.modes]
    before = [layer.mode for layer in layers]
    try:
        for layer in layers:
            layer.mode = mode
        yield
    finally:
        for layer, mode_before in zip(layers, before, strict=True):
            layer.mode = mode_before
