"""The scripts through their real command lines, on one tiny trained run."""

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import warm
import yaml

from attnlab.errors import UserError
from attnlab.experiment.precision import processor_knows_bf16
from attnlab.experiment.use import load_translator

ROOT = Path(__file__).resolve().parents[2]


def call(script: str, *arguments: object, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Runs scripts/`script`; whatever happens, a person sees no traceback."""
    variables = {"OMP_NUM_THREADS": "1", **os.environ}
    ended = warm.run([ROOT / "scripts" / script, *arguments], env=variables, given=given)
    assert b"Traceback" not in ended.stderr, ended.stderr.decode()
    return ended


def complaint(script: str, *arguments: object, code: int = 1) -> str:
    """The sentence with which a script refuses."""
    ended = call(script, *arguments)
    assert ended.returncode == code, (ended.returncode, ended.stderr.decode())
    assert ended.stdout == b""
    return ended.stderr.decode()


@pytest.fixture(scope="module")
def predictions(trained_run: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (trained_run / "predictions.jsonl").read_text().splitlines()]


def test_translate(trained_run: Path, predictions: list[dict[str, str]], tmp_path: Path) -> None:
    """Every line keeps its place and is translated as the run's test was, whatever lines are between."""
    sources = [row["source"].encode() for row in predictions]
    lines = [b"\xef\xbb\xbf" + sources[0], b"", *sources[1:5], b"far " * 50, b"not \xff UTF-8", *sources[5:8], b" \t "]
    lines += [sources[8] + b"\r", *sources[9:]]
    bad = {2: "empty", 7: "50 tokens", 8: "UTF-8 (byte 5)", 12: "empty"}
    ended = call(
        "translate.py", trained_run, "--max-length", 49, "--batch-tokens", 100,
        "--alignments", tmp_path / "maps.jsonl", "--plot", tmp_path / "plots", given=b"\n".join(lines),
    )  # fmt: skip
    assert ended.returncode == 3

    output = ended.stdout.decode().split("\n")
    assert output.pop() == ""
    assert len(output) == len(lines)
    assert [text for number, text in enumerate(output, 1) if number not in bad] == [
        row["prediction"] for row in predictions
    ]
    assert {output[number - 1] for number in bad} == {""}
    reports = ended.stderr.decode().splitlines()
    assert len(reports) == len(bad) + 1
    for (number, reason), report in zip(bad.items(), reports, strict=False):
        assert f"line {number} " in report
        assert reason in report

    rows = [json.loads(line) for line in (tmp_path / "maps.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rows] == list(range(1, len(lines) + 1))
    for row, text in zip(rows, output, strict=True):
        if row["line"] in bad:
            assert row["source"] == row["target"] == row["weights"] == []
            assert bad[row["line"]] in row["problem"]
            continue
        assert row["source"][-1] == "<eos>"
        assert len(row["weights"]) == len(row["target"]) >= len(text.split())
        for weights in row["weights"]:
            assert len(weights) == len(row["source"])
            assert sum(weights) == pytest.approx(1, abs=1e-4 * len(weights))
    pictures = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert pictures == [f"{number:04d}.png" for number in range(1, len(lines) + 1) if number not in bad]


def test_evaluate_repeats_the_test_of_the_run(
    trained_run: Path, predictions: list[dict[str, str]], tmp_path: Path
) -> None:
    """Its test pairs, from a folder that has no other split, give the metrics of the run, bit for bit in each mode."""
    with (tmp_path / "test.jsonl").open("w") as file:
        for row in predictions:
            file.write(json.dumps({"en": row["source"], "de": row["reference"]}) + "\n")
    ended = call(
        "evaluate.py", trained_run, "data=parallel", f"data.path={tmp_path}", "--split", "test", "data.source=en",
        "data.target=de", "data.max_sentences=8",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr.decode()
    found = json.loads(ended.stdout)
    recorded = json.loads((trained_run / "metrics.json").read_text())
    # the folder holds no gold alignments, and speed is never the same twice
    left_out = ("aer", "aer_best_shift", "best_shift", "alignment_precision", "alignment_recall")
    expected = {
        name: value
        for name, value in recorded.items()
        if name.startswith(("test", "signature/")) and name.rpartition("/")[2].removesuffix("_sd") not in left_out
    }
    assert "test/sample/bleu" in expected
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == value or "sentences_per_second" in name, name


def test_evaluate_says_what_the_run_was_trained_on(trained_run: Path) -> None:
    """A larger test split reaches into what were validation and training."""
    sizes = yaml.safe_load((trained_run / ".hydra" / "config.yaml").read_text())["data"]
    test = sizes["test"] + sizes["validation"] + 5
    for size, warning in ((test, f"warning: 5 of the {test} examples"), (sizes["test"] - 1, "")):
        ended = call("evaluate.py", trained_run, f"data.test={size}", "--beam", 1, "--mode", "soft")
        assert ended.returncode == 0
        assert warning in ended.stderr.decode()
        assert bool(warning) == ("warning" in ended.stderr.decode())


def test_mistakes_are_sentences(trained_run: Path, tmp_path: Path) -> None:
    assert "no run directory" in complaint("translate.py", tmp_path / "none")
    assert "is not a run directory" in complaint("evaluate.py", tmp_path)
    assert "no checkpoint none.ckpt" in complaint("translate.py", trained_run, "--checkpoint", "none.ckpt")
    assert "'0' is not a whole number" in complaint("translate.py", trained_run, "--beam", 0, code=2)
    assert "usage:" in complaint("benchmark.py", "trian", code=2)
    assert "are of another task than" in complaint("evaluate.py", trained_run, "data=digits")
    assert "data.test=abc must be a whole number" in complaint("evaluate.py", trained_run, "data.test=abc")
    assert "The split test is empty" in complaint("evaluate.py", trained_run, "data.test=0")
    sentence = complaint("evaluate.py", trained_run, "data.tets=3")
    assert "Did you mean test?" in sentence
    assert "validation, test, generation_seed" in sentence
    with pytest.raises(UserError, match="argmax, sample, soft"):
        load_translator(trained_run).check_mode("hard")


def test_places_that_cannot_be_written_are_told_before_the_translation(trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "file is a file, not a folder. Choose" in complaint("translate.py", trained_run, "--plot", tmp_path / "file")
    assert "Is a directory. Choose" in complaint("translate.py", trained_run, "--alignments", tmp_path)


def test_unusable_checkpoints(trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    for name in (".hydra/config.yaml", "tokenizer.json", "status.json"):
        (tmp_path / name).write_bytes((trained_run / name).read_bytes())
    (tmp_path / "status.json").write_text('{"state": "interrupted"}')
    sentence = complaint("translate.py", tmp_path)
    assert "no checkpoint best.ckpt" in sentence
    assert "interrupted" in sentence

    (tmp_path / "checkpoints").mkdir()
    whole = (trained_run / "checkpoints" / "best.ckpt").read_bytes()
    (tmp_path / "checkpoints" / "best.ckpt").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in complaint("translate.py", tmp_path)


def test_benchmark_train(tmp_path: Path) -> None:
    precision = "bf16" if processor_knows_bf16() else "fp32"
    ended = call(
        "benchmark.py", "train", "--scores", "general", "--feeding", "no", "--precision", precision, "--pairs", 40,
        "--sentences", 4, "--warmup", 1, "--steps", 1, "--repeats", 2, "--retries", 1, "--first-step-runs", 0,
        "--no-peers", "--json", tmp_path / "speed.json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr.decode()
    written = json.loads((tmp_path / "speed.json").read_text())
    assert {"cpu", "cores", "threads"} <= written["machine"].keys()
    assert {"python", "torch"} <= written["versions"].keys()
    names = ("toolkit", "model", "score", "feeding", "precision")
    assert [tuple(row[name] for name in names) for row in written["rows"]] == [
        ("attnlab", "rnn", "general", False, precision), ("attnlab", "transformer", "scaled", False, precision)
    ]  # fmt: skip
    for row in written["rows"]:
        assert f"{row['model']} {row['score']}" in ended.stdout.decode()
        assert 0 < row["tokens_per_second_min"] <= row["tokens_per_second"] <= row["tokens_per_second_max"]
        assert 0 < row["peak_share"] < 1
        assert 0 < row["nonpadding"] <= 1
        assert row["ratios"] == {}
        assert row["seconds_to_first_step"] is None
        assert isinstance(row["void"], bool)


@pytest.mark.parametrize(("toolkit", "package"), [("OpenNMT-py", "onmt"), ("JoeyNMT", "joeynmt")])
def test_benchmark_train_beside_another_toolkit(toolkit: str, package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    ended = call(
        "benchmark.py", "train", "--scores", "additive", "--precision", "fp32", "--pairs", 40, "--sentences", 4,
        "--warmup", 1, "--steps", 1, "--repeats", 1, "--retries", 0, "--first-step-runs", 0,
        "--json", tmp_path / "speed.json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr.decode()
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    ours = [row for row in rows if row["toolkit"] == "attnlab"]
    theirs = [row for row in rows if row["toolkit"] == toolkit]
    assert len(theirs) == len(ours) == 3
    for our, their in zip(ours, theirs, strict=True):
        assert our["nonpadding"] == their["nonpadding"]  # the same batches
        assert abs(our["parameters"] / their["parameters"] - 1) < 0.05
        assert our["ratios"][toolkit] == our["tokens_per_second"] / their["tokens_per_second"]


def inflections(folder: Path) -> Path:
    """A language of six forms a split, as SIGMORPHON lays it out."""
    folder.mkdir(parents=True)
    rows = [{"lemma": f"haus{end}", "form": f"häuser{end}", "tags": "N;PL"} for end in "abcdef"]
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_benchmark_estimators(tmp_path: Path) -> None:
    ended = call(
        "benchmark.py", "estimators", "--draws", 3, "--training", 1, "--sentences", 2, "--repeats", 1,
        "--inflection", inflections(tmp_path / "latin"),
        "--plot", tmp_path / "variance.png", "--json", tmp_path / "estimators.json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr.decode()
    found = json.loads((tmp_path / "estimators.json").read_text())["rows"]
    inflection = {row["estimator"]: row for row in found if row["task"] == "inflection"}
    assert list(inflection) == [
        "soft", "reinforce, one draw", "reinforce, leave-one-out", "exact", "variational, enumerated",
    ]  # fmt: skip
    assert inflection["soft"]["seconds_ratio"] == 1
    assert inflection["exact"]["memory_ratio"] > inflection["reinforce, one draw"]["memory_ratio"] > 0.9
    rows = {row["estimator"]: row for row in found if row["task"] == "phrasebook"}
    assert rows["soft"]["variance"] == rows["exact"]["variance"] == 0
    assert rows["soft"]["seconds_ratio"] == rows["soft"]["memory_ratio"] == 1
    for name in ("reinforce, none", "reinforce, leave-one-out", "gumbel, relaxed", "variational, sampled"):
        assert rows[name]["variance"] > 0
        assert rows[name]["bias"] > 0
        assert rows[name]["noise"] > 0
    assert (tmp_path / "variance.png").read_bytes().startswith(b"\x89PNG")


def test_benchmark_soft_vs_hard(tmp_path: Path) -> None:
    ended = call(
        "benchmark.py", "soft_vs_hard", "--longest", 4096, "--repeats", 2, "--json", tmp_path / "soft_vs_hard.json"
    )
    assert ended.returncode == 0, ended.stderr.decode()
    rows = json.loads((tmp_path / "soft_vs_hard.json").read_text())["rows"]
    assert [(row["length"], row["mode"]) for row in rows] == [
        (length, mode) for length in (64, 256, 1024, 4096) for mode in ("soft", "argmax", "sample")
    ]
    for row in rows:
        soft = row["mode"] == "soft"
        assert row["gradient_values"] == (row["length"] if soft else 1)
        assert row["gradient_scores"] == row["length"]
        assert (row["repeated"] == 1) == (row["mode"] != "sample")
        assert row["values_read"] == (row["length"] if soft else 1)
    for name, factor in (("read_bytes", 1), ("choose_bytes", 4)):  # reading allocates a context; choosing, n weights
        short, long = ([row[name] for row in rows if row["length"] == length] for length in (1024, 4096))
        for few, many in zip(short, long, strict=True):
            assert 0.7 * factor * few <= many <= 1.3 * factor * few, name


def test_reproduce_wu2018(tmp_path: Path) -> None:
    """One point of the grid on six pairs; a second call reads it back."""
    inflections(tmp_path / "data" / "latin")
    arguments = (
        tmp_path / "data", "--languages", "latin", "--rows", "exact", "--out", tmp_path / "runs",
        "--json", tmp_path / "wu2018.json", "trainer.max_epochs=1", "wandb.mode=disabled", "maps=0", "model.dropout=0",
    )  # fmt: skip
    for _ in range(2):
        ended = call("reproduce_wu2018.py", *arguments)
        assert ended.returncode == 0, ended.stderr.decode()
        assert "| latin | `exact` | 1 | 0.0 | 72.1 |" in ended.stdout.decode()
    (run,) = json.loads((tmp_path / "wu2018.json").read_text())["runs"]
    assert run["seed"] == 1
    assert "experiment=wu2018_inflection" in run["command"]
    assert "no folder german" in complaint("reproduce_wu2018.py", tmp_path / "data", code=2)
    assert "Is a directory" in complaint("reproduce_wu2018.py", *arguments[:5], "--json", tmp_path)


def test_a_part_of_a_table_does_not_take_the_place_of_the_whole(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    reproduce = importlib.import_module("reproduce")
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    kept = tmp_path / "docs" / "results" / "digits.json"
    reproduce.write("digits", [{"row": "dot"}, {"row": "hard"}], None, whole=True)
    reproduce.write("digits", [{"row": "dot"}], None, whole=False)
    assert f"Not written to {kept}" in capsys.readouterr().out
    reproduce.write("digits", [{"row": "dot"}], tmp_path / "part.json", whole=False)
    assert [len(json.loads(path.read_text())["runs"]) for path in (kept, tmp_path / "part.json")] == [2, 1]


def test_a_table_with_other_settings_is_a_part(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    reproduce = importlib.import_module("reproduce")
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    monkeypatch.setattr(reproduce, "run", lambda table, row, seed, overrides: {"row": row, "seed": seed})
    monkeypatch.setattr(reproduce, "markdown", lambda table, results: "")
    parts = (["trainer.max_epochs=1"], ["--seeds", "1,2"], ["--rows", "scaled"])
    for given, written in (*((part, False) for part in parts), (["data.path=a=b"], True)):
        monkeypatch.setattr(sys, "argv", ["reproduce.py", "digits", *given])
        assert reproduce.main() == 0
        assert reproduce.kept("digits").exists() == written
        assert ("Not written to" in capsys.readouterr().out) != written
    found = json.loads(reproduce.kept("digits").read_text())["runs"]
    assert [(run["row"], run["seed"]) for run in found] == [
        (row, seed) for row in reproduce.TABLES["digits"]["rows"] for seed in (1, 2, 3)
    ]


def test_mistakes_with_a_table_are_told_before_a_row_is_trained(tmp_path: Path) -> None:
    assert "'a' is not a whole number" in complaint("reproduce.py", "digits", "--seeds", "1,a", code=2)
    assert "1,2,1 has a seed twice" in complaint("reproduce.py", "digits", "--seeds", "1,2,1", code=2)
    assert "Is a directory" in complaint("reproduce.py", "digits", "--json", tmp_path)


@pytest.mark.parametrize("place", ["os.getppid()", "os.getpid()"])
def test_a_table_that_is_stopped_waits_for_its_run_and_is_quiet(place: str, tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    for name in ("_command.py", "reproduce.py"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    (tmp_path / "train.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        f"try:\n    os.kill({place}, signal.SIGINT)\n    time.sleep(1)\nexcept KeyboardInterrupt:\n    pass\n"
        "pathlib.Path('ended').touch()\nsys.exit(130)\n"
    )
    command = [sys.executable, tmp_path / "scripts" / "reproduce.py", "digits", "--rows", "dot"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "")
    assert (tmp_path / "ended").exists()
    (tmp_path / "train.py").write_text("import sys; sys.exit(3)")
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.split(";")[0]) == (
        1, "attnlab: The row dot with seed 1 ended with exit code 3"
    )  # fmt: skip


def test_the_table_of_wu2018_has_the_spread_over_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    table = importlib.import_module("reproduce_wu2018").markdown(
        [
            {"language": "german", "row": "soft", "metrics": {
                "test/accuracy": accuracy, "test/edit_distance": 0.25, "train/seconds": 60,
            }}
            for accuracy in (89.0, 90.0, 91.0)
        ]
    )  # fmt: skip
    assert "| german | `soft` | 3 | 90.0 ± 1.0 | 89.6 | 0.250 ± 0.000 | 0.257 | 60 |" in table


@pytest.mark.skipif(shutil.which("g++") is None, reason="the kernel is compiled with g++")
def test_benchmark_attention(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ended = call(
        "benchmark.py", "attention", "--shapes", "2x20x20x32", "--warmup", 1, "--repeats", 1, "--retries", 0,
        "--json", tmp_path / "attention.json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr.decode()
    rows = json.loads((tmp_path / "attention.json").read_text())["rows"]
    assert [(row["operator"], row["shape"]) for row in rows] == [("additive", "2x20x20x32"), ("scaled", "2x20x20x32")]
    assert [row["torch_seconds"] is not None for row in rows] == [False, True]
    monkeypatch.syspath_prepend(ROOT / "scripts")
    few = argparse.Namespace(warmup=1, repeats=1, retries=0)
    rows.append(importlib.import_module("benchmarks.attention")._row("feed-forward", (20, 8, 16), few))
    for row in rows:
        assert {"shape", "seconds", "eager_seconds", "extra_bytes"} <= row.keys()
        assert row["seconds"] > 0
        assert row["eager_seconds"] > 0


def test_benchmark_vision(tmp_path: Path) -> None:
    ended = call(
        "benchmark.py", "vision", "--batch", 2, "--warmup", 1, "--repeats", 1, "--glimpses", 3,
        "--json", tmp_path / "vision.json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr.decode()
    rows = json.loads((tmp_path / "vision.json").read_text())["rows"]
    named = {(row["part"], row["model"]) for row in rows}
    assert {("training", "attnlab scaled"), ("training", "attnlab bahdanau")} <= named
    assert {("inference", "every patch"), ("inference", "3 glimpses")} <= named
    assert all(row["images_per_second"] > 0 for row in rows)


def test_offline_runs_are_listed_oldest_first_without_those_that_were_sent(tmp_path: Path) -> None:
    runs = {"b": "20260102_000000-x", "a": "20260101_000000-x", "sent": "20250101_000000-y"}
    for parent, name in runs.items():
        folder = tmp_path / parent / "wandb" / f"offline-run-{name}"
        folder.mkdir(parents=True)
        (folder / "run-x.wandb").write_bytes(b"")
        if parent == "sent":
            (folder / "run-x.wandb.synced").write_bytes(b"")
    ended = call("sync_wandb.py", tmp_path, "--list")
    assert ended.returncode == 0
    lines = ended.stdout.decode().splitlines()
    assert [Path(line).name[12:20] for line in lines[:-1]] == ["20260101", "20260102"]
    assert lines[-1] == "2 to send."
    assert "There is no folder" in complaint("sync_wandb.py", tmp_path / "nothing")
