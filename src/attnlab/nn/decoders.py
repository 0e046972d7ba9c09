"""Recurrent decoders: where attention sits in the recurrence, and whether its context is fed back."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.attention import Candidates, Memory
from attnlab.kernels.loops import Loop
from attnlab.kernels.products import Linear
from attnlab.nn.multihead import AttentionFactory, paths
from attnlab.nn.recording import Recorder
from attnlab.nn.recurrent import CellKind, RecurrentState, RecurrentStep

_RECORDED = 8  # steps and source positions of a recording are multiples of this


class DecoderState(NamedTuple):
    """What a decoder carries from step to step: its recurrent state, what it feeds back [N, F] (None if nothing), and
    the number of steps it has made."""

    recurrent: RecurrentState
    feed: Tensor | None
    steps: int = 0

    def after(self, recurrent: RecurrentState, feed: Tensor | None) -> "DecoderState":
        """The state one step later."""
        return DecoderState(recurrent, feed, self.steps + 1)

    def select(self, rows: Tensor) -> "DecoderState":
        """The state of the given rows (long [M])."""
        hidden, cell = self.recurrent
        chosen = RecurrentState(hidden[rows], None if cell is None else cell[rows])
        return self._replace(recurrent=chosen, feed=None if self.feed is None else self.feed[rows])

    def repeat(self, times: int) -> "DecoderState":
        """The state of `times` copies of the batch, one copy after the other."""
        return self.select(
            torch.arange(self.recurrent.hidden.shape[0], device=self.recurrent.hidden.device).repeat(times)
        )


class Decoded(NamedTuple):
    """A decoded sequence: its candidates, and how their features for the readout are made.

    Where contexts were fed back, `candidates.contexts` is empty, and each of K > 1 candidates has weights of its own,
    [K, B, T, S].

    Attributes:
        number: of candidates, K.
        features: from a slice of them to features [k, B, T, R].
        candidates: the candidates.
    """

    number: int
    features: Callable[[slice], Tensor]
    candidates: Candidates


class Decoder(nn.Module, ABC):
    """A recurrent decoder with attention.

    Args:
        attention: factory of the attention.
        input_size: width E of the target embeddings.
        key_size: width D of the encoder's outputs.
        size: width H of the recurrence.
        readout_size: width R of the features.
        layers: number of recurrent layers L.
        cell: lstm or gru.
        dropout: probability between layers.
        feed_size: width of what is fed back at each step; 0 for nothing.
    """

    def __init__(
        self, *, attention: AttentionFactory, input_size: int, key_size: int, size: int, readout_size: int,
        layers: int, cell: CellKind, dropout: float, feed_size: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attention = attention(query_size=size, key_size=key_size)
        self._recorder: Recorder | None = None
        self.cell: CellKind = cell
        self.feed_size = feed_size
        self.recurrence = RecurrentStep(cell, input_size, feed_size, size, layers, dropout)
        self.initial_hidden = Linear(key_size, size)
        self.initial_cell = Linear(key_size, size) if cell == "lstm" else None
        reason = self.attention.estimator.unfeedable
        if feed_size and reason:
            raise ValueError(
                f"{type(self).__name__} feeds its context back, but {type(self.attention.estimator).__name__} "
                f"{reason}; choose model/decoder=luong with model.decoder.input_feeding=false, or "
                "attention/estimator=reinforce."
            )

    @property
    def modes(self) -> tuple[str, ...]:
        """The test modes that this decoder can run; the exact marginal needs contexts that are not fed back."""
        modes = self.attention.estimator.modes
        return tuple(mode for mode in modes if mode != "exact") if self.feed_size else modes

    def prepare(self, states: Tensor, mask: Tensor) -> Memory:
        """What attention reads of a source, from the encoder's states [B, S, D] and their mask [B, 1, S]."""
        return self.attention.prepare(states, mask)

    def start(self, finals: Tensor) -> DecoderState:
        """The first state, from the encoder's last hidden states [B, L, D]: s_0 = tanh(W h)."""
        hidden = self.initial_hidden(finals).tanh()
        cell = None if self.initial_cell is None else self.initial_cell(finals)
        feed = finals.new_zeros(finals.shape[0], self.feed_size) if self.feed_size else None
        return DecoderState(RecurrentState(hidden, cell), feed)

    @abstractmethod
    def advance(self, projected: Tensor, memory: Memory, state: DecoderState) -> tuple[DecoderState, Candidates]:
        """One step from the projected embedding [N, G H]: the new state and the candidates [K, N, 1, D]."""

    def _only(self, candidates: Candidates) -> Tensor:
        """The context [N, D] to feed back, of the only candidate that a row may have."""
        if candidates.contexts.shape[0] != 1:
            raise ValueError(
                f"{type(self).__name__} feeds one context back, but there are {candidates.contexts.shape[0]} "
                f"candidates; read it in one of the modes {', '.join(self.modes)}."
            )
        return candidates.contexts[0, :, 0]

    @abstractmethod
    def features(self, hidden: Tensor, feed: Tensor | None, contexts: Tensor, embedded: Tensor) -> Tensor:
        """Features [K, N, T, R] of hidden states [N, T, H], what was fed on [N, T, F] and contexts [K, N, T, D]."""

    def step(self, embedded: Tensor, memory: Memory, state: DecoderState) -> tuple[Tensor, Candidates, DecoderState]:
        """One step of a search from embeddings [N, E]: features [K, N, R], candidates (T = 1) and the new state."""
        state, candidates = self.advance(self.recurrence.project(embedded), memory, state)
        hidden = state.recurrent.top
        feed = None if state.feed is None else state.feed.unsqueeze(1)
        return self.features(hidden, feed, candidates.contexts, embedded.unsqueeze(1)).squeeze(2), candidates, state

    def forward(
        self, embedded: Tensor, memory: Memory, state: DecoderState, posterior: Tensor | None = None
    ) -> Decoded:
        """Decodes embeddings [B, T, E] of the given target; posterior [B, T, S] as an inference network gives it."""
        return self._unroll(embedded, memory, state)

    def _unroll(self, embedded: Tensor, memory: Memory, state: DecoderState) -> Decoded:
        """Step by step; on a GPU, where launching the steps' kernels takes the time, from a recording if possible."""
        if embedded.is_cuda and self.training and self.attention.recordable and memory.mask is not None:
            return self._replay(embedded, memory, state)
        return self._walk(embedded, memory, state)

    def _replay(self, embedded: Tensor, memory: Memory, state: DecoderState) -> Decoded:
        """`_walk` by a recorder. Steps and source positions are filled up, so that a recording serves more shapes."""
        length, size = embedded.shape[1], memory.values.shape[1]
        steps, places = ((0, -count % _RECORDED) for count in (length, size))
        assert memory.mask is not None
        if self._recorder is None:
            self._recorder = Recorder(self._walk_tensors, self)
        features, weights, queries = self._recorder(
            F.pad(embedded, (0, 0, *steps)), F.pad(memory.keys, (0, 0, *places)), F.pad(memory.values, (0, 0, *places)),
            F.pad(memory.mask, places), *(x for x in (*state.recurrent, state.feed) if x is not None),
        )  # fmt: skip
        features, weights, queries = features[:, :, :length], weights[:, :length, :size], queries[:, :length]
        candidates = Candidates(
            weights.new_empty(0), weights.new_zeros(1, *weights.shape[:-1]), weights, queries=queries
        )
        return Decoded(1, features.__getitem__, candidates)

    def _walk_tensors(
        self, embedded: Tensor, keys: Tensor, values: Tensor, mask: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        """`_walk` from tensors to tensors: the features, weights and queries of attention that draws nothing."""
        hidden, *rest = state
        cell = rest.pop(0) if self.cell == "lstm" else None
        started = DecoderState(RecurrentState(hidden, cell), rest.pop() if rest else None)
        decoded = self._walk(embedded, Memory(keys, values, mask), started)
        queries = decoded.candidates.queries
        assert queries is not None
        return decoded.features(slice(None)), decoded.candidates.weights, queries

    def _walk(self, embedded: Tensor, memory: Memory, state: DecoderState) -> Decoded:
        """Step by step. An estimator that samples runs its candidates as copies of the batch, each on its own path."""
        copies = self.attention.estimator.paths if self.training else 1
        batch, length, _ = embedded.shape
        projected = self.recurrence.project(embedded)
        if copies > 1:
            rows = torch.arange(batch, device=embedded.device).repeat(copies)
            memory, state = memory.select(rows), state.repeat(copies)
            projected, embedded = projected.repeat(copies, 1, 1), embedded.repeat(copies, 1, 1)
        states, steps = [], []
        with Loop():
            for gates in projected.unbind(1):
                state, candidates = self.advance(gates, memory, state)
                states.append(state)
                steps.append(candidates)
        hidden = torch.cat([state.recurrent.top for state in states], 1)
        feed = torch.stack([state.feed for state in states if state.feed is not None], 1)
        contexts = torch.cat([step.contexts for step in steps], -2)
        features = self.features(hidden, feed, contexts, embedded)  # [1, K B, T, R]
        features = features.view(copies, batch, length, features.shape[-1])
        return Decoded(copies, features.__getitem__, _join(steps, copies))


def _join(steps: list[Candidates], copies: int) -> Candidates:
    """Joins the candidates of T steps, each [1, K B, 1, ...], to one record of [K, B, T, ...]."""

    def join(parts: list[Tensor | None]) -> Tensor | None:
        found = [part for part in parts if part is not None]
        return paths(torch.cat(found, -1)[0], copies) if found else None

    def join_rows(parts: list[Tensor | None]) -> Tensor | None:
        found = [part for part in parts if part is not None]
        rows = torch.cat(found, -2)  # [K B, T, *]
        return paths(rows, copies) if copies > 1 else rows

    weights = join_rows([step.weights for step in steps])
    log_weights = join([step.log_weights for step in steps])
    assert weights is not None
    assert log_weights is not None
    return Candidates(
        contexts=weights.new_empty(0),
        log_weights=log_weights,
        weights=weights,
        positions=join([step.positions for step in steps]),
        log_probs=join([step.log_probs for step in steps]),
        queries=join_rows([step.queries for step in steps]),
    )


class LuongDecoder(Decoder):
    """Attention after the recurrence: h_t = RNN(y_{t-1}, h_{t-1}), c_t = attend(h_t), features tanh(W [h_t; c_t]).

    Luong, Pham and Manning 2015, equations 5 and 6, with or without the input feeding of section 3.3. Without it the
    recurrence runs fused over the whole target and attention over all steps at once.

    Args:
        input_feeding: whether the features (the attentional hidden state) enter the next step.
    """

    def __init__(
        self, *, readout_size: int, key_size: int, size: int, input_feeding: bool = False, **kwargs: object
    ) -> None:
        super().__init__(
            readout_size=readout_size,
            key_size=key_size,
            size=size,
            feed_size=readout_size if input_feeding else 0,
            **kwargs,  # type: ignore[arg-type]
        )
        self.from_hidden = Linear(size, readout_size)
        self.from_context = Linear(key_size, readout_size, bias=False)

    def prepare(self, states: Tensor, mask: Tensor) -> Memory:
        """The values are W_c h_j, projected once a source, not once a step and candidate: W_c c = sum_j a_j W_c h_j."""
        return self.attention.prepare(self.from_context(states), mask, keys=states)

    def _combine(self, hidden: Tensor, contexts: Tensor) -> Tensor:
        combined: Tensor = self.from_hidden(hidden) + contexts
        return combined.tanh()

    def advance(self, projected: Tensor, memory: Memory, state: DecoderState) -> tuple[DecoderState, Candidates]:
        recurrent = self.recurrence.step(projected, state.feed, state.recurrent)
        hidden = recurrent.top
        candidates: Candidates = self.attention(hidden, memory, state.steps, follow=self.feed_size > 0)
        feed = self._combine(hidden.squeeze(1), self._only(candidates)) if self.feed_size else None
        return state.after(recurrent, feed), candidates

    def features(self, hidden: Tensor, feed: Tensor | None, contexts: Tensor, embedded: Tensor) -> Tensor:
        return self._combine(hidden, contexts) if feed is None else feed.unsqueeze(0)

    def forward(
        self, embedded: Tensor, memory: Memory, state: DecoderState, posterior: Tensor | None = None
    ) -> Decoded:
        if self.feed_size:
            return self._unroll(embedded, memory, state)
        hidden, _ = self.recurrence(embedded, state.recurrent)
        candidates = self.attention(hidden, memory, state.steps, posterior)
        contexts = candidates.contexts
        return Decoded(len(contexts), lambda part: self._combine(hidden, contexts[part]), candidates)


class BahdanauDecoder(Decoder):
    """Attention before the recurrence: c_t = attend(s_{t-1}), s_t = RNN([y_{t-1}; c_t], s_{t-1}).

    Bahdanau, Cho and Bengio 2015, section 3.1; the context is always fed in. The features are
    tanh(W [s_t; c_t; y_{t-1}]), a tanh layer in the place of the paper's maxout.
    """

    def __init__(self, *, input_size: int, key_size: int, size: int, readout_size: int, **kwargs: object) -> None:
        super().__init__(
            input_size=input_size,
            key_size=key_size,
            size=size,
            readout_size=readout_size,
            feed_size=key_size,
            **kwargs,  # type: ignore[arg-type]
        )
        self.combine = Linear(size + key_size + input_size, readout_size)

    def advance(self, projected: Tensor, memory: Memory, state: DecoderState) -> tuple[DecoderState, Candidates]:
        candidates: Candidates = self.attention(state.recurrent.top, memory, state.steps, follow=True)
        context = self._only(candidates)
        recurrent = self.recurrence.step(projected, context, state.recurrent)
        return state.after(recurrent, context), candidates

    def features(self, hidden: Tensor, feed: Tensor | None, contexts: Tensor, embedded: Tensor) -> Tensor:
        combined: Tensor = self.combine(torch.cat([hidden, contexts[0], embedded], -1))
        return combined.tanh().unsqueeze(0)
