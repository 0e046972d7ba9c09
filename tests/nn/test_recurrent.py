import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attnlab.nn.recurrent import BidirectionalEncoder, RecurrentState, RecurrentStep, make_rnn, reverse

B, S, E, H = 3, 5, 4, 6
LENGTHS = torch.tensor([3, 5, 1])
kinds = pytest.mark.parametrize("kind", ["lstm", "gru"])
depths = pytest.mark.parametrize("layers", [1, 2])


def inputs(width=E, length=S):
    random = torch.Generator().manual_seed(0)
    return torch.randn(B, length, width, generator=random, dtype=torch.float64)


def encoder_and_reference(kind, layers):
    """Our encoder, and torch's bidirectional layer with a copy of its weights."""
    torch.manual_seed(0)
    ours = BidirectionalEncoder(kind, E, H, layers, dropout=0.0).double()
    rnn = nn.LSTM if kind == "lstm" else nn.GRU
    reference = rnn(E, H, layers, batch_first=True, bidirectional=True).double()
    with torch.no_grad():
        for layer in range(layers):
            for part, suffix in ((ours.forwards[layer], ""), (ours.backwards[layer], "_reverse")):
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    getattr(reference, f"{name}_l{layer}{suffix}").copy_(getattr(part, f"{name}_l0"))
    return ours, reference


@kinds
@depths
def test_the_encoder_equals_torch_s_packed_bidirectional_layers_with_gradients(kind, layers):
    ours, reference = encoder_and_reference(kind, layers)
    ours_in, reference_in = inputs().requires_grad_(), inputs().requires_grad_()
    outputs, finals = ours(ours_in, LENGTHS)
    packed = pack_padded_sequence(reference_in, LENGTHS, batch_first=True, enforce_sorted=False)
    packed, last = reference(packed)
    expected, _ = pad_packed_sequence(packed, batch_first=True, total_length=S)
    last = last[0] if kind == "lstm" else last
    expected_finals = last.view(layers, 2, B, H).permute(2, 0, 1, 3).reshape(B, layers, 2 * H)
    real = torch.arange(S) < LENGTHS.unsqueeze(1)
    torch.testing.assert_close(outputs[real], expected[real])
    torch.testing.assert_close(finals, expected_finals)

    slope, final_slope = torch.randn_like(expected[real]), torch.randn_like(finals)
    ((outputs[real] * slope).sum() + (finals * final_slope).sum()).backward()
    ((expected[real] * slope).sum() + (expected_finals * final_slope).sum()).backward()
    torch.testing.assert_close(ours_in.grad, reference_in.grad)
    assert (ours_in.grad[~real] == 0).all()
    for layer in range(layers):
        for part, suffix in ((ours.forwards[layer], ""), (ours.backwards[layer], "_reverse")):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                torch.testing.assert_close(
                    getattr(part, f"{name}_l0").grad, getattr(reference, f"{name}_l{layer}{suffix}").grad
                )


@kinds
def test_the_encoder_does_not_see_padding(kind):
    ours, _ = encoder_and_reference(kind, 2)
    plain, real = inputs(), torch.arange(S) < LENGTHS.unsqueeze(1)
    noisy = torch.where(real.unsqueeze(-1), plain, 99.0)
    longer = torch.cat([noisy, torch.full((B, 2, E), -7.0, dtype=torch.float64)], 1)
    outputs, finals = ours(plain, LENGTHS)
    for other in (noisy, longer):
        other_outputs, other_finals = ours(other, LENGTHS)
        torch.testing.assert_close(other_outputs[:, :S][real], outputs[real])
        torch.testing.assert_close(other_finals, finals)
    for row in range(B):
        alone, _ = ours(plain[row : row + 1, : LENGTHS[row]], LENGTHS[row : row + 1])
        torch.testing.assert_close(alone[0], outputs[row, : LENGTHS[row]])


def test_reverse_turns_real_steps_around_and_is_its_own_inverse():
    sequences = torch.arange(15).view(3, 5)
    reversed_ = reverse(sequences, LENGTHS)
    assert reversed_.tolist() == [[2, 1, 0, 3, 4], [9, 8, 7, 6, 5], [10, 11, 12, 13, 14]]
    assert torch.equal(reverse(reversed_, LENGTHS), sequences)


def test_an_unknown_cell_is_refused_with_the_cells_there_are():
    with pytest.raises(ValueError, match=r"'rnn'; the recurrent cells are lstm and gru\."):
        make_rnn("rnn", 2, 3, 1, 0.0)


def first_state(kind, layers):
    random = torch.Generator().manual_seed(1)
    hidden, cell = torch.randn(2, B, layers, H, generator=random, dtype=torch.float64)
    return RecurrentState(hidden, cell if kind == "lstm" else None)


@kinds
@depths
def test_unrolled_steps_equal_the_fused_run_with_gradients(kind, layers):
    torch.manual_seed(0)
    stack = RecurrentStep(kind, E, 0, H, layers, dropout=0.5).double().eval()
    sequence = inputs()
    fused, fused_last = stack(sequence, first_state(kind, layers))
    state, outputs = first_state(kind, layers), []
    for gates in stack.project(sequence).unbind(1):
        state = stack.step(gates, None, state)
        outputs.append(state.hidden[:, -1])
    unrolled = torch.stack(outputs, 1)
    torch.testing.assert_close(unrolled, fused)
    torch.testing.assert_close(state.hidden, fused_last.hidden)
    assert (state.cell is None) == (kind == "gru")
    if kind == "lstm":
        torch.testing.assert_close(state.cell, fused_last.cell)
    slope = torch.randn_like(fused)
    for a, b in zip(
        torch.autograd.grad(fused, list(stack.parameters()), slope),
        torch.autograd.grad(unrolled, list(stack.parameters()), slope),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@kinds
@depths
def test_what_is_fed_enters_beside_the_known_input(kind, layers):
    torch.manual_seed(0)
    stack = RecurrentStep(kind, E, 3, H, layers, dropout=0.0).double()
    sequence, feeds = inputs(), inputs(width=3)
    whole, _ = stack(torch.cat([sequence, feeds], -1), first_state(kind, layers))
    state = first_state(kind, layers)
    for t in range(S):
        state = stack.step(stack.project(sequence[:, t]), feeds[:, t], state)
        torch.testing.assert_close(state.hidden[:, -1], whole[:, t])
