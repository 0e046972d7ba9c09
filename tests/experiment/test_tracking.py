"""The W&B run of a run directory."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb

from attnlab.errors import UserError
from attnlab.experiment.tracking import Tracker


def test_what_wandb_refuses_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuse)
    options = {"mode": "online", "group": None, "project": "attnlab", "tags": []}
    config = {"wandb": options, "task": {"name": "translation"}, "seed": 1}
    record = SimpleNamespace(directory=tmp_path, status={"choices": {}, "git": None}, tracking_id="a")
    with Tracker(record, config) as tracker:
        tracker.open()
        with pytest.raises(UserError, match=r"No API key configured.*wandb\.mode=offline, which needs no account"):
            _ = tracker.loggers
