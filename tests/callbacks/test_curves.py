import json
from types import SimpleNamespace

import pytest
import torch

from attnlab.callbacks.curves import Curves


def trainer(**metrics: float) -> SimpleNamespace:
    found = {name.replace("_", "/"): torch.tensor(value) for name, value in metrics.items()}
    return SimpleNamespace(
        callback_metrics=found, sanity_checking=False, current_epoch=0, is_global_zero=True, loggers=[], global_step=0,
        log_every_n_steps=2,
    )  # fmt: skip


def step(nll: float, count: int) -> dict:
    return {"metrics": {"nll": torch.tensor(nll)}, "count": count}


def test_metrics_of_training_are_means_over_the_targets_since_the_last_line(tmp_path) -> None:
    curves = Curves(tmp_path / "curves.jsonl")
    curves.on_train_start(trainer(), None)
    curves.on_train_batch_end(trainer(), None, step(4.0, 10), None, 0)
    again = Curves(tmp_path / "curves.jsonl")  # as a run that was stopped there and goes on
    again.load_state_dict(curves.state_dict())
    again.on_train_start(trainer(), None)
    again.on_train_batch_end(trainer(), None, step(1.0, 20), None, 1)
    again.on_validation_end(trainer(train_nll=1.0, val_loss=2.5), None)
    again.on_train_batch_end(trainer(), None, step(0.5, 7), None, 0)
    again.on_validation_end(trainer(train_nll=0.5, val_loss=2.0), None)
    first, second = (json.loads(line) for line in (tmp_path / "curves.jsonl").read_text().splitlines())
    assert (first["train/nll"], first["val/loss"]) == (pytest.approx(2.0), 2.5)
    assert (second["train/nll"], second["val/loss"]) == (pytest.approx(0.5), 2.0)


def test_loggers_get_means_every_few_steps(tmp_path) -> None:
    said: list[tuple[dict, int]] = []
    curves, trained = Curves(tmp_path / "curves.jsonl"), trainer()
    trained.loggers = [SimpleNamespace(log_metrics=lambda metrics, step: said.append((metrics, step)))]
    curves.on_train_start(trained, None)
    # of a step that takes two batches, each but the last leaves the number of steps as it was
    for done, nll, count in ((0, 5.0, 10), (1, 4.0, 10), (1, 3.0, 10), (2, 2.0, 10), (2, 9.0, 10), (3, 9.0, 1)):
        trained.global_step = done
        curves.on_train_batch_end(trained, None, step(nll, count), None, 0)
    assert said == [({"train/nll": pytest.approx(3.5), "epoch": 0}, 2)]
    trained.log_every_n_steps, trained.global_step = 0, 4
    curves.on_train_batch_end(trained, None, step(1.0, 1), None, 0)
    assert len(said) == 1
