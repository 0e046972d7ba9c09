"""Dropout whose mask is cheap to draw, and may be applied where a kernel has the numbers at hand."""

import ctypes
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attnlab.kernels import batched, load, serves

_DTYPES = (torch.float32, torch.bfloat16)


class Kept(NamedTuple):
    """Which elements of a tensor dropout keeps.

    Attributes:
        bits: int16, as many as there are elements; those of at least the threshold are kept.
        threshold: so that dropout has the probability (threshold + 2^15) / 2^16.
    """

    bits: Tensor
    threshold: int

    @classmethod
    def draw(cls, size: int, probability: float, device: torch.device) -> "Kept":
        """Draws for `size` elements.

        On the processor a compiled kernel makes them, all threads at once, of one number that torch's generator draws,
        so that they repeat under a seed. Elsewhere, and without a compiler, torch draws four from each 64-bit number (a
        Bernoulli variable at a time would take longer), and where the drawing is compiled one from each of 16 bits.
        """
        threshold = min(round(probability * 2**16), 2**16 - 1) - 2**15
        if torch.compiler.is_compiling():  # the compiler does not know the view
            return cls(torch.randint(-(2**15), 2**15, (size,), dtype=torch.int16, device=device), threshold)
        words = torch.empty((size + 3) // 4, dtype=torch.int64, device=device)
        if serves((torch.int64,), words) and (kernel := _kernel()) is not None:
            seed = int(torch.empty((), dtype=torch.int64, device="cpu").random_(-(2**63), None))
            kernel.dropout_draw(words.data_ptr(), len(words), seed, torch.get_num_threads())
        else:
            words.random_(-(2**63), None)  # all 64 bits
        return cls(words.view(torch.int16)[:size], threshold)

    @property
    def scale(self) -> float:
        """What the elements that are kept are multiplied by."""
        return 1 / (1 - (self.threshold + 2**15) / 2**16)

    def apply(self, inputs: Tensor) -> Tensor:
        """Inverted dropout of the tensor that this was drawn for; on the processor by a compiled kernel, in one
        pass."""
        if serves(_DTYPES, inputs) and serves((torch.int16,), self.bits) and _kernel() is not None:
            found: Tensor = _Apply.apply(inputs, self)  # type: ignore[no-untyped-call]
            return found
        return naive_apply(inputs, self)


def naive_apply(inputs: Tensor, kept: Kept) -> Tensor:
    """The reference of `Kept.apply`."""
    keep = (kept.bits >= kept.threshold).view_as(inputs)
    return inputs * keep.to(inputs.dtype).mul_(kept.scale)


@cache
def _kernel() -> ctypes.CDLL | None:
    library = load("dropout")
    if library is not None:
        library.dropout_draw.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64]
        pointers, numbers = [ctypes.c_void_p] * 3, [ctypes.c_int64] * 2
        library.dropout_apply.argtypes = [*pointers, *numbers, ctypes.c_float, *numbers]
        for function in (library.dropout_draw, library.dropout_apply):
            function.restype = None
    return library


class _Apply(torch.autograd.Function):
    """Its gradient is itself."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, kept: Kept) -> Tensor:
        kernel = _kernel()
        assert kernel is not None
        ctx.save_for_backward(kept.bits)
        ctx.threshold = kept.threshold
        inputs = inputs.contiguous()
        outputs = torch.empty_like(inputs)
        places = (x.data_ptr() for x in (inputs, kept.bits, outputs))
        brain = inputs.dtype == torch.bfloat16
        kernel.dropout_apply(*places, inputs.numel(), kept.threshold, kept.scale, brain, torch.get_num_threads())
        return outputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (bits,) = ctx.saved_tensors
        kept = Kept(bits, ctx.threshold)
        return naive_apply(grad, kept) if batched(grad) else kept.apply(grad), None
