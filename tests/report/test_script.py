"""scripts/report.py through its real command line."""

import importlib
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def call(*arguments, cwd):
    command = [sys.executable, str(ROOT / "scripts" / "report.py"), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended


def test_a_sweep_becomes_a_report(fabricate, tmp_path):
    fabricate.sweep(tmp_path / "sweeps" / "mine", {"bahdanau": 0.1, "luong": 0.3}, (1, 2), 8)
    fabricate.run(tmp_path / "sweeps" / "mine" / "x", attention="hard", state="failed", error="It broke.")
    ended = call("sweeps/mine", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "x: Failed: It broke." in ended.stdout
    assert "4 of 5 points are in the report:" in ended.stdout
    assert (tmp_path / "sweeps" / "mine-report" / "report.html").is_file()


def test_the_points_of_a_sweep_are_those_of_its_command_and_its_experiment(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    asked = importlib.import_module("report").asked
    record = {"sweeper": {"params": {"attention": "dot,luong", "seed": "1,2"}}}
    for name, words in (("a", ["seed=range(3,5)", "data.test=9"]), ("b", ["attention/score=glob(a*)", "seed=1"])):
        (tmp_path / name).mkdir()
        text = yaml.safe_dump({"hydra": record | {"overrides": {"task": words}}})
        (tmp_path / name / "multirun.yaml").write_text(text)
    (tmp_path / "multirun.yaml").write_text("hydra: [cut")
    assert asked(tmp_path) == {
        tmp_path: [],
        tmp_path / "a": [(f"attention={name}", f"seed={seed}") for name in ("dot", "luong") for seed in (3, 4)],
        tmp_path / "b": [(f"attention={name}", "attention/score=additive") for name in ("dot", "luong")],
    }


def test_what_a_sweep_asked_for_is_listed(fabricate, tmp_path):
    fabricate.sweep(tmp_path / "mine", {"bahdanau": 0.1, "luong": 0.3}, (1,), 8)
    record = {"hydra": {"sweeper": {}, "overrides": {"task": ["attention=bahdanau,luong,hard", "seed=1"]}}}
    (tmp_path / "mine" / "multirun.yaml").write_text(yaml.safe_dump(record))
    ended = call("mine", cwd=tmp_path)
    assert "attention=hard: Missing: the sweep asked for it" in ended.stdout
    assert "2 of 3 points are in the report:" in ended.stdout


def test_mistakes_are_sentences(tmp_path):
    (tmp_path / "empty").mkdir()
    ended = call("empty", cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith("attnlab: There is no run in empty")
    assert call("none", cwd=tmp_path).returncode == 1
    assert call(cwd=tmp_path).returncode == 2
    assert call("empty", "--example", cwd=tmp_path).returncode == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]


def test_the_worked_example(tmp_path):
    ended = call("--example", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    out = tmp_path / "outputs" / "example"
    assert {path.name for path in out.iterdir()} == {"example.html", "example.png", "example.svg"}
    assert '"weights": [[0.05, 0.15, 0.5, 0.05, 0.1, 0.1, 0.05]]' in (out / "example.html").read_text()


def test_a_report_needs_neither_torch_nor_lightning():
    code = (
        "import sys, attnlab.report.assemble, attnlab.report.example; "
        "slow = ('torch', 'pytorch_lightning', 'matplotlib', 'scipy', 'sacrebleu'); "
        "print([name for name in slow if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
