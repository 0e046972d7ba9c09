"""Linear maps of few rows in single precision, by oneDNN."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.kernels import off, serves


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, as `torch.nn.functional.linear` gives it, for inputs [..., I], weight [O, I] and bias [O].

    In single precision torch asks MKL, which takes up to twice as long as oneDNN where there are few rows, as in the
    steps of a search, and a third longer for a readout's many columns. So this asks oneDNN where torch has it, no
    gradient is wanted and autocast is off; everything else is served by torch's own function.
    """
    given = (inputs, weight) if bias is None else (inputs, weight, bias)
    if not _is_served(*given):
        return F.linear(inputs, weight, bias)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return found


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight, self.bias)


def _is_served(*tensors: Tensor) -> bool:
    return (
        serves((torch.float32,), *tensors)
        and not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))
        and not torch.is_autocast_enabled("cpu")
        and torch._C._get_mkldnn_enabled()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # not in every build
        and min(x.numel() for x in tensors) > 0
        and all(x.is_contiguous() for x in tensors)  # oneDNN takes a hundred times as long for parts of a matrix
        and not off()
    )
