"""bf16 only where there are instructions for it."""

import pytest

from attnlab.experiment import precision


@pytest.mark.parametrize(
    ("asked", "accelerator", "known", "trained"),
    [
        ("bf16-mixed", "cpu", False, "32-true"),
        ("bf16-mixed", "auto", False, "32-true"),
        ("bf16-true", "cpu", False, "32-true"),
        ("bf16-mixed", "cpu", True, "bf16-mixed"),
        ("bf16-mixed", "cuda", False, "bf16-mixed"),
        ("64-true", "cpu", False, "64-true"),
    ],
)
def test_a_processor_without_bf16_trains_in_fp32(monkeypatch, asked, accelerator, known, trained):
    monkeypatch.setattr(precision, "processor_knows_bf16", lambda: known)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    assert precision.trainer_precision({"precision": asked, "accelerator": accelerator}) == trained
