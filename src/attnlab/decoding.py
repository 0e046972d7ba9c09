"""Search: from a trained model to output sequences, greedily or with a beam, for every estimator. Pure torch.

A model is searched through two methods: `start(source) -> state` and `step(tokens, state) -> (log_probs, weights,
state)`; a state has `select(rows)`. Rows N are hypotheses; k is the beam width.
"""

from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

S = TypeVar("S", bound="State")


class State(Protocol):
    """A search state: all its tensors have the rows first."""

    def select(self: S, rows: Tensor) -> S:
        """The state of the given rows (long [M])."""


class Searchable(Protocol[S]):
    """A model that can be searched."""

    def start(self, source: Tensor) -> S:
        """Encodes sources [B, S]: the state before the first step, one row a source."""

    def step(self, tokens: Tensor, state: S) -> tuple[Tensor, Tensor, S]:
        """From the last tokens [N]: log p(next) [N, V], attention weights [N, S], the next state."""


class Hypothesis(NamedTuple):
    """One output: ids without begin and end, the log-probability in nats, and weights [T + 1, S] (with the end)."""

    tokens: list[int]
    score: float
    weights: Tensor


def length_limits(source: Tensor, padding: int, ratio: float = 1.5, extra: int = 15) -> Tensor:
    """The most steps [B] that each source [B, S] may take: a limit of its own, whatever batch it is in."""
    return ((source != padding).sum(1) * ratio).long() + extra


@torch.no_grad()
def greedy(model: Searchable[S], source: Tensor, limits: Tensor, begin: int, end: int) -> list[Hypothesis]:
    """Takes the most probable token at every step, for sources [B, S] and at most `limits` [B] steps."""
    count = source.shape[0]
    state = model.start(source)
    live = torch.arange(count, device=source.device)
    last = source.new_full((count,), begin)
    tokens: list[list[int]] = [[] for _ in range(count)]
    scores = [0.0] * count
    maps: list[list[Tensor]] = [[] for _ in range(count)]
    step = 0
    while live.numel():
        log_probs, weights, state = model.step(last, state)
        best, last = log_probs.max(1)
        step += 1
        for row, token, score, row_weights in zip(
            live.tolist(), last.tolist(), best.tolist(), weights.unbind(0), strict=True
        ):
            tokens[row].append(token)
            scores[row] += score
            maps[row].append(row_weights)
        going = (last != end) & (limits[live] > step)
        if not bool(going.all()):
            kept = going.nonzero().squeeze(1)
            live, last, state = live[kept], last[kept], state.select(kept)
    return [
        Hypothesis([token for token in row if token != end], score, torch.stack(row_maps))
        for row, score, row_maps in zip(tokens, scores, maps, strict=True)
    ]


def length_penalty(length: Tensor | int, alpha: float) -> Tensor | float:
    """((5 + length) / 6)^alpha: Wu et al. 2016 (GNMT), equation 14."""
    return ((5 + length) / 6) ** alpha


class _Beams(NamedTuple):
    """k hypotheses for each of B sources; T steps so far."""

    tokens: Tensor  # [B, k, T]
    scores: Tensor  # [B, k], -inf where there is none
    weights: Tensor  # [B, k, T, S]

    def order(self, beams: Tensor) -> "_Beams":
        """Reorders the hypotheses of each source by `beams` [B, k']."""
        rows = torch.arange(beams.shape[0], device=beams.device).unsqueeze(1)
        return _Beams(self.tokens[rows, beams], self.scores[rows, beams], self.weights[rows, beams])

    def keep(self, rows: Tensor) -> "_Beams":
        return _Beams(self.tokens[rows], self.scores[rows], self.weights[rows])

    def extend(self, tokens: Tensor, scores: Tensor, weights: Tensor) -> "_Beams":
        """Appends one step: tokens [B, k], new scores [B, k], weights [B, k, S]."""
        return _Beams(
            torch.cat([self.tokens, tokens.unsqueeze(-1)], -1),
            scores,
            torch.cat([self.weights, weights.unsqueeze(-2)], -2),
        )


@torch.no_grad()
def beam(
    model: Searchable[S],
    source: Tensor,
    limits: Tensor,
    begin: int,
    end: int,
    width: int = 5,
    alpha: float = 1.0,
) -> list[Hypothesis]:
    """Beam search for sources [B, S] with at most `limits` [B] steps; finished sources leave the batch.

    Hypotheses are ranked by log p(y) / length_penalty(|y|, alpha). A source is finished when `width` hypotheses are
    complete and the best open one ranks below all of them.

    Returns:
        the best hypothesis of each source, in order; `score` is its log p(y), unpenalised.
    """
    count, device = source.shape[0], source.device
    results: list[Hypothesis | None] = [None] * count
    live = torch.arange(count, device=device)
    state = model.start(source).select(live.repeat_interleave(width))
    width_s = source.shape[1]
    open_ = _Beams(
        source.new_empty((count, width, 0)),
        torch.full((count, width), float("-inf"), device=device).index_fill_(1, live.new_zeros(1), 0.0),
        torch.empty((count, width, 0, width_s), device=device),
    )
    # complete hypotheses; their scores here are the penalised ones
    done = _Beams(open_.tokens, torch.full_like(open_.scores, float("-inf")), open_.weights)
    lengths = source.new_zeros((count, width))
    last = source.new_full((count * width,), begin)
    step = 0
    while live.numel():
        step += 1
        log_probs, weights, state = model.step(last, state)
        total = open_.scores.unsqueeze(-1) + log_probs.view(live.numel(), width, -1)
        vocabulary = total.shape[-1]
        scores, flat = total.flatten(1).topk(min(2 * width, total[0].numel()), 1)
        origin, token = flat // vocabulary, flat % vocabulary
        row_weights = weights.view(live.numel(), width, -1)
        rows = torch.arange(live.numel(), device=device).unsqueeze(1)
        extended = open_.order(origin).extend(token, scores, row_weights[rows, origin])

        # an end among the best `width` completes its hypothesis; at the limit, every open one is complete
        at_limit = (limits[live] <= step).unsqueeze(1)
        ranked = torch.arange(scores.shape[1], device=device) < width
        ends = token == end
        completes = (ends | at_limit) & ranked & scores.isfinite()
        penalised = (scores / length_penalty(step, alpha)).masked_fill(~completes, float("-inf"))
        padded = _Beams(
            torch.nn.functional.pad(done.tokens, (0, 1), value=end),
            done.scores,
            torch.nn.functional.pad(done.weights, (0, 0, 0, 1)),
        )
        pool = _Beams(
            torch.cat([padded.tokens, extended.tokens], 1),
            torch.cat([padded.scores, penalised], 1),
            torch.cat([padded.weights, extended.weights], 1),
        )
        best, index = pool.scores.topk(width, 1)
        pool_lengths = torch.cat([lengths, torch.full_like(token, step)], 1)
        done, lengths = pool.order(index), pool_lengths.gather(1, index)

        open_scores, index = scores.masked_fill(ends, float("-inf")).topk(width, 1)
        open_ = extended.order(index)._replace(scores=open_scores)
        origin = origin.gather(1, index)
        last = open_.tokens[..., -1]

        finished = at_limit.squeeze(1) | (best[:, -1] >= open_scores[:, 0] / length_penalty(step, alpha))
        for row in finished.nonzero().squeeze(1).tolist():
            length = int(lengths[row, 0])
            tokens = done.tokens[row, 0, :length].tolist()
            results[int(live[row])] = Hypothesis(
                [t for t in tokens if t != end],
                float(best[row, 0] * length_penalty(length, alpha)),
                done.weights[row, 0, :length],
            )
        kept = (~finished).nonzero().squeeze(1)
        state = state.select((kept.unsqueeze(1) * width + origin[kept]).flatten())
        live, last, lengths = live[kept], last[kept].flatten(), lengths[kept]
        open_, done = open_.keep(kept), done.keep(kept)
    return [result for result in results if result is not None]
