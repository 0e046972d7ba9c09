"""Kernels that must answer, or must not."""

import shutil

import pytest
import torch


def pytest_collection_modifyitems(items):
    """What asks for the kernels needs their compiler."""
    for item in items:
        if "compiled" in getattr(item, "fixturenames", ()) and shutil.which("g++") is None:
            item.add_marker(pytest.mark.skip("the kernels are compiled by g++"))


@pytest.fixture
def refuse():
    """Takes the place of a path that is not to be taken."""

    def refused(*_, **__):
        raise AssertionError("this path is not to be taken")

    return refused


@pytest.fixture
def only_kernel(monkeypatch, refuse):
    """Gives a kernel's module whose references refuse; its kernel is loaded anew, and forgotten behind the test."""
    used = []

    def prepare(module, *references):
        monkeypatch.delenv("ATTNLAB_KERNELS", raising=False)
        for name in references:
            monkeypatch.setattr(module, name, refuse)
        used.append(module)
        module._kernel.cache_clear()
        assert module._kernel() is not None

    yield prepare
    for module in used:
        module._kernel.cache_clear()


@pytest.fixture
def threads():
    """Sets torch's number of threads, for the time of a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
