"""Search: from a trained model to output sequences, greedily or with a beam, for every estimator.

A model is searched through two methods: `start(source) -> state` and `step(tokens, state) -> (log_probs, weights,
state)`; a state has `select(rows, same_sources)`. Rows N are hypotheses; k is the beam width.
"""

from itertools import accumulate, chain
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from attnlab.kernels.steps import largest

S = TypeVar("S", bound="State")


class State(Protocol):
    """A search state: all its tensors have the rows first."""

    def select(self: S, rows: Tensor, same_sources: bool = False) -> S:
        """The state of the given rows (long [M]); with `same_sources` each of them takes the place of a row of the same
        source, so that what belongs to the source alone may stay where it is."""


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


class _End(NamedTuple):
    """How the output of a source ends: its last token was chosen in a row of its last step."""

    source: int
    steps: int
    row: int
    token: int
    score: float


class _Trails:
    """The steps that a search has taken: of each, where its rows come from, and what they attended to.

    Nothing is copied from step to step; hypotheses are read backwards, once, when all are complete.
    """

    def __init__(self) -> None:
        self._origins: list[tuple[list[int], list[int]]] = []  # of each step's rows: the row before, the token between
        self._weights: list[Tensor] = []  # [N, S] each

    def stepped(self, weights: Tensor) -> None:
        """Adds the weights [N, S] of a step's rows."""
        self._weights.append(weights)

    def goes_on(self, rows: Tensor, tokens: Tensor) -> None:
        """Says from which rows [M] of the last step, by which tokens [M], the rows of the next one come."""
        self._origins.append((rows.tolist(), tokens.tolist()))

    def hypotheses(self, ends: list[_End], end: int) -> list[Hypothesis]:
        """The outputs of all sources, in order, whose end symbol is `end`."""
        if not ends:
            return []
        ends = sorted(ends)
        begins = list(accumulate((len(weights) for weights in self._weights), initial=0))
        texts, places = [], []
        for _, steps, row, token, _ in ends:
            tokens, rows = [token], [begins[steps - 1] + row]
            for step in reversed(range(steps - 1)):
                before, between = self._origins[step]
                tokens.append(between[row])
                row = before[row]
                rows.append(begins[step] + row)
            texts.append([token for token in reversed(tokens) if token != end])
            places.append(rows[::-1])
        whole = torch.cat(self._weights)
        read = whole[torch.tensor(list(chain(*places)), device=whole.device)].split([len(rows) for rows in places])
        scores = (found.score for found in ends)
        return [Hypothesis(*parts) for parts in zip(texts, scores, read, strict=True)]


@torch.no_grad()
def greedy(model: Searchable[S], source: Tensor, limits: Tensor, begin: int, end: int) -> list[Hypothesis]:
    """Takes the most probable token at every step, for sources [B, S] and at most `limits` [B] steps."""
    count = source.shape[0]
    complete: list[_End] = []
    if not count:
        return []
    state = model.start(source)
    live = torch.arange(count, device=source.device)
    last = source.new_full((count,), begin)
    scores = torch.zeros(count, dtype=torch.float64, device=source.device)
    zeros = torch.zeros(count, 1, device=source.device)
    trails = _Trails()
    step = 0
    while live.numel():
        log_probs, weights, state = model.step(last, state)
        step += 1
        trails.stepped(weights)
        best, last = (part[:, 0] for part in largest(zeros[: len(live)], log_probs.unsqueeze(1), 1))
        scores = scores + best
        going = (last != end) & (limits[live] > step)
        if bool(going.all()):
            trails.goes_on(torch.arange(len(live)), last)
            continue
        gone, kept = (part.nonzero().squeeze(1) for part in (~going, going))
        ended = (part[gone].tolist() for part in (live, last, scores))
        complete += [
            _End(source_row, step, row, token, score)
            for row, source_row, token, score in zip(gone.tolist(), *ended, strict=True)
        ]
        live, last, scores, state = live[kept], last[kept], scores[kept], state.select(kept)
        trails.goes_on(kept, last)
    return trails.hypotheses(complete, end)


def length_penalty(length: Tensor | int, alpha: float) -> Tensor | float:
    """((5 + length) / 6)^alpha: Wu et al. 2016 (GNMT), equation 14."""
    return ((5 + length) / 6) ** alpha


class _Complete(NamedTuple):
    """The best complete hypotheses of each source, k of them: penalised scores (-inf where there is none), number of
    steps, row in the last of these, and last token; each [B, k]."""

    scores: Tensor
    steps: Tensor
    rows: Tensor
    tokens: Tensor

    def best(self, others: "_Complete") -> "_Complete":
        """The k best of both, in order."""
        scores, index = torch.cat([self.scores, others.scores], 1).topk(self.scores.shape[1], 1)
        pairs = zip(self[1:], others[1:], strict=True)
        return _Complete(scores, *(torch.cat(pair, 1).gather(1, index) for pair in pairs))

    def keep(self, rows: Tensor) -> "_Complete":
        return _Complete(*(part[rows] for part in self))


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

    Raises:
        ValueError: if the width is not positive.
    """
    if width < 1:
        raise ValueError(f"A beam is 1 or more wide, found {width}.")
    count, device = source.shape[0], source.device
    complete: list[_End] = []
    if not count:
        return []
    live = torch.arange(count, device=device)
    state = model.start(source)
    trails = _Trails()
    open_scores = torch.zeros(count, 1, device=device)  # log p of the open hypotheses; all begin with the same one
    nothing = source.new_zeros((count, width))
    done = _Complete(torch.full((count, width), float("-inf"), device=device), nothing, nothing, nothing)
    last = source.new_full((count,), begin)
    step = 0
    while live.numel():
        step += 1
        log_probs, weights, state = model.step(last, state)
        trails.stepped(weights)
        opened, vocabulary = open_scores.shape[1], log_probs.shape[1]
        scores, flat = largest(open_scores, log_probs.view(len(live), opened, vocabulary), 2 * width)
        row = torch.arange(len(live), device=device).unsqueeze(1) * opened + flat // vocabulary
        token = flat % vocabulary

        # an end among the best `width` completes its hypothesis; at the limit, every open one is complete
        at_limit = (limits[live] <= step).unsqueeze(1)
        ranked = torch.arange(scores.shape[1], device=device) < width
        ends = token == end
        completes = (ends | at_limit) & ranked & scores.isfinite()
        penalised = (scores / length_penalty(step, alpha)).masked_fill(~completes, float("-inf"))
        done = done.best(_Complete(penalised, torch.full_like(token, step), row, token))

        open_scores, index = scores.masked_fill(ends, float("-inf")).topk(min(width, scores.shape[1]), 1)
        row, token = row.gather(1, index), token.gather(1, index)

        finished = at_limit.squeeze(1) | (done.scores[:, -1] >= open_scores[:, 0] / length_penalty(step, alpha))
        gone, kept = (part.nonzero().squeeze(1) for part in (finished, ~finished))
        ended = (part[gone].tolist() for part in (live, done.steps[:, 0], done.rows[:, 0], done.tokens[:, 0]))
        complete += [
            _End(source_row, steps, first, last_token, float(penalised * length_penalty(steps, alpha)))
            for penalised, source_row, steps, first, last_token in zip(done.scores[gone, 0], *ended, strict=True)
        ]
        rows, last = row[kept].flatten(), token[kept].flatten()
        state = state.select(rows, same_sources=opened == open_scores.shape[1] and not len(gone))
        live, open_scores, done = live[kept], open_scores[kept], done.keep(kept)
        trails.goes_on(rows, last)
    return trails.hypotheses(complete, end)
