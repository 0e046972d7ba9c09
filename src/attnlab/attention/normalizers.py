"""Normalizers: alpha_i = normalise(e_i). The only place that knows masks."""

import weakref
from abc import ABC, abstractmethod
from collections import deque
from typing import ClassVar

import torch
from entmax import entmax15, sparsemax
from torch import Tensor, nn


class Normalizer(nn.Module, ABC):
    """Turns scores into a distribution over the source positions that the mask allows.

    Attributes:
        recordable: whether a CUDA graph may hold the normalisation: it does not wait for the device.

    Args:
        query_size: width Q of the queries.
    """

    recordable: ClassVar[bool] = True

    def __init__(self, query_size: int = 0) -> None:
        super().__init__()

    def forward(
        self, scores: Tensor, mask: Tensor | None = None, query: Tensor | None = None, start: int = 0
    ) -> Tensor:
        """Returns weights [..., T, S] in float32 or wider: rows sum to 1, masked positions hold exactly 0.

        Args:
            scores: [..., T, S].
            mask: bool, broadcastable to the scores, True where a position may be attended to; None allows all.
            query: [..., T, Q], the queries; for a window that depends on them.
            start: the target step of the first query; for a window that moves with it.

        Raises:
            ValueError: if a row has no allowed position, for there is no distribution over nothing.
        """
        refuse_empty_rows(mask)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))  # half precision sums drift from 1
        return self.normalize(scores, mask, query, start)

    @abstractmethod
    def normalize(self, scores: Tensor, mask: Tensor | None, query: Tensor | None, start: int) -> Tensor:
        """The normalisation itself, on scores of at least single precision and a mask that leaves no row empty."""


# the last masks that were found good, and how often each had been changed by then
_passed: "deque[tuple[weakref.ReferenceType[Tensor], int]]" = deque(maxlen=4)


def refuse_empty_rows(mask: Tensor | None) -> None:
    """Raises a ValueError if a row of the mask [..., S] allows no position.

    A mask that was looked at lately is not looked at again: in every step of a loop, a GPU would be waited for. One
    that was changed since is, but for those made in inference mode, which do not tell of it.
    """
    tracing = torch.compiler.is_compiling()
    if mask is None or (not tracing and torch._C._functorch.is_batchedtensor(mask)):  # of those one cannot say it
        return
    changes = 0 if tracing or mask.is_inference() else mask._version
    if not tracing and any(passed() is mask and then == changes for passed, then in tuple(_passed)):
        return
    if not bool(mask.any(-1).all()):
        row = (~mask.any(-1)).nonzero()[0].tolist()
        raise ValueError(
            f"Attention row {row} is fully masked: no source position is left to attend to. "
            "Every source needs at least one real position."
        )
    if not tracing:
        _passed.append((weakref.ref(mask), changes))


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1)


class Softmax(Normalizer):
    """alpha_ij = exp(e_ij / tau) / sum_j' exp(e_ij' / tau).

    Args:
        temperature: tau > 0; below 1 sharpens, above 1 flattens.
        query_size: width Q of the queries.
    """

    def __init__(self, temperature: float = 1.0, query_size: int = 0) -> None:
        super().__init__(query_size)
        if temperature <= 0:
            raise ValueError(f"The softmax temperature must be positive, found {temperature}.")
        self.temperature = temperature

    def normalize(self, scores: Tensor, mask: Tensor | None, query: Tensor | None, start: int) -> Tensor:
        return _softmax(scores if self.temperature == 1.0 else scores / self.temperature, mask)


class _Sparse(Normalizer):
    """A projection onto the simplex that gives most positions exactly 0; by the entmax package."""

    recordable = False

    def normalize(self, scores: Tensor, mask: Tensor | None, query: Tensor | None, start: int) -> Tensor:
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        # only differences to the largest score matter, and none of more than 2 has weight; finite, so that sums are
        scores = (scores - scores.amax(-1, keepdim=True).detach()).clamp_min(-8.0)
        return self.project(scores)

    @abstractmethod
    def project(self, scores: Tensor) -> Tensor:
        """The projection of scores whose largest is 0."""


class Sparsemax(_Sparse):
    """The Euclidean projection of the scores onto the simplex (Martins and Astudillo 2016)."""

    def project(self, scores: Tensor) -> Tensor:
        projected: Tensor = sparsemax(scores, dim=-1)
        return projected


class Entmax15(_Sparse):
    """entmax with alpha = 1.5, between softmax and sparsemax (Peters, Niculae and Martins 2019)."""

    def project(self, scores: Tensor) -> Tensor:
        projected: Tensor = entmax15(scores, dim=-1)
        return projected


class LocalMonotonic(Normalizer):
    """Softmax within a window around the target step, p_t = t (Luong, Pham and Manning 2015, section 3.2, local-m).

    Past the end of the source the window stays at the last position.

    Args:
        window: D; positions p_t - D to p_t + D may be attended to.
        query_size: width Q of the queries.

    Raises:
        ValueError: if the window is negative.
    """

    def __init__(self, window: int = 5, query_size: int = 0) -> None:
        super().__init__(query_size)
        self.window = _checked(window)

    def normalize(self, scores: Tensor, mask: Tensor | None, query: Tensor | None, start: int) -> Tensor:
        allowed, positions = _allowed(scores, mask)
        steps = torch.arange(start, start + scores.shape[-2], device=scores.device).unsqueeze(-1)  # [T, 1]
        return _softmax(scores, _window(allowed, positions, torch.minimum(steps, _last(allowed)), self.window))


class LocalPredictive(Normalizer):
    """A window around a predicted position, p_t = S sigmoid(v^T tanh(W h_t)), under a Gaussian of deviation D / 2.

    Luong, Pham and Manning 2015, equations 9 and 10 (local-p), with the weights made to sum to 1 again; S - 1 is the
    last real position. Positions count from 0, so p_t = (S - 1) sigmoid(...).

    Args:
        window: D; positions p_t - D to p_t + D may be attended to.
        size: width of the hidden layer that predicts.
        query_size: width Q of the queries.

    Raises:
        ValueError: if the window is not positive.
    """

    def __init__(self, window: int = 5, size: int = 64, query_size: int = 0) -> None:
        super().__init__(query_size)
        self.window = _checked(window, least=1)
        self.predict = nn.Sequential(nn.Linear(query_size, size, bias=False), nn.Tanh(), nn.Linear(size, 1, bias=False))

    def normalize(self, scores: Tensor, mask: Tensor | None, query: Tensor | None, start: int) -> Tensor:
        assert query is not None
        allowed, positions = _allowed(scores, mask)
        with torch.autocast(query.device.type, enabled=False):  # bfloat16 has no room for positions of a long source
            predicted = self.predict(query.to(torch.promote_types(query.dtype, torch.float32)))
        centers = _last(allowed) * predicted.sigmoid().to(scores.dtype)  # [..., T, 1]
        offsets = (positions - centers) / (self.window / 2)
        return _softmax(scores - offsets.square() / 2, _window(allowed, positions, centers, self.window))


def _checked(window: int, least: int = 0) -> int:
    if window < least:
        raise ValueError(f"attention.normalizer.window={window} must be {least} or more.")
    return window


def _allowed(scores: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The mask at the scores' shape [..., T, S], and the positions [S]."""
    allowed = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask.expand(scores.shape)
    return allowed, torch.arange(scores.shape[-1], device=scores.device)


def _last(allowed: Tensor) -> Tensor:
    """The last allowed position of each row, [..., T, 1]."""
    positions = torch.arange(allowed.shape[-1], device=allowed.device)
    return positions.expand(allowed.shape).masked_fill(~allowed, -1).amax(-1, keepdim=True)


def _window(allowed: Tensor, positions: Tensor, centers: Tensor, width: int) -> Tensor:
    """Allowed positions within `width` of the centers [..., T, 1]; the nearest allowed ones where there are none."""
    distances = (
        (positions - centers).abs().masked_fill(~allowed, float("inf") if centers.is_floating_point() else 2**31)
    )
    return allowed & (distances <= distances.amin(-1, keepdim=True).clamp_min(width))


class LastPosition(Normalizer):
    """All weight on the last allowed position, whatever the scores: the control without attention.

    The context is then the encoder's last state, as in Sutskever, Vinyals and Le 2014, the same at every step.
    """

    def normalize(self, scores: Tensor, mask: Tensor | None, query: Tensor | None, start: int) -> Tensor:
        allowed, positions = _allowed(scores, mask)
        return (positions == _last(allowed)).to(scores.dtype)
