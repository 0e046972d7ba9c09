"""The readout: from features to log-probabilities over the vocabulary."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class TokenLogLikelihood(torch.autograd.Function):
    """log p(target) under a linear readout, without materialising the log-softmax.

    Equal to `naive_log_likelihood`, gradients included. The logits are worked on in place: of [N, V] only one array
    lives, none at all between forward and backward where `recompute` is set.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float, recompute: bool
    ) -> Tensor:
        logits = F.linear(features, weight, bias)
        wide = torch.promote_types(logits.dtype, torch.float32)
        gold = logits.gather(1, targets.unsqueeze(1)).squeeze(1).to(wide)
        if smoothing:
            gold = (1 - smoothing) * gold + smoothing * logits.mean(1, dtype=wide)
        peak = logits.amax(1, keepdim=True)
        exponentials = logits.sub_(peak).exp_()
        total = exponentials.sum(1, keepdim=True, dtype=wide)
        ctx.smoothing, ctx.recompute = smoothing, recompute
        ctx.save_for_backward(features, weight, bias, targets, total, peak if recompute else exponentials)
        return gold - peak.squeeze(1).to(wide) - total.squeeze(1).log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, targets, total, saved = ctx.saved_tensors
        grad = grad.unsqueeze(1)
        exponentials = F.linear(features, weight, bias).sub_(saved).exp_() if ctx.recompute else saved
        # d log p(y) / d logits = (1 - s) [v = y] + s / V - softmax; the array of exponentials becomes the gradient
        slope = exponentials.mul_((-grad / total).to(weight.dtype))
        if ctx.smoothing:
            slope.add_((grad * (ctx.smoothing / slope.shape[1])).to(weight.dtype))
        slope.scatter_add_(1, targets.unsqueeze(1), (grad * (1 - ctx.smoothing)).to(weight.dtype))
        return slope @ weight, slope.t() @ features, slope.sum(0), None, None, None


def naive_log_likelihood(
    features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float = 0.0
) -> Tensor:
    """The reference for `TokenLogLikelihood`: features [N, R], weight [V, R], bias [V], targets [N] -> [N]."""
    logits = F.linear(features, weight, bias)
    return -F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)


class VocabularyReadout(nn.Module):
    """A linear layer to the vocabulary and its softmax, evaluated only where a target is asked for.

    Args:
        size: width R of the features.
        vocabulary: number of target types V.
        embedding: a target embedding [V, R] whose weight is shared with the layer (Press and Wolf 2017); None for
            a weight of its own.
        chunk: the most logits that are held at once while training.
    """

    def __init__(self, size: int, vocabulary: int, embedding: nn.Embedding | None = None, chunk: int = 2**25) -> None:
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
        logits: Tensor = self.linear(features)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)

    def forward(self, features: Tensor, targets: Tensor, mask: Tensor, smoothing: float = 0.0) -> Tensor:
        """Returns log p(y) for every candidate, 0 at masked positions, without work on those.

        Args:
            features: [K, B, T, R].
            targets: long [B, T].
            mask: bool [B, T], True at real target positions.
            smoothing: label smoothing s; the result is then (1 - s) log p(y) + s mean_v log p(v)
                (Szegedy et al. 2016).

        Returns:
            [K, B, T] in float32 or wider.
        """
        candidates, batch, length, _ = features.shape
        real = mask.flatten().nonzero().squeeze(1)
        rows = features.flatten(1, 2)[:, real].flatten(0, 1)  # [K N, R]
        gold = targets.flatten()[real].repeat(candidates)
        weight: Tensor = self.linear.weight
        bias: Tensor = self.linear.bias
        if torch.is_autocast_enabled(rows.device.type):
            dtype = torch.get_autocast_dtype(rows.device.type)
            rows, weight, bias = rows.to(dtype), weight.to(dtype), bias.to(dtype)
        count = max(1, self.chunk // weight.shape[0])
        recompute = rows.shape[0] > count
        with torch.autocast(rows.device.type, enabled=False):
            parts = [
                TokenLogLikelihood.apply(part, weight, bias, part_gold, smoothing, recompute)  # type: ignore[no-untyped-call]
                for part, part_gold in zip(torch.split(rows, count), torch.split(gold, count), strict=True)
            ]
        values = torch.cat(parts).view(candidates, -1)
        out = values.new_zeros(candidates, batch * length)
        return out.index_copy(1, real, values).view(candidates, batch, length)
