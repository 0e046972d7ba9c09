"""Fast paths, each beside the naive reference that it must equal, gradients included.

A kernel is a C++ file in this folder, or one in Triton for GPUs. A C++ file is compiled the first time it is needed
(some seconds, without a word) by g++, or by what CXX names, and kept in the user's cache,
`$XDG_CACHE_HOME/attnlab/kernels`; Triton does the like. Without a compiler the references do the work; with
ATTNLAB_KERNELS=off in the environment, before the first of them is needed, they always do.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

logger = logging.getLogger(__name__)

# no -ffast-math: the kernels mean NaN, infinity and every rounding as they are written
_COMPILE = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-fopenmp", "-c")
# no -fopenmp: the functions of OpenMP are found where torch's own are, so that both share one pool of threads; a second
# runtime would bring its own threads, which wait by spinning
_LINK = ("-shared",)
_LONGEST = 300  # seconds


def off() -> bool:
    """Whether ATTNLAB_KERNELS=off asks for the references."""
    return os.environ.get("ATTNLAB_KERNELS", "").lower() == "off"


def load(name: str) -> ctypes.CDLL | None:
    """The library compiled from `name`.cpp; None where the references are to be used (the log says why at INFO)."""
    if off():
        return None
    source = Path(__file__).with_name(f"{name}.cpp")
    try:
        kept = _kept(source)
        with suppress(OSError):  # not there, or not for this system
            return ctypes.CDLL(str(kept))
        return _compile(source, kept)
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip() or str(error)
    except (OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    logger.info("No kernel %s, the reference is used: %s", name, reason)
    return None


def _kept(source: Path) -> Path:
    """Where the cache has the library: by its source and what that includes, the compiler and its flags, and the
    processor that -march=native means, for a home may be shared by unlike machines."""
    texts = [path.read_text() for path in (source, *sorted(source.parent.glob("*.h")))]
    parts = [*texts, _compiler(), *_COMPILE, *_LINK, platform.system(), platform.machine(), _features()]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "attnlab" / "kernels" / f"{source.stem}-{key}.so"


def _compiler() -> str:
    return os.environ.get("CXX") or "g++"


def _features() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _compile(source: Path, kept: Path) -> ctypes.CDLL:
    """Compiles apart and, once the library is whole and loads, renames it to its place, so that processes that compile
    at the same time do not disturb each other."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=kept.parent, ignore_cleanup_errors=True)
    except OSError:  # a cache that cannot be written is done without
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with folder as place:
        unlinked, built = Path(place, f"{source.stem}.o"), Path(place, kept.name)
        compiler = shlex.split(_compiler())
        for step in ([*_COMPILE, str(source), "-o", str(unlinked)], [*_LINK, str(unlinked), "-o", str(built)]):
            subprocess.run(
                [*compiler, *step], check=True, capture_output=True, text=True, errors="replace",
                stdin=subprocess.DEVNULL, timeout=_LONGEST,
            )  # fmt: skip
        library = ctypes.CDLL(str(built))
        with suppress(OSError), built.open("rb") as file:
            os.fsync(file.fileno())
            os.replace(built, kept)
        return library


def serves(dtypes: Sequence[torch.dtype], *tensors: Tensor, device: str = "cpu") -> bool:
    """Whether a kernel may read these tensors: plain ones on a device of that type and of one of the dtypes, of which
    torch wants to know nothing but their numbers."""
    return not watched() and all(
        type(x) in (Tensor, nn.Parameter) and x.device.type == device and x.dtype in dtypes for x in tensors
    )


def watched() -> bool:
    """Whether torch looks at what becomes of tensors, operation by operation: to trace or to compile a graph, in the
    transforms of torch.func, for gradients in forward mode, or in a TorchDispatchMode."""
    return (
        torch.compiler.is_compiling()  # first, for the compiler knows not all of what follows
        or torch._C._are_functorch_transforms_active()
        or torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or forward_ad._current_level >= 0
    )


def asked(tensor: Tensor) -> torch.dtype:
    """The type in which a product of this tensor is asked for, by autocast, which leaves double precision alone, or by
    the tensor itself."""
    device = tensor.device.type
    if tensor.dtype == torch.float64 or not torch.amp.is_autocast_available(device):
        return tensor.dtype
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


def batched(grad: Tensor) -> bool:
    """Whether a gradient stands for many that torch computes at once (`is_grads_batched`), and has no numbers."""
    found: bool = torch._C._functorch.is_legacy_batchedtensor(grad)
    return found


def by_reference(grad: Tensor) -> bool:
    """Whether a backward pass goes through the reference: what it returns is to have a gradient, or stands for many."""
    return torch.is_grad_enabled() or batched(grad)


def differentiate(
    reference: Callable[..., Tensor], inputs: Sequence[Tensor], wanted: Sequence[bool], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of a kernel's reference for some of its inputs, None for the others; where gradients are wanted
    they have gradients themselves."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # each apart, although one may be another, or made of it: that is not this function's part of the gradient
        apart = [x.view_as(x) for x in inputs]
        needed = [x for x, want in zip(apart, wanted, strict=True) if want]
        found = iter(torch.autograd.grad(reference(*apart), needed, grad, create_graph=again))
    return tuple(next(found) if want else None for want in wanted)
