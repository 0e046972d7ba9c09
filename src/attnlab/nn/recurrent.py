"""Recurrent layers, run over whole sequences (fused) or a step at a time."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.kernels.products import linear
from attnlab.kernels.steps import lstm_cell
from attnlab.nn.dropout import Dropout

CellKind = Literal["lstm", "gru"]


class RecurrentState(NamedTuple):
    """The state between two steps: hidden [N, L, H], and the LSTM's cell [N, L, H] (None for a GRU)."""

    hidden: Tensor
    cell: Tensor | None

    @property
    def top(self) -> Tensor:
        """The last layer's hidden state, [N, 1, H]."""
        return self.hidden if self.hidden.shape[1] == 1 else self.hidden[:, -1:]


def make_rnn(kind: CellKind, input_size: int, size: int, layers: int, dropout: float) -> nn.LSTM | nn.GRU:
    """A stack of unidirectional LSTM or GRU layers, batch first, with dropout between layers."""
    if kind not in ("lstm", "gru"):
        raise ValueError(f"model.cell is {kind!r}; the recurrent cells are lstm and gru.")
    rnn_class = nn.LSTM if kind == "lstm" else nn.GRU
    return rnn_class(input_size, size, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)


def reverse(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Reverses the first `lengths[n]` steps of each sequence [N, S, ...] and leaves its padding in place."""
    steps = torch.arange(sequences.shape[1], device=sequences.device)
    ends = lengths.unsqueeze(1)
    order = torch.where(steps < ends, ends - 1 - steps, steps)  # [N, S]
    return sequences.gather(1, order.view(*order.shape, *[1] * (sequences.dim() - 2)).expand_as(sequences))


class BidirectionalEncoder(nn.Module):
    """A stack of bidirectional recurrent layers (Schuster and Paliwal 1997) over right-padded sequences.

    Each direction runs unpacked over the padded batch, the backward one over sequences reversed within their
    lengths, so that both use the fused kernels; padding follows the real steps and cannot reach them.

    Args:
        kind: lstm or gru.
        input_size: width of the inputs.
        size: width H of each direction; the outputs are 2H wide.
        layers: number of layers L.
        dropout: probability between layers.
    """

    def __init__(self, kind: CellKind, input_size: int, size: int, layers: int, dropout: float) -> None:
        super().__init__()
        widths = [input_size] + [2 * size] * (layers - 1)
        self.forwards = nn.ModuleList(make_rnn(kind, width, size, 1, 0.0) for width in widths)
        self.backwards = nn.ModuleList(make_rnn(kind, width, size, 1, 0.0) for width in widths)
        self.dropout = Dropout(dropout)

    def forward(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes inputs [B, S, I] with real lengths [B].

        Returns:
            outputs [B, S, 2H] (undefined at padding), and the last hidden states of both directions [B, L, 2H].
        """
        last = (lengths - 1).clamp_min(0).view(-1, 1, 1)  # an empty source is the normalizer's to refuse
        finals: list[Tensor] = []
        outputs = inputs
        for layer, (ahead, back) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            if layer > 0:
                outputs = self.dropout(outputs)
            runs = ahead(outputs)[0], back(reverse(outputs, lengths))[0]
            finals.append(torch.cat([run.gather(1, last.expand(-1, 1, run.shape[-1])).squeeze(1) for run in runs], -1))
            outputs = torch.cat([runs[0], reverse(runs[1], lengths)], -1)
        return outputs, torch.stack(finals, 1)


class RecurrentStep(nn.Module):
    """A recurrent stack that can run fused over a sequence or one step at a time, on the same parameters.

    Its input is split in two: what is known beforehand (embeddings, projected for all steps at once by `project`)
    and what a step feeds back. Only the fed half enters the loop.

    Args:
        kind: lstm or gru.
        input_size: width of the known half.
        feed_size: width of the fed half; 0 for none.
        size: width H.
        layers: number of layers L.
        dropout: probability between layers.
    """

    def __init__(self, kind: CellKind, input_size: int, feed_size: int, size: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.kind = kind
        self.input_size = input_size
        self.layers = layers
        self.dropout = dropout
        self.rnn = make_rnn(kind, input_size + feed_size, size, layers, dropout)

    def _weights(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w_ih, w_hh, b_ih, b_hh = (getattr(self.rnn, f"{name}_l{layer}") for name in names)
        return w_ih, w_hh, b_ih, b_hh

    def forward(self, inputs: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Runs the fused stack over inputs [N, T, I] (nothing fed): outputs [N, T, H] and the last state."""
        hidden = state.hidden.transpose(0, 1).contiguous()
        if state.cell is None:
            outputs, last = self.rnn(inputs, hidden)
            return outputs, RecurrentState(last.transpose(0, 1), None)
        outputs, (last, cell) = self.rnn(inputs, (hidden, state.cell.transpose(0, 1).contiguous()))
        return outputs, RecurrentState(last.transpose(0, 1), cell.transpose(0, 1))

    def project(self, inputs: Tensor) -> Tensor:
        """Projects the known half of the input, [N, ..., I], to the first layer's gates, [N, ..., G H]."""
        w_ih, _, b_ih, b_hh = self._weights(0)
        # an LSTM adds both biases; a GRU gates the recurrent one, which therefore stays in the step
        return linear(inputs, w_ih, b_ih + b_hh if self.kind == "lstm" else b_ih, slice(0, self.input_size))

    def _input(self, layer: int, below: Tensor) -> Tensor:
        """What a layer's gates get from below: from what is fed (layer 0) or from the layer before, without biases."""
        return linear(below, self._weights(layer)[0], columns=slice(self.input_size if layer == 0 else 0, None))

    def _recurrent(self, layer: int, hidden: Tensor) -> Tensor:
        """What a layer's gates get from its own last state, without biases."""
        return linear(hidden, self._weights(layer)[1])

    def step(self, projected: Tensor, feed: Tensor | None, state: RecurrentState) -> RecurrentState:
        """One step from the projected input [N, G H] and the fed half [N, F]: the new state."""
        hiddens: list[Tensor] = []
        cells: list[Tensor] = []
        before = state.hidden.unbind(1)  # whose gradient is one tensor, not one a layer as large as all
        cells_before = () if state.cell is None else state.cell.unbind(1)
        gates = projected if feed is None else projected + self._input(0, feed)
        for layer in range(self.layers):
            _, _, b_ih, b_hh = self._weights(layer)
            if layer > 0:
                below = F.dropout(hiddens[-1], self.dropout, self.training)
                gates = self._input(layer, below) + (b_ih + b_hh if self.kind == "lstm" else b_ih)
            hidden = before[layer]
            if cells_before:
                hidden, cell = lstm_cell(gates, self._recurrent(layer, hidden), cells_before[layer])
                hiddens.append(hidden)
                cells.append(cell)
            else:
                r_in, z_in, n_in = gates.chunk(3, -1)
                r_rec, z_rec, n_rec = (self._recurrent(layer, hidden) + b_hh).chunk(3, -1)
                update = (z_in + z_rec).sigmoid()
                candidate = (n_in + (r_in + r_rec).sigmoid() * n_rec).tanh()
                hiddens.append(candidate + update * (hidden - candidate))
        return RecurrentState(_stack(hiddens), _stack(cells) if cells else None)


def _stack(layers: list[Tensor]) -> Tensor:
    """[N, H] of L layers as [N, L, H], without a copy of the only one."""
    return torch.stack(layers, 1) if len(layers) > 1 else layers[0].unsqueeze(1)
