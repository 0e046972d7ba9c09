"""What the C library does with memory that was freed."""

import ctypes
import platform

# malloc.h of glibc
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_MOST = 2**31 - 1
_USUAL = {_TRIM_THRESHOLD: 2**26, _TOP_PAD: 2**17, _MMAP_THRESHOLD: 2**25, _MMAP_MAX: 2**16}


def keep() -> None:
    """Keeps freed memory for what is allocated next.

    glibc hands large blocks back to the system. Every training step asks for blocks like those of the step before
    (logits, probabilities), whose pages the system would clear again, one by one, while all threads wait: an eighth of
    a step of two threads. Other C libraries are left as they are.
    """
    _tell({_TRIM_THRESHOLD: _MOST, _TOP_PAD: 2**26, _MMAP_MAX: 0})


def give_back() -> None:
    """Returns to what glibc does of itself once a program has freed some large blocks."""
    _tell(_USUAL)


def _tell(options: dict[int, int]) -> None:
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for option, value in options.items():
            library.mallopt(option, value)
