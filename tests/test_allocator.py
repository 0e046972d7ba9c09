"""Freed memory is kept or given back; in a process of its own, for the setting is that of a whole process."""

import ctypes
import platform
import subprocess
import sys

import pytest

from attnlab import allocator

_FAULTS = """
import resource, sys
import torch
from attnlab import allocator
getattr(allocator, sys.argv[1])()
for _ in range(3):
    torch.ones(4 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(12 * 2**20)
    torch.ones(10 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is one of glibc")
def test_kept_memory_is_not_cleared_again():
    def faults(setting: str) -> int:
        command = [sys.executable, "-c", _FAULTS, setting]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    kept, given_back = faults("keep"), faults("give_back")
    assert kept < given_back / 2, (kept, given_back)


def test_other_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("another C library was told of glibc's options"))
    allocator.keep()
    allocator.give_back()
