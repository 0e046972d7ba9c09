"""The main job through the real command line: what it writes, how it repeats, how it refuses."""

import json
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest
import torch
import warm
from wandb.proto import wandb_internal_pb2

ROOT = Path(__file__).resolve().parents[1]
TINY = ["data.train=300", "data.validation=40", "data.test=30", "trainer.max_epochs=2", "search.beam=2", "maps=2",
        "trainer.log_every_n_steps=2", "model.embedding=32", "model.encoder_size=24",
        "model.decoder_size=48"]  # fmt: skip
QUIET = [*TINY, "maps=0", "wandb.mode=disabled"]


def train(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"NO_COLOR": "1", "COLUMNS": "120"} | (env or {})
    return warm.run_text([ROOT / "train.py", *arguments], cwd=ROOT, env=variables)


@pytest.fixture(scope="module")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    directory = tmp_path_factory.mktemp("main") / "seed=1, a [path] of 'its' own"
    return directory, train("attention=bahdanau", "task=translation", f"run_dir={directory}", *TINY)


def test_the_main_job_writes_the_whole_record(main_job) -> None:
    directory, process = main_job
    assert process.returncode == 0, process.stderr
    status = json.loads((directory / "status.json").read_text())
    assert status["state"] == "finished"
    assert {"config_hash", "versions", "git", "started", "ended"} <= status.keys()
    metrics = json.loads((directory / "metrics.json").read_text())
    expected = ("loss", "bleu", "chrf", "accuracy", "aer", "entropy", "edit_distance")
    assert {f"test/{name}" for name in expected} <= metrics.keys()
    assert {
        "params",
        "train/seconds",
        "train/tokens_per_second",
        "val/bleu",
        "signature/bleu",
    } <= metrics.keys()
    assert "version:" in metrics["signature/bleu"]
    rows = [json.loads(line) for line in (directory / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 30
    assert {"source", "reference", "prediction"} <= rows[0].keys()
    for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "tokenizer.json", ".hydra/config.yaml"):
        assert (directory / name).is_file(), name
    pictures = sorted((directory / "attention").glob("*.png"))
    assert len(pictures) == 2
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_the_terminal_shows_epochs_the_table_and_where_the_results_are(main_job) -> None:
    directory, process = main_job
    assert "epoch 2/2" in process.stdout
    assert "tokens/s" in process.stdout
    assert "alignment error rate" in process.stdout
    assert str(directory) in process.stdout.replace("\n", "")
    assert "wandb:" not in process.stdout + process.stderr
    assert "Warning" not in process.stderr, process.stderr


def test_checkpoints_hold_nothing_but_tensors_and_primitives(main_job) -> None:
    for name in ("best", "last"):
        checkpoint = torch.load(main_job[0] / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert {"state_dict", "hyper_parameters"} <= checkpoint.keys()


def wandb_records(directory: Path) -> list[wandb_internal_pb2.Record]:
    """The records of an offline run: LevelDB's log format behind a header of seven bytes."""
    (file,) = directory.glob("wandb/offline-run-*/run-*.wandb")
    data, position, parts, records = file.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            records.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return records


def test_the_offline_wandb_run_holds_the_metrics_and_the_images(main_job) -> None:
    directory, _ = main_job
    records = wandb_records(directory)
    history = {
        item.key or "/".join(item.nested_key): item.value_json
        for record in records if record.HasField("history") for item in record.history.item
    }  # fmt: skip
    assert {"train/nll", "val/bleu"} <= history.keys()
    assert any(key.startswith("attention/test-") for key in history)
    summary = {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for record in records if record.HasField("summary") for item in record.summary.update
    }  # fmt: skip
    metrics = json.loads((directory / "metrics.json").read_text())
    assert summary["test/bleu"] == pytest.approx(metrics["test/bleu"])
    assert any(record.HasField("exit") and record.exit.exit_code == 0 for record in records)
    assert len(list(directory.glob("wandb/offline-run-*/files/media/images/**/*.png"))) == 2


def test_the_same_command_again_skips_the_finished_run(main_job) -> None:
    directory, _ = main_job
    before = (directory / "metrics.json").stat().st_mtime_ns
    process = train("attention=bahdanau", "task=translation", f"run_dir={directory}", *TINY)
    assert process.returncode == 0
    assert "finished before" in process.stdout
    assert (directory / "metrics.json").stat().st_mtime_ns == before


def test_a_run_directory_of_another_config_is_refused_and_left_alone(main_job) -> None:
    directory, _ = main_job
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}
    process = train("attention=luong", "task=translation", f"run_dir={directory}", *TINY)
    assert process.returncode == 1
    assert "holds a run of another config" in process.stderr
    assert "Traceback" not in process.stderr
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()} == before


SAME = ("test/bleu", "test/loss", "test/chrf", "test/aer", "test/entropy", "val/bleu", "test/sample/loss")


def test_the_same_seed_gives_the_same_metrics_bit_for_bit(tmp_path: Path) -> None:
    results = []
    for name, order in (("a", {}), ("b", {"PYTHONHASHSEED": "2"})):  # of sets: another in the second process
        process = train("attention=hard", f"run_dir={tmp_path / name}", *QUIET, env=order)
        assert process.returncode == 0, process.stderr
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        results.append({key: metrics[key] for key in SAME})
    assert results[0] == results[1]


def test_hard_attention_is_reported_in_every_test_mode(tmp_path: Path) -> None:
    process = train(
        "attention=hard", "attention/score=dot", "attention/estimator/baseline=moving_average",
        f"run_dir={tmp_path / 'r'}", *QUIET,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    for mode in ("argmax", "sample", "soft", "exact"):
        assert f"test/{mode}/bleu" in metrics
    assert metrics["test/sample/loss_sd"] > 0
    assert "test/argmax/loss_sd" not in metrics
    assert metrics["test_mode"] == "argmax"
    assert metrics["test/bleu"] == metrics["test/argmax/bleu"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["attention=none", "+trainer.limit_val_batches=1"],
        ["attention=scaled", "model.cell=gru", "model.layers=2"],
        ["attention=luong", "model.decoder.input_feeding=true"],
        ["attention=hard", "model/decoder=bahdanau"],
        ["attention=exact", "trainer.precision=bf16-mixed"],
        [
            "data.language=fr",
            "data.tokenizer.kind=bpe",
            "data.tokenizer.vocabulary=600",
            "data.tokenizer.joint=true",
        ],
    ],
    ids=" ".join,
)
def test_options_combine(arguments: list[str], tmp_path: Path) -> None:
    process = train(*arguments, f"run_dir={tmp_path / 'r'}", *QUIET, "trainer.max_epochs=1")
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "r" / "status.json").read_text())["state"] == "finished"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["attention=bahdanu"], "Did you mean bahdanau?"),
        (["atention=hard"], "Did you mean attention?"),
        (["model.droput=0.1"], "model has decoder, embedding"),
        (["attention/score=dott"], "The options of attention/score are additive, dot"),
        (["bahdanau"], "'bahdanau' is not of the form key=value"),
        (["=3"], "'=3' is not of the form key=value"),
        (["data.splits.validation=validation[:20]"], """'data.splits.validation="validation[:20]"'"""),
        (["attention="], "attention= names no option. The options of attention are bahdanau"),
        (["~attention"], "Every run has attention, and ~attention leaves it out"),
        (["model=null"], "model=null chooses nothing; the options of model are glimpse_vit, rnn"),
        (["search=null"], "search=null leaves out what every run has"),
        (["task.name=foo"], "task.name=foo is no kind of task; choose task=translation or task=vision"),
        (["attention/estimator/baseline=none"], "belongs to attention/estimator=reinforce or"),
        (["experiment=digits", "task=translation"], "experiment=digits sets model/stem, which belongs to model=vit"),
        (["trainer.max_steps=5"], "+trainer.max_steps=VALUE adds it"),
        (["trainer.max_epoch=5"], "Did you mean max_epochs?"),
        (["data=digits"], "data=digits is of task=vision, and this run of task=translation: give task=vision data="),
        (["optimizer.betas=[0.9]"], "torch.optim.Adam refuses its options (optimizer.lr=0.004"),
        (["optimizer.lr=-1"], "Invalid learning rate: -1."),
        (["schedule=plateau", "schedule.factor=2"], "Factor should be < 1.0."),
        (["schedule.warmup=5"], "schedule.warmup=5 is a share of the run"),
        (["task.label_smoothing=3"], "task.label_smoothing=3 is a share of the probability"),
        (["task.average=7"], "task.average=7 is the decay of an average"),
        (["+trainer.limit_train_batches=0"], "leaves out the training"),
        (["+trainer.limit_train_batches=1e-9"], "The trainer refuses its options"),
        (["+trainer.gradient=1"], "trainer.gradient=1): Trainer.__init__() got an unexpected keyword"),
        (["data=parallel"], "data.path must be given"),
        (["data=parallel", "data.path=/no/such/folder"], "/no/such/folder"),
        (["data.language=xx"], "xx"),
        (["attention=exact", "model/decoder=bahdanau"], "feeds its context back"),
        (["attention=dot", "model.decoder_size=40"], "attention/score=general"),
        (["attention=hard", "attention.estimator.samples=1"], "moving_average"),
        (["model.cell=rnn"], "lstm and gru"),
        (["trainer.precision=7"], "trainer.precision=7 is not supported: choose 32-true, bf16-mixed or 64-true"),
        (["attention.score._target_=os.system"], "is refused"),
        (["data.test=abc"], "data.test=abc must be a whole number, such as 1000"),
        (["optimizer.lr=fast"], "optimizer.lr=fast must be a number"),
        (["task.monitor=val/blue"], "choose one of val/loss, val/bleu"),
        (["task.mode=most"], "task.mode=most does not select the best val/bleu; set task.mode=max"),
        (["task.monitor=val/loss"], "task.mode=max does not select the best val/loss; set task.mode=min"),
        (["+trainer.limit_val_batches=0"], "leaves out the validation"),
        (["search.beam=0"], "search.beam=0 must be a whole number of 1 or more"),
        (["run_dir="], "run_dir= names no folder"),
        (["run_dir=null"], "run_dir= names no folder"),
        (["hydra.run.dir=there"], "set run_dir=FOLDER"),
        (["data.tokenizer=bpe"], "data.tokenizer=bpe must be a group of keys"),
        (["attention=variational", "model.decoder.input_feeding=true"], "bounds the likelihood token by token"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_get_a_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    tiny = [argument for argument in TINY if not arguments[0].startswith("data=") or not argument.startswith("data.")]
    process = train(f"run_dir={tmp_path / 'r'}", "wandb.mode=disabled", *tiny, *arguments)
    assert process.returncode != 0
    assert sentence in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    "arguments",
    [["attention=exact", "model/decoder=bahdanau"], ["attention=dot", "model.encoder_size=50"], ["data.max_tokens=0"]],
    ids=" ".join,
)
def test_what_is_refused_before_the_data_are_read_leaves_nothing_to_send(arguments: list[str], tmp_path: Path) -> None:
    directory = tmp_path / "r"
    process = train(f"run_dir={directory}", *TINY, *arguments)
    assert process.returncode == 1
    assert json.loads((directory / "status.json").read_text())["state"] == "failed"
    assert not (directory / "wandb").exists()


@pytest.mark.parametrize("argument", ["seed=-1", "~attention", "trainer.precision=bf16-true", "wandb.mode=foo"])
def test_a_value_that_no_run_can_use_leaves_no_directory(argument: str, tmp_path: Path) -> None:
    process = train(f"run_dir={tmp_path / 'r'}", *TINY, argument)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("steps", "kept"), [(5, ["last"]), (15, ["best", "last"])])
def test_a_run_that_steps_cut_short_is_tested_and_keeps_its_checkpoints(
    steps: int, kept: list[str], tmp_path: Path
) -> None:
    process = train(f"run_dir={tmp_path}", *QUIET, f"+trainer.max_steps={steps}")
    assert process.returncode == 0, process.stderr
    checkpoints = sorted((tmp_path / "checkpoints").glob("*.ckpt"))
    assert [path.stem for path in checkpoints] == kept
    assert torch.load(checkpoints[-1], weights_only=True)["global_step"] == steps
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["selected_by"] == ("val/bleu" if "best" in kept else None)
    assert ("steps were not validated" in process.stdout) == (steps % 10 > 0)
    assert "test/bleu" in metrics
    assert ("val/bleu" in metrics) == ("best" in kept)
    assert metrics["train/seconds"] > 0


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    directory = tmp_path / "r"
    process = train(
        f"run_dir={directory}", *QUIET, "trainer.max_epochs=4", "optimizer.lr=inf",
        "schedule.warmup=0.99", "trainer.gradient_clip_val=null",
    )  # fmt: skip
    assert process.returncode == 1
    assert "loss became" in process.stderr
    assert "Traceback" not in process.stderr
    status = json.loads((directory / "status.json").read_text())
    assert status["state"] == "failed"
    assert "loss became" in status["error"]


def test_an_interrupted_run_keeps_its_checkpoint_and_goes_on(tmp_path: Path) -> None:
    directory = tmp_path / "r"
    command = [
        f"run_dir={directory}",
        *QUIET,
        "data.train=100",
        "trainer.max_epochs=12",
        "task.patience=12",
    ]
    said = tmp_path / "said"
    process = warm.start([ROOT / "train.py", *command], said=said)
    last = directory / "checkpoints" / "last.ckpt"
    deadline = time.time() + 120
    while not last.exists() and time.time() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130, said.read_text()
    assert "Traceback" not in said.read_text()
    assert json.loads((directory / "status.json").read_text())["state"] == "interrupted"
    torch.load(last, weights_only=True)
    again = train(*command)
    assert again.returncode == 0, again.stderr
    assert "Going on from" in again.stdout
    assert json.loads((directory / "metrics.json").read_text())["train/epochs"] == 12


def test_help_lists_every_group_option_and_key_in_words() -> None:
    process = train("--help")
    assert process.returncode == 0
    assert "1 failed, or refused" in process.stdout
    conf = ROOT / "conf"
    for path in conf.rglob("*.yaml"):
        if path.name != "config.yaml":
            assert f"{path.parent.relative_to(conf)}=" in process.stdout
            assert f" {path.stem} " in process.stdout
    for key in (
        "model.dropout=",
        "attention.estimator.samples=",
        "search.beam=",
        "run_dir=",
        "data.tokenizer.kind=",
    ):
        assert key in process.stdout
