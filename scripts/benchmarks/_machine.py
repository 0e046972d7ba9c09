"""The machine that is measured: what it is, how busy others keep it, and the most it can do.

Sections measure on the processor unless `use_device` has chosen the GPU.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Executor

T = TypeVar("T")

_PACKAGES = ("attnlab", "torch", "pytorch-lightning", "numpy")
_PROCESSES = Path("/proc")
_TIMES = _PROCESSES / "stat"
_PRESSURE = _PROCESSES / "pressure" / "cpu"

VOID_ABOVE = 0.03
"""Share of the time in which a runnable task waited for a processor, beyond which a measurement is void."""

PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32", "bf16")}
"""Those of each device."""

_device = "cpu"


def use_device(name: str) -> None:
    """Measures on `cpu` or `cuda` from now on; on a GPU in fp32 proper, where `arithmetic` says nothing else."""
    global _device
    _device = name
    if name == "cuda":
        _allow_tf32((False, False))


def device() -> str:
    """What is measured on: `cpu` or `cuda`."""
    return _device


def on_gpu() -> bool:
    """Whether it is a GPU."""
    return _device == "cuda"


def placed(tensors: T) -> T:
    """A tensor, a module, or a named tuple of tensors on the device that is measured."""
    if isinstance(tensors, tuple):
        return type(tensors)(*(part.to(_device) for part in tensors))
    return tensors.to(_device)  # type: ignore[attr-defined,no-any-return]


def synchronize() -> None:
    """Waits until a GPU that is measured has done what it was given; a processor has."""
    if on_gpu():
        import torch

        torch.cuda.synchronize()


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Within it a GPU multiplies numbers of 32 bits in TF32, in products as in cuDNN, where the precision is `tf32`,
    and exactly where it is another. On a processor it changes nothing."""
    if not on_gpu():
        yield
        return
    before = _allow_tf32((precision == "tf32",) * 2)
    try:
        yield
    finally:
        _allow_tf32(before)


def _allow_tf32(allowed: tuple[bool, bool]) -> tuple[bool, bool]:
    """Says whether products, and cuDNN, may use TF32; what was said before."""
    import torch

    products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, cudnn.allow_tf32
    products.allow_tf32, cudnn.allow_tf32 = allowed
    return before


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads() -> None:
    """As many threads as there are cores, unless OMP_NUM_THREADS says otherwise."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores())


def describe(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, threads of torch, memory, system; with `cuda` also the GPU, its memory, and torch's CUDA."""
    import torch

    machine = {
        "cpu": _cpu(),
        "cores": cores(),
        "cores_installed": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }
    if device != "cuda":
        return machine
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
    memory = round(gpu.total_memory / 2**30, 1)
    return machine | {"gpu": gpu.name, "gpu_memory_gib": memory, "cuda": torch.version.cuda}


def memory() -> int:
    """Bytes of the memory of the device that is measured."""
    if on_gpu():
        import torch

        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str]:
    """Of Python and of what does the work."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def caption(machine: dict[str, Any], named: dict[str, str]) -> str:
    """Machine and versions in a line under a table."""
    of = f"{machine['cpu']}, {machine['cores']} of {machine['cores_installed']} cores, {machine['threads']} threads"
    if "gpu" in machine:
        of = f"{machine['gpu']}, {machine['gpu_memory_gib']} GiB, CUDA {machine['cuda']}; {of}"
    return f"{of}; " + ", ".join(f"{name} {text}" for name, text in named.items())


def another_process() -> "Executor":
    """A process that begins with nothing, to measure in. Ctrl-C ends it without a word; this one says what it means."""
    import signal
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    quiet = (signal.SIGINT, signal.SIG_DFL)
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=signal.signal, initargs=quiet)


class Pressure:
    """How long, since it was made, any task of the whole machine has waited for a processor.

    Our own surplus of threads counts too, so a section uses no more of them than cores.
    """

    def __init__(self) -> None:
        self._stalled, self._begun = _stalled(), time.perf_counter()

    def share(self) -> float | None:
        """Share of the time since then; None where the system does not tell."""
        stalled, seconds = _stalled(), time.perf_counter() - self._begun
        if stalled is None or self._stalled is None or seconds <= 0:
            return None
        return (stalled - self._stalled) / 1e6 / seconds


class Others:
    """What share of the processors other processes used just before and just after something.

    For what runs more processes than there are cores, whose own waiting `Pressure` would count.
    """

    def __init__(self) -> None:
        self._before = _busy()

    def share(self) -> float | None:
        """The greater of the two shares; None where the system does not tell."""
        shares = [share for share in (self._before, _busy()) if share is not None]
        return max(shares, default=None)


def _busy(seconds: float = 0.5) -> float | None:
    """Share of all processors' time that is in use while this process sleeps."""

    def times() -> tuple[int, int]:
        fields = [int(field) for field in _TIMES.read_text().splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]  # idle, or idle while something waits for a disk

    try:
        total, idle = times()
        time.sleep(seconds)
        later, idle_later = times()
    except (OSError, ValueError, IndexError):
        return None
    return 1 - (idle_later - idle) / max(1, later - total)


def _stalled() -> int | None:
    """Microseconds since the start of the system in which some task waited."""
    try:
        some = next(line for line in _PRESSURE.read_text().splitlines() if line.startswith("some"))
    except (OSError, StopIteration):
        return None
    return int(some.rpartition("total=")[2])


def is_void(pressure: float | None) -> bool:
    """Whether a measurement under this pressure does not count."""
    return pressure is not None and pressure > VOID_ABOVE


def medians(parts: dict[str, Callable[[], Any]], repeats: int, warmup: int) -> dict[str, float]:
    """The median seconds of each part over so many turns, in which all of them run one after the other."""
    found: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(warmup + repeats):
        for name, part in parts.items():
            begun = time.perf_counter()
            part()
            synchronize()
            seconds = time.perf_counter() - begun
            if turn >= warmup:
                found[name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def matmul_peak(precision: str, size: int = 2048, seconds: float = 1.0) -> float:
    """FLOP/s of products of two square matrices in a precision: on a processor of the fastest of several, on a GPU the
    median of several of size 8,192."""
    import torch

    if on_gpu():
        return _gpu_matmul_peak(precision)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = left @ right
    best, begun, count = float("inf"), time.perf_counter(), 0
    while count < 3 or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        best, count = min(best, time.perf_counter() - start), count + 1
    return 2 * size**3 / best


def _gpu_matmul_peak(precision: str, size: int = 8192, warmup: int = 5, repeats: int = 15) -> float:
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(size, size, device=_device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    with arithmetic(precision):
        for _ in range(warmup):
            torch.mm(left, right, out=out)
        marks[0].record()
        for mark in marks[1:]:
            torch.mm(left, right, out=out)
            mark.record()
    synchronize()
    milliseconds = [mark.elapsed_time(later) for mark, later in pairwise(marks)]
    return 2 * size**3 / (statistics.median(milliseconds) / 1e3)


class Turns(NamedTuple):
    """What repeated turns of one thing took.

    Attributes:
        seconds: of those that are not void; of all of them if every one is.
        pressure: the most that tasks waited (or that other processes were busy) during one of these.
        void: whether every one is void.
    """

    seconds: list[float]
    pressure: float | None
    void: bool

    def spread(self, name: str = "seconds") -> dict[str, Any]:
        """The entries of a row: median, least and most, and how it was measured."""
        return {
            name: statistics.median(self.seconds), f"{name}_min": min(self.seconds), f"{name}_max": max(self.seconds),
            "repeats": len(self.seconds), "cpu_pressure": self.pressure, "void": self.void,
        }  # fmt: skip


def turns(
    part: Callable[[], float | None],
    repeats: int,
    retries: int,
    warmup: int = 0,
    watch: type[Pressure] | type[Others] = Pressure,
) -> Turns:
    """Runs a part until so many of its turns are not void, or `retries` more than that are spent.

    A part that knows better than the clock what counts returns its seconds.
    """
    return in_turn({"": part}, repeats, retries, warmup, watch)[""]


def in_turn(
    parts: dict[T, Callable[[], float | None]],
    repeats: int,
    retries: int,
    warmup: int = 0,
    watch: type[Pressure] | type[Others] = Pressure,
) -> dict[T, Turns]:
    """`turns` of several parts, one turn of each after the other, lest a machine that slows down tell against one."""
    for _ in range(warmup):
        for part in parts.values():
            part()
    synchronize()
    found: dict[T, list[tuple[float, float | None]]] = {name: [] for name in parts}

    def lacking(name: T) -> bool:
        good = sum(not is_void(waited) for _, waited in found[name])
        return good < repeats and len(found[name]) < repeats + retries

    while left := [name for name in parts if lacking(name)]:
        for name in left:
            pressure, begun = watch(), time.perf_counter()
            own = parts[name]()
            synchronize()
            found[name].append((time.perf_counter() - begun if own is None else own, pressure.share()))
    return {name: _counted(taken) for name, taken in found.items()}


def _counted(found: list[tuple[float, float | None]]) -> Turns:
    good = [turn for turn in found if not is_void(turn[1])]
    counted = good or found
    pressures = [waited for _, waited in counted if waited is not None]
    return Turns([seconds for seconds, _ in counted], max(pressures, default=None), not good)


def waited(row: dict[str, Any]) -> str:
    """The column of a table that says how much tasks waited for a processor while a row was measured."""
    share = "" if row["cpu_pressure"] is None else f"{row['cpu_pressure']:.1%}"
    return share + (" void" if row["void"] else "")


def ratios(row: dict[str, Any]) -> str:
    """The column of a table that says how many times faster than each other toolkit ours is."""
    return " ".join(f"{ratio:.2f}" for ratio in row.get("ratios", {}).values())


def status(process: int | str = "self") -> dict[str, int]:
    """The sizes of Linux's account of a process, in bytes; empty where there is none."""
    try:
        lines = (_PROCESSES / str(process) / "status").read_text().splitlines()
    except OSError:
        return {}
    sizes = (line.partition(":") for line in lines if line.endswith(" kB"))
    return {name: 1024 * int(size.split()[0]) for name, _, size in sizes}


def extra_bytes(step: Callable[[], Any]) -> int | None:
    """By how much a step raises this process's resident memory at its peak; None where the system does not tell.

    Memory that was used before and is kept for later by the C library would hide some of it, and is given back first.
    On a GPU it is the memory of its tensors, of which torch keeps account.
    """
    import ctypes
    import gc

    gc.collect()
    if on_gpu():
        return _extra_gpu_bytes(step)
    try:
        ctypes.CDLL(None).malloc_trim(0)
        (_PROCESSES / "self" / "clear_refs").write_text("5")  # the peak from here on
        before = status()["VmRSS"]
        step()
        return status()["VmHWM"] - before
    except (OSError, AttributeError, KeyError):
        return None


def _extra_gpu_bytes(step: Callable[[], Any]) -> int:
    import torch

    synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    synchronize()
    return torch.cuda.max_memory_allocated() - before
