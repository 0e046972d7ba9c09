"""The readout: from features to log-probabilities over the vocabulary."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from attnlab.kernels import watched
from attnlab.kernels.likelihood import log_likelihoods, logit_gradients
from attnlab.kernels.products import linear
from attnlab.kernels.steps import log_softmax

_ROWS = 32  # the number of rows that are read out is rounded up to a multiple of this
_TYPES = 16  # and that of types, for the rows of logits begin at whole cache lines then


class TokenLogLikelihood(torch.autograd.Function):
    """log p(target) under a linear readout, with two passes over [N, V] between its matrix products.

    Equal to `naive_log_likelihood`, gradients included. Where `recompute` is set, the logits are made anew in the
    backward pass instead of being kept; so they are in a second backward pass, for the first one uses them up. V is
    rounded up by types of probability 0.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float, recompute: bool
    ) -> Tensor:
        types = len(bias)
        if spare := -types % _TYPES:
            weight, bias = F.pad(weight, (0, 0, 0, spare)), F.pad(bias, (0, spare), value=-torch.inf)
        logits = linear(features, weight, bias)
        found, normalizers = log_likelihoods(logits, targets, smoothing, types)
        ctx.smoothing, ctx.types = smoothing, types
        ctx.save_for_backward(features, weight, bias, targets, normalizers)
        ctx.kept = [] if recompute else [logits]
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, targets, normalizers = ctx.saved_tensors
        logits = ctx.kept.pop() if ctx.kept else linear(features, weight, bias)
        to_logits, to_bias = logit_gradients(logits, targets, normalizers, grad, ctx.smoothing, ctx.types)
        of_features, of_weight = linear(to_logits, weight.t()), to_logits.t().mm(features)
        return of_features, of_weight[: ctx.types], to_bias[: ctx.types].to(bias.dtype), None, None, None


def naive_log_likelihood(
    features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float = 0.0
) -> Tensor:
    """The reference for `TokenLogLikelihood`: features [N, R], weight [V, R], bias [V], targets [N] -> [N]."""
    logits = F.linear(features, weight, bias)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return -F.cross_entropy(wide, targets, reduction="none", label_smoothing=smoothing)


class VocabularyReadout(nn.Module):
    """A linear layer to the vocabulary and its softmax, evaluated only where a target is asked for.

    Args:
        size: width R of the features.
        vocabulary: number of target types V.
        embedding: a target embedding [V, R] whose weight is shared with the layer (Press and Wolf 2017); None for
            a weight of its own.
        chunk: the most logits that are held at once while training.
    """

    def __init__(self, size: int, vocabulary: int, embedding: nn.Embedding | None = None, chunk: int = 2**26) -> None:
        super().__init__()
        self.linear = nn.Linear(size, vocabulary)
        if embedding is not None:
            if embedding.weight.shape != self.linear.weight.shape:
                raise ValueError(
                    f"The output layer shares the target embedding, so the readout must be as wide as the embedding: "
                    f"found {size} and {embedding.embedding_dim}; make them equal or set model.tie_output=false."
                )
            self.linear.weight = embedding.weight
        nn.init.zeros_(self.linear.bias)
        self.chunk = chunk

    def log_probs(self, features: Tensor) -> Tensor:
        """Returns log-probabilities [..., V] of features [..., R]."""
        return log_softmax(linear(features, self.linear.weight, self.linear.bias))

    def forward(self, features: Tensor, targets: Tensor, mask: Tensor, smoothing: float = 0.0) -> Tensor:
        """Returns log p(y) for every candidate, 0 at masked positions, without work on those.

        Args:
            features: [K, B, T, R].
            targets: long [B, T].
            mask: bool [B, T], True at real target positions.
            smoothing: label smoothing s; the result is then (1 - s) log p(y) + s mean_v log p(v)
                (Szegedy et al. 2016), for each candidate: an estimator that marginalises mixes what is smoothed.

        Returns:
            [K, B, T] in float32 or wider.
        """
        candidates, batch, length, _ = features.shape
        real = mask.flatten().nonzero().squeeze(1)
        # a few shapes, not one a batch: oneDNN compiles a kernel for each, and keeps it
        read = F.pad(real, (0, -real.numel() % _ROWS))  # the rows added are computed and dropped
        rows = features.flatten(1, 2).index_select(1, read).flatten(0, 1)  # [K N, R]
        gold = targets.flatten()[read].repeat(candidates)
        weight: Tensor = self.linear.weight
        bias: Tensor = self.linear.bias
        if torch.is_autocast_enabled(rows.device.type):
            dtype = torch.get_autocast_dtype(rows.device.type)
            rows, weight, bias = rows.to(dtype), weight.to(dtype), bias.to(dtype)
        count = max(1, self.chunk // weight.shape[0])
        recompute = rows.shape[0] > count
        custom = torch.compiler.is_compiling() or not watched()  # elsewhere custom gradients are not known
        with torch.autocast(rows.device.type, enabled=False):
            parts = [
                TokenLogLikelihood.apply(part, weight, bias, part_gold, smoothing, recompute)  # type: ignore[no-untyped-call]
                if custom
                else naive_log_likelihood(part, weight, bias, part_gold, smoothing)
                for part, part_gold in zip(torch.split(rows, count), torch.split(gold, count), strict=True)
            ]
        values = torch.cat(parts).view(candidates, -1)[:, : real.numel()]
        out = values.new_zeros(candidates, batch * length)
        return out.index_copy(1, real, values).view(candidates, batch, length)
