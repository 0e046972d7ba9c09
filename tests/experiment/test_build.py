"""Specs pass a gate before anything is called, and checkpoints are read without running code."""

import pickle
from pathlib import Path

import pytest
import torch
import yaml

from attnlab.cli import CONF
from attnlab.errors import UserError
from attnlab.experiment.build import build, compose, load_checkpoint, load_task


def test_an_own_class_is_built_with_its_options() -> None:
    normalizer = build({"_target_": "attnlab.attention.normalizers.Softmax", "temperature": 0.5})
    assert normalizer.temperature == 0.5


def test_a_partial_makes_new_modules_at_each_call() -> None:
    factory = build({"_target_": "attnlab.attention.scores.AdditiveScore", "_partial_": True, "size": 3})
    assert factory(4, 5).key.weight.data_ptr() != factory(4, 5).key.weight.data_ptr()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "torch.optim.lr_scheduler.partial",
        "torch.optim.optimizer.Any",
        "attnlab.nn.seq2seq.torch.load",
        "attnlab.nn.seq2seq.NamedTuple",
        "attnlab.files.write_text",
        "attnlab.experiment.run.run",
        "attnlab.attention.scores.NoSuchScore",
        "attnlab.attention.nothing.Here",
        "Softmax",
    ],
)
def test_foreign_targets_are_refused_wherever_they_stand(target: str) -> None:
    for spec in (
        {"_target_": target},
        {"_target_": "attnlab.nn.dropout.Dropout", "probability": [{"_target_": target}]},
    ):
        with pytest.raises(UserError, match=r"refused|does not exist"):
            build(spec)


def test_a_class_that_refuses_its_options_does_so_in_a_sentence() -> None:
    with pytest.raises(UserError, match="must be positive"):
        build({"_target_": "attnlab.attention.normalizers.Softmax", "temperature": 0.0})
    with pytest.raises(UserError, match="does not take these options"):
        build({"_target_": "attnlab.attention.normalizers.Softmax", "heat": 1.0})


def test_torch_optimizers_and_schedules_pass() -> None:
    for name in ("torch.optim.AdamW", "torch.optim.lr_scheduler.ReduceLROnPlateau"):
        assert build({"_target_": name, "_partial_": True}).func.__name__ == name.rpartition(".")[2]


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code ran')",)


def test_bad_checkpoints_are_refused_with_a_sentence_and_no_code_runs(tmp_path: Path) -> None:
    whole = tmp_path / "whole.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": {}, "task": "translation"}, whole)
    truncated = tmp_path / "truncated.ckpt"
    truncated.write_bytes(whole.read_bytes()[:-200])
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"model": {}}, foreign)
    evil = tmp_path / "evil.ckpt"
    evil.write_bytes(pickle.dumps({"state_dict": Payload()}, protocol=2))
    torch.save({"state_dict": {}, "hyper_parameters": {"model": Payload()}}, tmp_path / "evil2.ckpt")
    empty = tmp_path / "empty.ckpt"
    empty.write_bytes(b"")
    for path in (truncated, foreign, evil, tmp_path / "evil2.ckpt", empty, tmp_path / "missing.ckpt"):
        with pytest.raises(UserError, match=path.name):
            load_checkpoint(path)
    with pytest.raises(UserError, match="describes no attnlab task"):
        load_task(whole)


def _leaves(tree, prefix=""):
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {key: leaf for name, part in tree.items() for key, leaf in _leaves(part, f"{prefix}/{name}").items()}


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_an_experiment_sets_is_what_its_run_has(path: Path) -> None:
    stated = yaml.safe_load(path.read_text())
    del stated["defaults"]
    stated.pop("hydra", None)  # of the sweep, not of a run
    found = _leaves(compose(CONF, [f"experiment={path.stem}"]))
    for key, value in _leaves(stated).items():
        assert found[key] == value, key
