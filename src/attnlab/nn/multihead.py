"""Multi-head attention: any attention mechanism in several heads, for ViT and Transformer alike."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from attnlab.attention import Attention, Candidates, Expectation, Memory, ScaledDotScore, Softmax
from attnlab.kernels.dot_product import chunk
from attnlab.kernels.products import Linear, side_by_side

AttentionFactory = Callable[..., Attention]
"""(query_size=Q, key_size=D) -> Attention, a new one at each call."""

SCALED: AttentionFactory = partial(Attention, ScaledDotScore, Softmax, Expectation)
"""Soft scaled dot-product attention: what a model has wherever no variant was asked for."""


class MultiHeadAttention(nn.Module):
    """H attentions side by side, on projections of width D / H (Vaswani et al. 2017, section 3.2.2).

    Heads are a leading dimension of what an attention sees, queries [N, H, T, D / H] over values [N, H, S, D / H]; its
    score's parameters are those of all heads.

    Args:
        attention: factory of the attention.
        size: width D of queries, keys and outputs.
        heads: number of heads H.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(self, attention: AttentionFactory, size: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or size % heads:
            raise ValueError(
                f"{heads} heads do not divide a width of {size} evenly; choose model.heads among its divisors, or "
                "another width."
            )
        self.heads = heads
        self.query = Linear(size, size)
        self.key_value = Linear(size, 2 * size)
        self.out = Linear(size, size)
        self.attention = attention(query_size=size // heads, key_size=size // heads)
        for layer in (self.query, self.key_value):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.query, self.key_value, self.out):
            nn.init.zeros_(layer.bias)

    def prepare(self, source: Tensor, mask: Tensor | None = None) -> Memory:
        """What attention reads of a source [N, S, D] with a mask broadcastable to [N, H, T, S]."""
        keys, values = (self._split(part) for part in chunk(self.key_value(source), 2))
        return self.attention.prepare(values, mask, keys=keys)

    def project(self, inputs: Tensor, mask: Tensor | None = None, first: int | None = None) -> tuple[Tensor, Memory]:
        """The queries [N, H, T, D / H] of inputs [N, S, D] and what attention reads of the same inputs; T = S, or the
        number of the first that query."""
        if first is not None:
            return self._split(self.query(inputs[:, :first])), self.prepare(inputs, mask)
        parts = chunk(side_by_side(inputs, self.query, self.key_value), 3)
        queries, keys, values = (self._split(part) for part in parts)
        return queries, self.attention.prepare(values, mask, keys=keys)

    def extend(self, inputs: Tensor, past: Memory | None, start: int) -> tuple[Tensor, Memory]:
        """A step of self-attention in a search: inputs [N, 1, D], at target step `start`, attend to themselves and to
        the past. Returns outputs [N, 1, D], and the past of the next step."""
        queries, own = self.project(inputs)
        if past is not None:
            own = past.append(own)
        attended, _ = self.attend(queries, own, start)
        return attended.squeeze(0), own

    def forward(
        self, inputs: Tensor, memory: Memory, start: int = 0, *, follow: bool = True, maps: bool = False
    ) -> tuple[Tensor, Candidates]:
        """Attends with inputs [N, T, D], the first at target step `start`; see `attend`."""
        return self.attend(self._split(self.query(inputs)), memory, start, follow=follow, maps=maps)

    def attend(
        self, queries: Tensor, memory: Memory, start: int = 0, *, follow: bool = True, maps: bool = False
    ) -> tuple[Tensor, Candidates]:
        """Attends with queries that are projected already, the first at target step `start`.

        Args:
            queries: [N, H, T, D / H].
            memory: as `prepare` made it.
            start: the target step of the first query.
            follow: while training, read one context a row, of `estimator.paths` copies of the batch; else all
                candidates.
            maps: whether the weights are asked for, even where a fused kernel would do without.

        Returns:
            outputs [K, N, T, D] (K = 1 where the rows are copies), and the candidates of all heads, [K, N, H, T, ...].
        """
        contexts, candidates = self.read(queries, memory, start, follow=follow, maps=maps)
        outputs: Tensor = self.out(contexts)
        return outputs, candidates

    def read(
        self, queries: Tensor, memory: Memory, start: int = 0, *, follow: bool = True, maps: bool = False
    ) -> tuple[Tensor, Candidates]:
        """As `attend`, but what the output layer is to be given: the heads' contexts side by side, [K, N, T, D]."""
        candidates: Candidates = self.attention(queries, memory, start, follow=follow, maps=maps)
        return candidates.contexts.transpose(-3, -2).flatten(-2), candidates

    def _split(self, inputs: Tensor) -> Tensor:
        """[N, S, D] -> [N, H, S, D / H]."""
        return inputs.view(*inputs.shape[:-1], self.heads, inputs.shape[-1] // self.heads).transpose(-3, -2)


def share_estimator(layers: list[MultiHeadAttention]) -> None:
    """Gives all layers the first one's estimator: their choices are credited together, by one baseline."""
    for layer in layers[1:]:
        layer.attention.estimator = layers[0].attention.estimator


def paths(part: Tensor, copies: int) -> Tensor:
    """Copies of a batch, told apart: [K B, ...] -> [K, B, ...]."""
    return part.view(copies, len(part) // copies, *part.shape[1:])


def credit(records: list[Candidates], copies: int) -> Candidates:
    """The choices of several layers and heads as one record of what they share: the answer to an input.

    Log-probabilities are summed over layers, heads and queries, entropies averaged, so that an estimator's objective
    takes the answer for a target of one step.

    Args:
        records: of each layer, [K, N, H, T, ...]; N rows are `copies` of the batch of B, or the K
            candidates are told apart.
        copies: of the batch; 1 where there are none.

    Returns:
        a record [K, B, 1, ...] without contexts, whose weights are the last layer's, a mean over heads [N, T, S].
    """
    last = records[-1]

    def whole(part: Tensor) -> Tensor:  # [K, N, ...] -> [K, B, 1]
        return part.view(-1, part.shape[1] // copies, 1)

    drawn = [record.log_probs.flatten(2).sum(2) for record in records if record.log_probs is not None]
    spreads = [record.entropy() for record in records]
    known = [spread.flatten(1).mean(1) for spread in spreads if spread is not None]  # [N]
    rows = last.weights.shape[0]
    queries = records[0].queries
    entropies = torch.stack(known).mean(0) if len(known) == len(records) else None
    shape = (rows // copies, 1) if copies == 1 else (copies, rows // copies, 1)
    return Candidates(
        contexts=last.contexts.new_empty(0),
        log_weights=whole(last.log_weights[..., 0, 0]),
        weights=last.weights.mean(1),
        positions=None,
        log_probs=whole(torch.stack(drawn).sum(0)) if drawn else None,
        queries=None if queries is None else queries.mean((1, 2)).view(*shape, -1),
        entropies=None if entropies is None else entropies.view(shape),
    )
