"""Whatever valid options are composed, a run trains a step and is tested, or is refused with a reason.

The groups and their options are read from conf/, so that a new one is drawn from the day on which it is there. The
draws are the same every time; `ATTNLAB_EXAMPLES=1000 python -m pytest tests/test_properties.py` draws others, and more.
"""

import importlib.util
import io
import json
import math
import os
import shlex
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from hypothesis import HealthCheck, Phase, configuration, event, given, note, settings
from hypothesis import strategies as st
from PIL import Image

from attnlab.callbacks.average import MovingAverage
from attnlab.callbacks.epochs import StepOnPlateau
from attnlab.callbacks.guard import FiniteLoss
from attnlab.cli import CONF
from attnlab.data.images import read_image
from attnlab.data.pictures import UnreadablePicture, decode, pixels
from attnlab.errors import UserError
from attnlab.experiment.build import build, compose
from attnlab.experiment.domains import DOMAINS
from attnlab.experiment.precision import trainer_precision
from attnlab.experiment.training import check_optimizer, make_task, set_up_libraries
from attnlab.experiment.use import TrainedTranslator
from attnlab.help import groups

configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "attnlab-hypothesis")
ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = os.environ.get("ATTNLAB_EXAMPLES")


def drawn(examples: int) -> settings:
    """How a property is tested; not shrunk, since that takes minutes and the command that fails is short."""
    return settings(
        max_examples=int(EXAMPLES or examples), derandomize=EXAMPLES is None, deadline=None, database=None,
        phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck),
    )  # fmt: skip


# The smallest data of each embedded corpus.
DATA = {
    "phrasebook": {"train": 40, "validation": 4, "test": 4},
    "digits": {"validation": 10, "test": 10, "batch_size": 4},
    "cluttered_digits": {
        "train": 12, "validation": 6, "test": 6, "batch_size": 4, "size": 24, "scale": [8, 12], "piece_size": 4,
    },
}  # fmt: skip
NARROWER = 8  # times, than by default, are models
# Values of keys that are words or may be null; all others are drawn by the type of their default.
WORDS: dict[str, list[Any]] = {
    "attention.estimator.top": [1, 2, 100],
    "attention.estimator.final_entropy_bonus": [None, 0.1],
    "model.cell": ["lstm", "gru"],
    "model.encoder_layers": [1, 2, 3],
    "model.variant": ["cross", "all"],
    "model.variant_layers": ["all", "pooling", [0], [1], [0, 1], [], [5]],
    "data.tokenizer.kind": ["word", "bpe", "character"],
    "data.tokenizer.vocabulary": [5, 120, 1000],
    "data.max_length": [1, 6, 20],
    "data.max_sentences": [1, 3, None],
    "data.image_size": [1, 4, 9],
    "schedule.warmup": [0.3, 5],
    "schedule.factor": [0.1, 0.9],
    "schedule.mode": ["min", "max"],
    "search.beam": [1, 2],
    "search.draws": [1],
    "task.average": [0.5, 0.999],
    "trainer.precision": ["bf16-mixed"],
}
NUMBERS: dict[type, list[Any]] = {bool: [False, True], int: [0, 1, 2, 3, 5], float: [0.0, 0.1, 0.5, 1.0]}
# Options that go with most others, so that not too many compositions are refused.
MORE_OFTEN = {"attention/estimator": ["expectation", "reinforce", "gumbel"] * 3, "model/decoder": ["luong"]}
SECTIONS = ("attention.", "model.", "optimizer.", "schedule.", "data.", "task.", "search.", "trainer.precision")
# Keys that name things, whose size or seed is set above, or that Adam cannot do without.
LEFT_ALONE = {
    "task.name",
    "task.epochs",
    "task.monitor",
    "task.mode",
    "task.patience",
    "optimizer.eps",
    "data.split_seed",
}
LEFT_ALONE |= {"data.train", "data.validation", "data.test", "data.generation_seed", "data.size", "data.language"}


@cache
def options(group: str) -> dict[str, list[str]]:
    """The options of a group, each with the groups that it nests; of data those that are embedded."""
    found = {}
    for path in groups(CONF)[group]:
        content = yaml.safe_load(path.read_text())
        entries = [entry for entry in content.get("defaults", []) if isinstance(entry, dict)]
        named = [name for entry in entries for name in entry]
        found[path.stem] = [name[1:] if name.startswith("/") else f"{group}/{name}" for name in named]
    return {name: nested for name, nested in found.items() if group != "data" or name in DATA}


@st.composite
def choices(draw: st.DrawFn) -> dict[str, str]:
    """An option of every group, in the order of the command line; model and data mostly of the same kind."""
    chosen: dict[str, str] = {}

    def choose(group: str) -> None:
        names = list(options(group))
        if group in ("model", "data") and draw(st.sampled_from(range(20))):
            names = [name for name in names if fits(group, name, chosen["task"])]
        chosen[group] = draw(st.sampled_from([*names, *MORE_OFTEN.get(group, ())]))
        for nested in options(group)[chosen[group]]:
            choose(nested)

    for group in ("task", "attention", "optimizer", "schedule"):
        choose(group)
    return chosen


def fits(group: str, option: str, task: str) -> bool:
    target = yaml.safe_load((CONF / group / f"{option}.yaml").read_text())["_target_"]
    domain = DOMAINS[task]
    return target in domain.models if group == "model" else target.rpartition(".")[0] == domain.data


def leaves(part: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(part, dict):
        return {prefix: part}
    return {
        leaf: value
        for key, inner in part.items()
        for leaf, value in leaves(inner, f"{prefix}.{key}".lstrip(".")).items()
    }


def put(config: dict[str, Any], key: str, value: Any) -> None:
    *parents, name = key.split(".")
    for parent in parents:
        config = config[parent]
    config[name] = value


@dataclass
class Composition:
    """A composed config, and the command that composes it."""

    command: str
    config: dict[str, Any] = field(repr=False)


@st.composite
def compositions(draw: st.DrawFn) -> Composition:
    """A config of the smallest size, with up to three of its keys changed."""
    chosen = draw(choices())
    words = [f"{group}={option}" for group, option in chosen.items()]
    config = compose(CONF, words)
    defaults = leaves(config)
    changed = {f"data.{key}": value for key, value in DATA[chosen["data"]].items()} | {"search.draws": 1}
    for key, value in defaults.items():
        if key.startswith(("attention.", "model.")) and type(value) is int and value > 2 * NARROWER:
            changed[key] = value // NARROWER
    keys = [key for key, value in defaults.items() if values_of(key, value)]
    for key in draw(st.lists(st.sampled_from(keys), max_size=3, unique=True)):
        changed[key] = draw(st.sampled_from(values_of(key, defaults[key])))
    for key, value in changed.items():
        put(config, key, value)
    words += [f"{key}={json.dumps(value)}" for key, value in changed.items()]
    return Composition(shlex.join(["python", "train.py", *words]), config)


def values_of(key: str, default: Any) -> list[Any]:
    if not key.startswith(SECTIONS) or key in LEFT_ALONE or "._" in key:
        return []
    return WORDS.get(key) or NUMBERS.get(type(default), [])


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        set_up_libraries()
        yield


@cache
def prepared(spec: str) -> Any:
    data = build(json.loads(spec))
    data.prepare()
    return data


def train_a_step_and_test(config: dict[str, Any], which: int = 0) -> None:
    """What `attnlab.experiment.training.train_and_test` does, for one batch and one test mode; UserError as there."""
    domain = DOMAINS[config["task"]["name"]]
    domain.check(config)
    with torch.device("meta"):
        make_task(config, None)
    check_optimizer(config)
    data = prepared(json.dumps(config["data"]))
    torch.manual_seed(0)
    task = make_task(config, data)
    average = config["task"]["average"]
    averaging = [] if average is None else [MovingAverage(average)]
    trainer = pl.Trainer(
        max_epochs=1, limit_train_batches=1, limit_val_batches=1, num_sanity_val_steps=0, accelerator="cpu",
        precision=trainer_precision(config["trainer"] | {"accelerator": "cpu"}),
        gradient_clip_val=config["trainer"]["gradient_clip_val"],
        callbacks=[StepOnPlateau(), FiniteLoss(), *averaging], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tempfile.gettempdir(),
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    assert trainer.global_step == 1
    for name, parameter in task.named_parameters():
        assert parameter.isfinite().all(), f"{name} is not finite after a step"
    task.eval()
    mode = task.model.modes[which % len(task.model.modes)]
    (outcome,) = domain.outcomes(task, data, config, "test", (mode,), config["seed"]).values()
    assert math.isfinite(outcome.metrics["loss"])


@drawn(60)
@given(drawn=compositions(), which=st.integers(0, 3))
def test_every_composition_trains_a_step_or_is_refused_with_a_reason(drawn, which):
    refusal = ""
    try:
        train_a_step_and_test(drawn.config, which)
    except UserError as error:
        refusal = str(error)
    event("refused" if refusal else "trained and tested")
    note(refusal)
    assert "training loss became" not in refusal
    assert not refusal or (len(refusal) > 20 and refusal[0].isalnum())


# Lines of every sort: the corpus's own words, any text, any bytes, signs that are special to Unicode or to the
# tokenizers, and lines without an end.
LINES = st.one_of(
    st.lists(st.sampled_from(["the", "Book", "two", "far", ".", "?", "⁇", "<eos>", "▁"]), max_size=8).map(" ".join),
    st.text(max_size=30),
    st.text("\0\t\v\f\r\x1c\x85\u00a0\u0301\u200b\u2028\u2029\ufeff\U0001f469▁_<>a ", max_size=12),
    st.builds(str.__mul__, st.sampled_from(["far ", "x", "▁ ", "\u0301", "\U0001f469\u200d"]), st.integers(1, 3000)),
).map(str.encode) | st.binary(max_size=30)  # fmt: skip


def translator(*words: str) -> TrainedTranslator:
    """An untrained translator for the smallest phrasebook."""
    config = compose(CONF, [*words, *(f"data.{key}={value}" for key, value in DATA["phrasebook"].items())])
    data = prepared(json.dumps(config["data"]))
    torch.manual_seed(0)
    return TrainedTranslator(Path(), config, make_task(config, data).eval(), data.tokenizers)


@pytest.fixture(scope="module")
def translators():
    narrow = [f"model.{key}=16" for key in ("embedding", "encoder_size", "decoder_size")]
    return {
        "word": translator("attention=hard", *narrow),
        "bpe": translator("model=transformer", "attention=scaled", "model.embedding=16", "model.hidden=16",
                          "data.tokenizer={kind: bpe, vocabulary: 150, lowercase: true, joint: true}"),
        "character": translator("attention=variational", *narrow, "data.tokenizer.kind=character"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def script():
    """scripts/translate.py as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        found = importlib.util.spec_from_file_location("translate_script", ROOT / "scripts" / "translate.py")
        assert found is not None
        module = importlib.util.module_from_spec(found)
        patch.setitem(sys.modules, found.name, module)  # where its dataclass looks for it
        found.loader.exec_module(module)
        yield module


@pytest.mark.parametrize("kind", ["word", "bpe", "character"])
@drawn(15)
@given(lines=st.lists(LINES.map(lambda line: line.replace(b"\n", b"")), max_size=5), number=st.integers(0, 3))
def test_every_line_is_translated_or_reported_in_its_place(translators, script, kind, lines, number):
    trained = translators[kind]
    mode = trained.modes[number % len(trained.modes)]
    torch.manual_seed(0)
    stream = io.BytesIO(b"".join(line + b"\n" for line in lines))
    read = script.encoded(trained, script.raw_lines(stream, 5000), 40)
    done = [line for window in script.translated(trained, read, mode=mode, beam=1 + number % 2) for line in window]
    assert [line.number for line in done] == list(range(1, len(lines) + 1))
    for line in done:
        assert bool(line.problem) != bool(line.found)
        row = script.alignment(trained, line)
        json.dumps(row, allow_nan=False)
        if line.problem:
            continue
        assert "\n" not in trained.tokenizers.target.decode(line.found.tokens)
        assert len(row["weights"]) == len(row["target"])
        for weights in row["weights"]:
            assert len(weights) == len(row["source"])
            assert sum(weights) == pytest.approx(1, abs=1e-4 * len(weights))


MODES = (
    "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F",
)  # fmt: skip
FORMATS = ("PNG", "TIFF", "GIF", "BMP", "JPEG", "WEBP", "PPM", "TGA", "ICO", "PCX", "SGI", "IM")


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A small picture of any mode in any format, whole or damaged, or bytes that are none."""
    mode = draw(st.sampled_from(MODES))
    size = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    written = io.BytesIO()
    form = draw(st.sampled_from(FORMATS))
    pixels_ = np.random.default_rng(draw(st.integers(0, 3))).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    try:
        Image.fromarray(pixels_, "RGBA").convert("RGB").convert(mode).save(written, form)
    except (ValueError, OSError, KeyError):  # this format has no such mode
        return draw(st.binary(max_size=60))
    content = bytearray(written.getvalue())
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=3)):
        content[place] = value
    return bytes(content[: draw(st.none() | st.integers(0, len(content)))])


@pytest.fixture(scope="module")
def classifier():
    config = compose(CONF, ["task=vision", "model.size=8", "data.validation=10", "data.test=10"])
    data = prepared(json.dumps(config["data"]))
    torch.manual_seed(0)
    return make_task(config, data).eval(), data.state()


@drawn(80)
@given(
    content=files(), channels=st.sampled_from([1, 3]), size=st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9))
)
def test_every_file_is_a_picture_or_reported(classifier, tmp_path_factory, content, channels, size):
    picture, problem = None, ""
    try:
        picture = decode(content, size)
    except UnreadablePicture as error:
        problem = str(error)
    event("no picture" if picture is None else "a picture")
    if picture is None:
        assert problem.strip()
        assert "\n" not in problem
        return
    array = pixels(picture, channels)
    assert array.dtype == np.uint8
    assert array.shape[0] == channels
    assert size is None or array.shape[:0:-1] == size
    task, state = classifier
    path = tmp_path_factory.getbasetemp() / "any.picture"
    path.write_bytes(content)
    log_probs = task.predict(read_image(path, state))
    assert log_probs.shape == (1, 10)
    assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-4)
