"""A recording is the function that it was made from, gradients included; on a GPU. Elsewhere the function is called."""

import copy
import io
from functools import partial

import pytest
import torch
from torch import nn

from attnlab.attention import AdditiveScore, Attention, Expectation, GeneralScore, LocalMonotonic, Softmax, Sparsemax
from attnlab.nn.decoders import BahdanauDecoder, LuongDecoder
from attnlab.nn.recording import Recorder, _Recording
from attnlab.nn.seq2seq import RNNSeq2Seq

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
DECODERS = {"bahdanau": BahdanauDecoder, "luong": partial(LuongDecoder, input_feeding=True)}
VOCABULARY = 11


def model(decoder="luong", score=GeneralScore, normalizer=Softmax, **options):
    torch.manual_seed(0)
    options = {"embedding": 8, "encoder_size": 8, "decoder_size": 16, "dropout": 0.0} | options
    return RNNSeq2Seq(
        attention=partial(Attention, score, normalizer, Expectation), decoder=DECODERS[decoder],
        source_vocabulary=VOCABULARY, target_vocabulary=VOCABULARY, **options,
    ).train()  # fmt: skip


def batch(rows, source, target, seed=0, device="cpu"):
    """Ids without and with padding: sources [rows, source], targets behind the begin symbol, targets."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (3, rows, max(source, target)), generator=random)
    for row in range(1, rows):
        ids[:, row, max(1, min(source, target) - row) :] = 0
    return tuple(part.to(device) for part in (ids[0, :, :source], ids[1, :, :target], ids[2, :, :target]))


def outcome(seq2seq, given):
    """Log-likelihoods, weights, and all gradients of the objective."""
    scored, candidates = seq2seq(*given)
    objective = seq2seq.objective(scored, candidates, given[2] != 0)
    parameters = [x for x in seq2seq.parameters() if x.requires_grad]
    grads = torch.autograd.grad(objective.loss, parameters, allow_unused=True)
    return [scored.detach(), candidates.weights.detach(), *(x for x in grads if x is not None)]


@pytest.mark.parametrize("decoder", list(DECODERS))
@pytest.mark.parametrize(("cell", "layers"), [("lstm", 1), ("gru", 2)])
@pytest.mark.parametrize("normalizer", [Softmax, LocalMonotonic])
def test_steps_and_positions_that_fill_up_change_nothing(monkeypatch, decoder, cell, layers, normalizer):
    seq2seq = model(decoder, normalizer=normalizer, cell=cell, layers=layers).double()
    for sizes in ((3, 5, 7), (2, 8, 16), (1, 9, 1)):
        given = batch(*sizes)
        expected = outcome(seq2seq, given)
        with monkeypatch.context() as patch:
            patch.setattr(type(seq2seq.decoder), "_unroll", type(seq2seq.decoder)._replay)
            found = outcome(seq2seq, given)
        torch.testing.assert_close(found, expected)
    assert seq2seq.decoder._recorder is not None


def test_copies_of_a_module_have_no_recordings():
    seq2seq = model()
    seq2seq.decoder._recorder = Recorder(seq2seq.decoder._walk_tensors, seq2seq.decoder)
    assert copy.deepcopy(seq2seq).decoder._recorder is None
    file = io.BytesIO()
    torch.save(Recorder(torch.sin, nn.Module()), file)
    file.seek(0)
    assert torch.load(file, weights_only=False) is None


@pytest.fixture
def on_gpu(monkeypatch):
    """Counts the recordings that are made, and those that are played."""
    monkeypatch.delenv("ATTNLAB_KERNELS", raising=False)
    counts = {"made": 0, "played": 0}

    def counting(name, method):
        def counted(*args, **kwargs):
            counts[name] += 1
            return method(*args, **kwargs)

        return counted

    monkeypatch.setattr(_Recording, "__init__", counting("made", _Recording.__init__))
    monkeypatch.setattr(_Recording, "forward", counting("played", _Recording.forward))
    return counts


@needs_gpu
@pytest.mark.parametrize("decoder", list(DECODERS))
@pytest.mark.parametrize("score", [GeneralScore, AdditiveScore])
@pytest.mark.parametrize("options", [{}, {"layers": 2, "cell": "gru"}], ids=str)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_model_trains_by_recordings_as_without(on_gpu, monkeypatch, decoder, score, options, dtype):
    """Over shapes that come again, with weights that a step changes in between."""
    found = []
    for kernels in ("on", "off"):
        monkeypatch.setenv("ATTNLAB_KERNELS", kernels)
        seq2seq = model(decoder, score, **options).cuda()
        optimizer = torch.optim.SGD(seq2seq.parameters(), lr=0.1)
        steps = []
        for turn, sizes in enumerate([(4, 5, 7), (4, 5, 7), (4, 6, 8), (4, 12, 20), (4, 9, 17), (4, 5, 5), (3, 5, 7)]):
            given = batch(*sizes, seed=turn, device="cuda")
            with torch.autocast("cuda", dtype, enabled=dtype is not None):
                scored, candidates = seq2seq(*given)
                loss = seq2seq.objective(scored, candidates, given[2] != 0).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.append((scored.detach(), candidates.weights.detach()))
        found.append(([x for step in steps for x in step], [x.detach().clone() for x in seq2seq.parameters()]))
    assert on_gpu == {"made": 2, "played": 4}
    close = {"rtol": 1e-3, "atol": 1e-4} if dtype is None else {"rtol": 0.1, "atol": 0.05}
    for recorded, plain in zip(*found, strict=True):
        torch.testing.assert_close(recorded, plain, **close)


@needs_gpu
def test_gradients_add_up_and_a_second_forward_pass_before_the_backward_pass_is_a_plain_call(on_gpu):
    seq2seq = model().cuda()
    given = batch(4, 5, 7, device="cuda")
    expected = outcome(seq2seq, given)  # seen once: a plain call

    def loss():
        scored, candidates = seq2seq(*given)
        return seq2seq.objective(scored, candidates, given[2] != 0).loss

    first, second = loss(), loss()
    assert on_gpu == {"made": 1, "played": 1}
    (first + second).backward()
    loss().backward()
    assert on_gpu == {"made": 1, "played": 2}
    grads = [x.grad for x in seq2seq.parameters() if x.grad is not None]
    torch.testing.assert_close(grads, [3 * x for x in expected[2:]], rtol=1e-3, atol=1e-5)


@needs_gpu
def test_what_cannot_be_recorded_is_called(on_gpu):
    given = batch(4, 5, 7, device="cuda")
    sparse = model(normalizer=Sparsemax).cuda()
    for _ in range(3):
        outcome(sparse, given)
    seq2seq = model().cuda()
    with torch.no_grad():
        for _ in range(3):
            seq2seq(*given)
    waiting = Recorder(lambda x: (x * float(x.sum()),), nn.Module())
    x = torch.randn(3, device="cuda", requires_grad=True)
    for _ in range(3):
        torch.testing.assert_close(waiting(x)[0], x * x.sum())
    assert on_gpu == {"made": 1, "played": 0}, "what waits for the device is tried once"
    assert torch.randn(3, device="cuda").isfinite().all(), "random numbers still come"


@needs_gpu
def test_a_backward_pass_that_comes_a_second_time_is_refused():
    recorder = Recorder(lambda x: (x.sin(),), nn.Module())
    x = torch.randn(3, device="cuda", requires_grad=True)
    recorder(x)
    (y,) = recorder(x)
    (grad,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    torch.testing.assert_close(grad, x.cos())
    with pytest.raises(RuntimeError, match="ATTNLAB_KERNELS=off"):
        y.sum().backward()
