"""Fabricated run directories: what a run writes, without the training."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from attnlab.evaluation.text import corpus_scores

_CLASSES = {"bahdanau": "AdditiveScore", "luong": "GeneralScore", "scaled": "ScaledScore", "hard": "DotScore"}
_WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "while",
    "two",
    "dogs",
    "slept",
    "under",
    "our",
    "old",
    "table",
    "and",
    "nobody",
    "saw",
    "them",
    "leave",
]


def references(count: int, seed: int = 0) -> list[str]:
    """Sentences of 3 to 14 words, the same for the same seed."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(_WORDS, k=draw.randint(3, 14))) for _ in range(count)]


def spoiled(texts: Sequence[str], rate: float, seed: object) -> list[str]:
    """Each word replaced by another with this probability."""
    draw = random.Random(str(seed))
    return [
        " ".join("wrong" + str(draw.randint(0, 99)) if draw.random() < rate else word for word in text.split())
        for text in texts
    ]


def attention_rows(texts: Sequence[str], seed: object) -> list[dict[str, Any]]:
    """Maps of translations: random weights that sum to 1."""
    draw = random.Random(str(seed))
    rows = []
    for text in texts:
        source, target = [*text.split(), "<eos>"], [*text.upper().split(), "<eos>"]
        weights = [[draw.random() ** 6 for _ in source] for _ in target]
        rows.append(
            {
                "kind": "translation",
                "source": source,
                "target": target,
                "weights": [[weight / sum(row) for weight in row] for row in weights],
            }
        )
    return rows


def write_run(
    directory: Path,
    *,
    attention: str = "bahdanau",
    seed: int = 1,
    data: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
    overrides: Sequence[str] | None = None,
    choices: dict[str, str] | None = None,
    state: str = "finished",
    error: str | None = None,
    metrics: dict[str, Any] | None = None,
    predictions: Sequence[dict[str, Any]] | None = None,
    curves: Sequence[dict[str, Any]] = (),
    maps: Sequence[dict[str, Any]] = (),
) -> Path:
    """One run directory, as attnlab.experiment.record and training write it."""
    config = {
        "task": {"name": "translation", "monitor": "val/bleu"},
        "attention": {
            "score": {"_target_": f"attnlab.attention.scores.{_CLASSES.get(attention, attention)}"},
            "_target_": "attnlab.attention.core.Attention",
        },
        "data": data or {"_target_": "attnlab.data.translation.phrasebook", "language": "de", "test": 100},
        "optimizer": {"lr": 0.001},
        "search": {"beam": 5, "lowercase": False},
        "seed": seed,
        "run_dir": str(directory),
        **(extra or {}),
    }
    status = {"state": state, "config_hash": f"{seed}", "ended": "2026-01-01T00:00:00+0000"}
    files: dict[str, Any] = {"status.json": status | ({"error": error} if error else {})}
    hydra = directory / ".hydra"
    hydra.mkdir(parents=True)
    (hydra / "config.yaml").write_text(yaml.safe_dump(config))
    (hydra / "overrides.yaml").write_text(
        yaml.safe_dump([f"attention={attention}", f"seed={seed}"] if overrides is None else list(overrides))
    )
    if choices is not None:
        (hydra / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": choices}}}))
    if metrics is not None:
        files["metrics.json"] = metrics
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))
    for name, rows in (("predictions", predictions), ("curves", curves or None), ("attention", maps or None)):
        if rows is not None:
            (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def translated(texts: Sequence[str], outputs: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of predictions.jsonl; the source is the reference, shouted."""
    return [
        {"source": text.upper(), "reference": text, "prediction": output, "log_probability": -1.0}
        for text, output in zip(texts, outputs, strict=True)
    ]


def measured(texts: Sequence[str], outputs: Sequence[str], seed: object) -> dict[str, Any]:
    """A metrics.json for these outputs."""
    scores, noise = corpus_scores(outputs, texts), random.Random(str(seed))
    return {
        "test/loss": 1 - scores.bleu / 100,
        "test/bleu": scores.bleu,
        "test/chrf": scores.chrf,
        "test/accuracy": scores.exact_match,
        "test/edit_distance": scores.edit_distance,
        "test/entropy": 0.5 + noise.random(),
        "test/aer": 0.1 + 0.1 * noise.random(),
        "signature/bleu": scores.bleu_signature,
        "params": 1_234_567,
        "train/seconds": 100 + 10 * noise.random(),
        "train/tokens_per_second": 2500.0,
        "train/peak_memory_mib": 812.5,
        "selected_by": "val/bleu",
        "test_mode": "soft",
    }


def write_translation(directory: Path, name: str, seed: int, rate: float, texts: Sequence[str], **options: Any) -> Path:
    """A finished run of translation whose outputs have this share of wrong words."""
    outputs = spoiled(texts, rate, (name, seed))
    epochs = [
        {"epoch": epoch, "seconds": 10.0 * epoch, "val/loss": 3 / epoch + rate, "val/bleu": 80 - 60 / epoch - seed}
        for epoch in range(1, 6)
    ]
    return write_run(
        directory,
        attention=name,
        seed=seed,
        predictions=translated(texts, outputs),
        metrics=measured(texts, outputs, (name, seed)),
        curves=epochs,
        maps=attention_rows(texts[:4], (name, seed)),
        **options,
    )


def write_sweep(folder: Path, rates: dict[str, float], seeds: Sequence[int], count: int = 60) -> Path:
    """A sweep as `train.py -m` lays it out: a folder a variant, a folder a seed."""
    texts = references(count)
    for name, rate in rates.items():
        for seed in seeds:
            write_translation(folder / f"attention={name}" / f"seed={seed}", name, seed, rate, texts)
    return folder


class Fabricate:
    """The functions above, for tests that cannot import this file."""

    references = staticmethod(references)
    spoiled = staticmethod(spoiled)
    run = staticmethod(write_run)
    translation = staticmethod(write_translation)
    translated = staticmethod(translated)
    measured = staticmethod(measured)
    sweep = staticmethod(write_sweep)
    attention_rows = staticmethod(attention_rows)


@pytest.fixture(scope="session")
def fabricate() -> type[Fabricate]:
    return Fabricate


@pytest.fixture(scope="session")
def small_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small sweep: a point failed, one is missing, one is damaged, and a sentence is hostile."""
    from attnlab.report.assemble import write_report

    folder = tmp_path_factory.mktemp("sweeps") / "soft & <hard>"
    texts = [HOSTILE, *references(59)]
    for name, rate in (("bahdanau", 0.03), ("luong", 0.3), ("hard", 0.4)):
        for seed in (1, 2, 3):
            place = folder / f"attention={name}" / f"seed={seed}"
            if (name, seed) == ("hard", 3):
                continue
            if (name, seed) == ("hard", 2):
                write_run(place, attention=name, seed=seed, state="failed", error="The loss is not finite.")
                continue
            write_translation(place, name, seed, rate, texts)
    (folder / "attention=luong" / "seed=3" / "predictions.jsonl").write_text('{"source": "cut')
    points = [(f"attention={name}", f"seed={seed}") for name in ("bahdanau", "luong", "hard") for seed in (1, 2, 3)]
    return write_report(folder, asked={folder: points}).out


HOSTILE = '</script><script>alert("1")</script> a_b & 50 % | $x$ <img src=http://x.invalid/a.png> \\ # {y}'


@pytest.fixture
def hostile() -> str:
    return HOSTILE
