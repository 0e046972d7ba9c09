"""The log-likelihood of targets under the softmax of logits, and the gradient of the logits.

Kernels for the processor, in single precision or bfloat16, which compute in single precision. Everything else is served
by the references: other devices and types, subclasses of tensors, the transforms of torch.func, graphs that are traced
or compiled, machines without a compiler, and ATTNLAB_KERNELS=off.
"""

import ctypes
from functools import cache

import torch
from torch import Tensor

from attnlab.kernels import load, serves

_DTYPES = (torch.float32, torch.bfloat16)
_BLOCK = 32  # rows whose shares of the bias's gradient the kernel adds up


def log_likelihoods(logits: Tensor, targets: Tensor, smoothing: float, types: int) -> tuple[Tensor, Tensor]:
    """(1 - s) log p(target) + s mean_v log p(v) (Szegedy et al. 2016), for label smoothing s.

    Args:
        logits: contiguous, [N, W], of which the first `types` of a row are read.
        targets: long [N], from 0 to types - 1.
        smoothing: s.
        types: number of types V.

    Returns:
        Those and log Z, [N] each, in single precision or wider.
    """
    if not (_is_served(logits, targets) and _are_types(targets, types)) or (kernel := _kernel()) is None:
        return naive_log_likelihoods(logits, targets, smoothing, types)
    found, normalizers = logits.new_empty(2, len(logits), dtype=torch.float32)
    kernel.likelihood_forward(
        logits.data_ptr(), targets.data_ptr(), found.data_ptr(), normalizers.data_ptr(),
        _sizes(logits, smoothing, types), logits.dtype == torch.bfloat16,
    )  # fmt: skip
    return found, normalizers


def naive_log_likelihoods(logits: Tensor, targets: Tensor, smoothing: float, types: int) -> tuple[Tensor, Tensor]:
    """The reference of `log_likelihoods`."""
    wide = logits[:, :types].to(torch.promote_types(logits.dtype, torch.float32))
    normalizers = wide.logsumexp(1)
    gold = wide.gather(1, targets.unsqueeze(1)).squeeze(1)
    if smoothing:
        gold = gold.lerp(wide.mean(1), smoothing)
    return gold - normalizers, normalizers


def logit_gradients(
    logits: Tensor, targets: Tensor, normalizers: Tensor, grad: Tensor, smoothing: float, types: int
) -> tuple[Tensor, Tensor]:
    """The gradients of `log_likelihoods`: g ((1 - s) onehot + s / V - P), with probabilities P.

    Args:
        logits: as they were given; the kernel uses them up.
        targets: as they were given.
        normalizers: log Z, [N].
        grad: g, [N].
        smoothing: s.
        types: V.

    Returns:
        For the logits [N, W], in their type, 0 beyond the types; and its sum over rows, [W] in single precision or
        wider.
    """
    if not _is_served(logits, targets) or (kernel := _kernel()) is None:
        return naive_logit_gradients(logits, targets, normalizers, grad, smoothing, types)
    rows, width = logits.shape
    grad = grad.float().contiguous()
    to_bias = logits.new_empty(-(-rows // _BLOCK), width, dtype=torch.float32)
    kernel.likelihood_backward(
        logits.data_ptr(), targets.data_ptr(), normalizers.data_ptr(), grad.data_ptr(),
        to_bias.data_ptr(), _sizes(logits, smoothing, types), logits.dtype == torch.bfloat16,
    )  # fmt: skip
    return logits, to_bias.sum(0)  # in their place: half of the time is memory's


def naive_logit_gradients(
    logits: Tensor, targets: Tensor, normalizers: Tensor, grad: Tensor, smoothing: float, types: int
) -> tuple[Tensor, Tensor]:
    """The reference of `logit_gradients`."""
    flow = (logits.to(normalizers.dtype) - normalizers.unsqueeze(1)).exp_().neg_()
    if smoothing:
        flow[:, :types] += smoothing / types
    flow[torch.arange(len(flow), device=flow.device), targets] += 1 - smoothing
    flow.mul_(grad.unsqueeze(1))
    return flow.to(logits.dtype), flow.sum(0)


def _is_served(logits: Tensor, targets: Tensor) -> bool:
    return (
        serves(_DTYPES, logits)
        and serves((torch.int64,), targets)
        and logits.numel() > 0
        and logits.is_contiguous()
        and targets.is_contiguous()
    )


def _are_types(targets: Tensor, types: int) -> bool:
    lowest, highest = targets.aminmax()
    return int(lowest) >= 0 and int(highest) < types


class _Sizes(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "types", "width", "threads")), ("smoothing", ctypes.c_float),
    )  # fmt: skip


def _sizes(logits: Tensor, smoothing: float, types: int) -> "ctypes._CArgObject":
    return ctypes.byref(_Sizes(*(len(logits), types, logits.shape[1], torch.get_num_threads()), smoothing))


@cache
def _kernel() -> ctypes.CDLL | None:
    library = load("likelihood")
    if library is not None:
        at = ctypes.c_void_p
        library.likelihood_forward.argtypes = [at] * 5 + [ctypes.c_int64]
        library.likelihood_backward.argtypes = [at] * 6 + [ctypes.c_int64]
        library.likelihood_forward.restype = library.likelihood_backward.restype = None
    return library
