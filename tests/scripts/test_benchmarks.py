"""The sections of scripts/benchmark.py that measure decoding, the input pipeline, start-up and growth."""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import torch
import warm

from attnlab.errors import UserError
from attnlab.experiment.precision import processor_knows_bf16

ROOT = Path(__file__).resolve().parents[2]
ONCE = ("--repeats", 1, "--retries", 0, "--warmup", 0)


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a section; whatever happens, a person sees no traceback."""
    variables = {"OMP_NUM_THREADS": "1", **os.environ}
    ended = warm.run_text([ROOT / "scripts" / "benchmark.py", *arguments], env=variables)
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended


def measured(tmp_path: Path, *arguments: object) -> tuple[dict, list[dict]]:
    """The settings and the rows of a section."""
    ended = call(*arguments, "--json", tmp_path / "measured.json")
    assert ended.returncode == 0, ended.stderr
    written = json.loads((tmp_path / "measured.json").read_text())
    assert {"cpu", "cores", "threads"} <= written["machine"].keys()
    assert {"python", "torch"} <= written["versions"].keys()
    return written["settings"], written["rows"]


@pytest.fixture
def section(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of the sections."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.fixture
def machine(section) -> ModuleType:
    return section("_machine")


def test_decode_makes_as_many_steps_as_the_references_have_tokens(tmp_path: Path) -> None:
    settings, rows = measured(
        tmp_path, "decode", "--pairs", 60, "--test", 7, "--models", "rnn-feeding", "transformer", "--beams", 1, 3,
        "--precision", "fp32", "--batch", 4, *ONCE,
    )  # fmt: skip
    assert settings["sentences"] == 7
    ours = [row for row in rows if row["toolkit"] == "attnlab"]
    assert [(row["model"], row["beam"]) for row in ours] == [
        (model, beam) for beam in (1, 3) for model in ("rnn-feeding", "transformer")
    ]
    for row in rows:
        assert row["tokens"] == settings["reference_tokens"] > 2 * 7
        assert 0 < row["sentences_per_second_min"] <= row["sentences_per_second"] <= row["sentences_per_second_max"]
        assert row["tokens_per_second"] > row["sentences_per_second"]
        assert isinstance(row["void"], bool)
    toolkits = {"OpenNMT-py", "JoeyNMT"} & settings["peers"].keys()
    assert {row["toolkit"] for row in rows} == {"attnlab"} | toolkits
    assert all(row["ratios"].keys() == toolkits for row in ours)


def test_forced_hypotheses_end_where_they_are_told_to(section) -> None:
    from attnlab.data.batching import Batch
    from attnlab.data.tokenizers import EOS

    class Constant:
        """A model without a state that would rather end, or say 5, than anything else."""

        def start(self, source):
            return self

        def select(self, rows, same_sources=False):
            return self

        def step(self, tokens, state):
            logits = torch.arange(9.0).where(torch.arange(9) != EOS, torch.tensor(20.0)).expand(len(tokens), -1)
            return logits.log_softmax(-1), torch.ones(len(tokens), 4), self

    target = torch.tensor([[4, EOS, 0, 0, 0], [EOS, 0, 0, 0, 0], [4, 4, 4, 4, EOS]])
    batch = Batch(torch.full((3, 4), 4), target, target, torch.arange(3))
    search = section("decode")._forced(Constant())
    for beam in (1, 2, 4):
        found = search(batch, beam)
        assert found == [([8], 2), ([], 1), ([8, 8, 8, 8], 5)]


def test_decode_with_a_trained_run(trained_run: Path, tmp_path: Path) -> None:
    precision = "bf16" if processor_knows_bf16() else "fp32"
    settings, (row,) = measured(tmp_path, "decode", "--run", trained_run, "--beams", 2, "--precision", precision, *ONCE)
    assert (row["model"], row["beam"], row["precision"]) == (trained_run.name, 2, precision)
    assert settings["sentences"] == 12
    assert settings["models"] is None
    assert row["tokens"] >= 12


def test_data(tmp_path: Path) -> None:
    _, rows = measured(
        tmp_path, "data", "--pairs", 60, "--sentences", 150, "--batch", 8, "--steps", 1, "--precision", "fp32", *ONCE
    )
    loading, empty, filled, growing = rows
    assert [row["part"] for row in rows] == ["loading", "preparing", "preparing", "growing"]
    assert (loading["pairs"], empty["cache"], filled["cache"], growing["sentences"]) == (60, "empty", "filled", 150)
    assert loading["ratio"] == pytest.approx(loading["tokens_per_second"] / loading["step_tokens_per_second"])
    for row in (empty, filled, growing):
        assert row["seconds"] > 0
    for name in ("training", "preparing"):
        assert growing[f"{name}_bytes"] > growing[f"{name}_own_bytes"] > 2**20


def test_a_grown_corpus_has_the_words_of_the_phrasebook(section, tmp_path: Path) -> None:
    from attnlab.data.corpora import HubCorpus, Phrasebook

    for name in "ab":
        section("data").write_corpus(tmp_path / name, 90, 30)
    first, second = (HubCorpus(str(tmp_path / name), "source", "target").load() for name in "ab")
    assert len(first["train"]) == 90
    assert first["train"][:] == second["train"][:]
    assert first["test"][:] == second["test"][:]

    def words(row):
        return tuple(" ".join(sorted(row[side].split())) for side in ("source", "target"))

    known = {words(row) for row in Phrasebook(train=30, validation=1, test=1).load()["train"]}
    assert {words(row) for row in first["train"]} <= known
    assert len(set(first["train"]["source"])) > 30


def test_the_memory_of_a_process_and_of_those_that_it_starts_is_seen(section) -> None:
    size = 40 * 2**20
    hold = f"held = bytearray({size}); input()"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    command = [sys.executable, "-c", child]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process, section("data").watching(process.pid) as found:
        begun = time.monotonic()
        while max(peak.own for peak in found) < size and time.monotonic() < begun + 60:
            time.sleep(0.02)
        process.communicate(b"\n")
    parent, *children = found
    assert parent.process == process.pid
    assert 0 < parent.own < size <= max(peak.own for peak in children) <= max(peak.resident for peak in children)


def test_startup(tmp_path: Path) -> None:
    small = ("data.train=60", "data.validation=4", "data.test=4", "model.decoder_size=16")
    _, (help_, first) = measured(
        tmp_path, "startup", "--parts", "help", "empty", "--overrides", *small, "--repeats", 1, "--retries", 0
    )
    assert help_["seconds"] > 0
    assert help_["composed_seconds"] is None
    assert 0 < first["composed_seconds"] < first["data_seconds"]
    assert first["seconds"] > 0
    assert "empty cache" in first["what"]


def test_where_nothing_can_be_written_nothing_is_measured(section, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    program, estimators = importlib.import_module("benchmark"), section("estimators")
    monkeypatch.setattr(estimators, "_train", lambda *arguments: pytest.fail("it has begun to measure"))
    readme = ROOT / "README.md"
    for arguments, sentence in {
        ("--json", ROOT): "Is a directory",
        ("--json", readme / "a.json"): "README.md is a file, not a folder",
        ("--plot", readme / "a.png"): "README.md is a file, not a folder",
        ("--inflection", readme / "none"): "no folder",
    }.items():
        monkeypatch.setattr(sys, "argv", ["benchmark.py", "estimators", *map(str, arguments)])
        with pytest.raises(UserError, match=sentence):
            program.main()
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "estimators", "--plot", "x.foo"])
    with pytest.raises(SystemExit, match="2"):
        program.main()
    assert "'x.foo' ends in none of .png, .svg, .pdf" in capsys.readouterr().err


def test_an_interruption_is_told(section, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    def stopped(*arguments):
        raise KeyboardInterrupt

    program = importlib.import_module("benchmark")
    monkeypatch.setattr(section("soft_vs_hard"), "_rows", stopped)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "soft_vs_hard", "--json", str(tmp_path / "rows.json")])
    assert program.main() == 130
    assert "attnlab: Interrupted before all rows were measured" in capsys.readouterr().err
    assert not (tmp_path / "rows.json").exists()


def test_an_interrupted_process_is_quiet(machine: ModuleType, capfd) -> None:
    from concurrent.futures.process import BrokenProcessPool

    with machine.another_process() as pool:
        os.kill(pool.submit(os.getpid).result(), signal.SIGINT)
        with pytest.raises(BrokenProcessPool):
            pool.submit(time.sleep, 60).result()
    assert capfd.readouterr().err == ""


def test_startup_says_why_a_run_did_not_finish() -> None:
    ended = call("startup", "--parts", "filled", "--overrides", "data.trian=3")
    assert ended.returncode == 1
    assert "train.py did not finish" in ended.stderr
    assert "data.trian" in ended.stderr


def test_import_times_are_added_up_by_package(section) -> None:
    said = """some other line
import time: self [us] | cumulative | imported package
import time:       200 |        200 |   torch._C
import time:      1000 |       1300 | torch
import time:       100 |        100 |   json.decoder
attnlab: a line of the program
import time:     50000 |      51000 |     attnlab.cli
"""
    found = section("startup").import_seconds(said)
    assert found == pytest.approx(Counter({"torch": 0.0012, "the standard library": 0.0001, "attnlab": 0.05}))


def test_growth(tmp_path: Path) -> None:
    _, rows = measured(
        tmp_path, "growth", "--variants", "bahdanau", "exact", "variational", "--lengths", 16, 32, "--vocabularies",
        50, 100, "--widths", 8, "--queries", 2, "--key-width", 8, *ONCE,
    )  # fmt: skip
    assert [(row["axis"], row["variant"], row["size"]) for row in rows] == [
        (axis, variant, size)
        for axis, sizes in {"source": (16, 32), "vocabulary": (50, 100), "width": (8,)}.items()
        for variant in ("bahdanau", "exact", "variational")
        for size in sizes
    ]
    for row in rows:
        assert row["seconds"] > 0
        assert row["mathematics"] == {"source": 1, "vocabulary": 1, "width": 2}[row["axis"]]
        assert (row["seconds_exponent"] is None) == (row["axis"] == "width")
        assert isinstance(row["exceeds"], bool)
    refused = call("growth", "--variants", "soft")
    assert refused.returncode == 1
    assert "no variant soft; choose among bahdanau" in refused.stderr


def test_every_option_of_attention_is_a_variant(section) -> None:
    found = section("growth").variants()
    assert {"bahdanau", "hard", "exact", "none", "variational"} <= set(found)
    assert "score" not in found


def test_exponents_are_fitted_to_the_upper_sizes(section) -> None:
    exponent = section("growth").exponent
    sizes = [2**power for power in range(8)]
    assert exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert exponent(sizes, [size if size < 16 else size**2 for size in sizes]) == pytest.approx(2)
    assert exponent([1, 2, 4], [5, None, 5]) == pytest.approx(0)
    assert exponent([64], [1.0]) is None
    assert exponent([1, 2], [None, 3]) is None


_VIT = """
from torch import nn

class ViT(nn.Sequential):
    def __init__(self, *, image_size, channels, patch_size, num_classes, dim, depth, heads, dim_head, mlp_dim, **rates):
        assert dim == heads * dim_head
        height, width = image_size
        super().__init__(nn.Flatten(), nn.Linear(channels * height * width, num_classes))
"""


def test_vits_beside_a_public_one_go_on_after_an_interruption(section, tmp_path: Path, monkeypatch) -> None:
    from rich.console import Console

    (tmp_path / "vit_pytorch-1.0.dist-info").mkdir()
    (tmp_path / "vit_pytorch-1.0.dist-info" / "METADATA").write_text("Name: vit-pytorch\nVersion: 1.0\n")
    (tmp_path / "vit_pytorch").mkdir()
    (tmp_path / "vit_pytorch" / "__init__.py").write_text("import a_package_that_is_not_there")
    (tmp_path / "vit_pytorch" / "vit.py").write_text(_VIT)
    monkeypatch.syspath_prepend(tmp_path)
    comparison = section("public_vit")

    def measure(directory: str, *more: str) -> tuple[dict, list[dict]]:
        parser = argparse.ArgumentParser()
        comparison.add_options(parser)
        small = ("data=digits", "model.patch=4", "model.size=8", "model.depth=1", "model.heads=2", "model.hidden=8")
        options = parser.parse_args([
            "--variants", "scaled", "--directory", str(tmp_path / directory), "--overrides", *small,
            "data.augment.mixup=0.2", "trainer.max_epochs=2", *more,
        ])  # fmt: skip
        return comparison.measure(options, Console(quiet=True))

    settings, rows = measure("whole")
    assert settings["versions"]["vit-pytorch"] == "1.0"
    assert "path" not in settings["data"]
    assert [(row["model"], len(row["epochs"])) for row in rows] == [("vit-pytorch", 2), ("attnlab scaled", 2)]
    public, ours = rows
    assert (public["ratio"], public["parameters"]) == (1, 64 * 10 + 10)
    assert ours["ratio"] == pytest.approx(ours["images_per_second"] / public["images_per_second"])
    assert public["accuracy"] > 20
    assert public["val_accuracy"] == max(epoch["accuracy"] for epoch in public["epochs"])

    train, calls = comparison._epoch, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(comparison, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure("stopped")
    _, resumed = measure("stopped")
    assert len(calls) == 5
    for before, after in zip(rows, resumed, strict=True):
        assert after["accuracy"] == before["accuracy"]
        assert [epoch["accuracy"] for epoch in after["epochs"]] == [epoch["accuracy"] for epoch in before["epochs"]]
    with pytest.raises(UserError, match="another config"):
        measure("stopped", "optimizer.lr=0.1")
    with pytest.raises(UserError, match="choose another"):
        measure("plateau", "schedule=plateau")


def test_void_turns_are_taken_again_and_do_not_count(machine: ModuleType) -> None:
    def watch(*shares):
        left = iter(shares)
        return lambda: type("Watch", (), {"share": staticmethod(lambda: next(left))})

    seconds = iter(range(1, 9))
    found = machine.turns(lambda: float(next(seconds)), 2, 3, 1, watch(0.5, 0.01, None, 0.0))
    assert found == ([3.0, 4.0], 0.01, False)
    assert found.spread("s") == {
        "s": 3.5, "s_min": 3.0, "s_max": 4.0, "repeats": 2, "cpu_pressure": 0.01, "void": False,
    }  # fmt: skip
    found = machine.turns(lambda: float(next(seconds)), 1, 1, 0, watch(0.5, 0.4))
    assert found == ([5.0, 6.0], 0.5, True)
    assert machine.waited({"cpu_pressure": 0.5, "void": True}) == "50.0% void"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="Linux counts what a process holds")
def test_extra_bytes_are_those_of_the_step(machine: ModuleType) -> None:
    kept = bytearray(64 * 2**20)  # what is there already does not count
    found = machine.extra_bytes(lambda: len(bytearray(32 * 2**20)))
    assert 31 * 2**20 < found < 40 * 2**20 < len(kept)


def test_what_the_device_lacks_is_refused_with_a_sentence() -> None:
    for section in ("train", "decode", "vision"):
        ended = call(section, "--device", "cpu", "--precision", "tf32")
        assert ended.returncode == 1
        assert "no tf32 on a processor" in ended.stderr
    if not torch.cuda.is_available():
        for section in ("train", "attention", "decode", "vision", "estimators"):
            ended = call(section, "--device", "cuda")
            assert ended.returncode == 1
            assert "torch finds no CUDA device here" in ended.stderr


def test_a_gpu_is_named_where_it_is_measured(machine: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = machine.describe()
    assert not {"gpu", "gpu_memory_gib", "cuda"} & plain.keys()
    assert machine.caption(plain, {}).startswith(plain["cpu"])
    gpu = type("Properties", (), {"name": "NVIDIA Abacus", "total_memory": 80 * 2**30})
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: gpu)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = machine.describe("cuda")
    assert found == plain | {"gpu": "NVIDIA Abacus", "gpu_memory_gib": 80.0, "cuda": "13.0"}
    assert machine.caption(found, {}).startswith("NVIDIA Abacus, 80.0 GiB, CUDA 13.0; ")


def test_tf32_is_used_in_its_own_rows_only(machine: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def allowed() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = allowed()
    with machine.arithmetic("tf32"):
        assert allowed() == before  # on a processor there is nothing to choose
    monkeypatch.setattr(machine, "_device", machine.device())  # both are put back behind the test
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before[1])
    machine.use_device("cuda")
    assert allowed() == (False, False)
    with machine.arithmetic("tf32"):
        assert allowed() == (True, True)
        with machine.arithmetic("bf16"):
            assert allowed() == (False, False)
    assert allowed() == (False, False)
