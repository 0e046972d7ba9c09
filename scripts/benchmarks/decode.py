"""Decoding speed: sentences per second of greedy and beam search on a test set.

Without --run the models are untrained, of the sizes of the published comparisons: one bidirectional LSTM layer of
2 x 256, an LSTM decoder of 512 with additive attention of 256, with and without input feeding, and a Transformer of 3
and 3 blocks of width 256, 4 heads and 512 in between; embeddings of 256, output layers of their own, words seen at
least twice. An untrained model does not end where a trained one does. So the end symbol is ruled out until the step at
which the reference of a source has it, and taken for certain there: each source makes as many steps as its reference
has tokens, with the end symbol, and leaves the batch as it would; all other choices are the model's. With --run a
trained model ends where it wants to.

A turn is the whole test set: batches of like lengths, search, and the hypotheses as text. The figures are medians over
turns that are not void. `x OpenNMT` is the ratio to what OpenNMT-py was measured at elsewhere, on Multi30k's
test2016 with a recurrent model of these sizes: 500 sentences per second greedily, 135 with a beam of 5 (JoeyNMT: 226
and 75). It is given for --data alone, and compares machines as well as programs.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from _command import add_numbers, whole

from benchmarks import _machine

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from torch import Tensor

    from attnlab.data.batching import Batch
    from attnlab.data.translation import TranslationData
    from attnlab.decoding import Hypothesis

_SIZES = ("task=translation", "model.embedding=256", "model.tie_output=false", "model.share_embeddings=false")
_RNN = (
    *_SIZES, "model=rnn", "model.cell=lstm", "model.layers=1", "model.encoder_size=256", "model.decoder_size=512",
    "model/decoder=luong", "attention=bahdanau", "attention.score.size=256",
)  # fmt: skip
MODELS = {
    "rnn": (*_RNN, "model.decoder.input_feeding=false"),
    "rnn-feeding": (*_RNN, "model.decoder.input_feeding=true"),
    "transformer": (
        *_SIZES, "model=transformer", "model.depth=3", "model.heads=4", "model.hidden=512", "attention=scaled",
    ),
}  # fmt: skip
"""Overrides of the config."""

_ELSEWHERE = {"OpenNMT-py": {1: 500, 5: 135}, "JoeyNMT": {1: 226, 5: 75}}
_LONGEST = 100  # tokens of a sentence: bounds a batch's cells
_CERTAIN = 1e4  # nats, more than the log-probabilities of two hypotheses differ by

Search = Callable[["Batch", int], "list[Hypothesis]"]


@dataclass
class Subject:
    """What is measured: a model's search over a batch with a beam width, the test set, and where it comes from."""

    name: str
    search: Search
    data: "TranslationData"
    parameters: int


def add_options(parser: argparse.ArgumentParser) -> None:
    many = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument(
        "--data", metavar="PATH", help="a parallel corpus, a folder or a Hub id (default: the phrasebook, or the run's)"
    )
    parser.add_argument("--source", default="en", metavar="COLUMN", help="of --data (default: en)")
    parser.add_argument("--target", default="de", metavar="COLUMN", help="of --data (default: de)")
    parser.add_argument("--run", type=Path, metavar="RUN_DIR", help="measure this trained model instead")
    parser.add_argument(
        "--models", choices=tuple(MODELS), default=list(MODELS), **many, help=f"of {', '.join(MODELS)} (default: all)"
    )
    parser.add_argument(
        "--beams", type=whole(), nargs="+", default=[1, 5], metavar="N", help="beam widths, 1 is greedy (default: 1 5)"
    )
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default=["fp32", "bf16"], **many, help="fp32, bf16 (default: both)"
    )
    add_numbers(
        parser,
        ("pairs", 1, 20_000, "training pairs of the phrasebook"),
        ("test", 1, 1_000, "test pairs of the phrasebook"),
        ("batch", 1, 64, "sentences of a batch"),
        ("warmup", 0, 1, "turns before the clock starts"),
        ("repeats", 1, 3, "timed turns"),
        ("retries", 0, 3, "more turns for such as are void"),
    )


def measure(options: argparse.Namespace, console: "Console") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One row for each model, precision and beam width."""
    subjects = _untrained(options) if options.run is None else [_trained(options)]
    rows = []
    for subject, precision, beam in product(subjects, options.precision, options.beams):
        rows.append(_row(subject, precision, beam, options))
        console.print(
            f"{subject.name}, {precision}, beam {beam}: {rows[-1]['sentences_per_second']:,.1f} sentences/s",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    data = subjects[0].data
    split, pair = data.splits["test"], data.tokenizers
    assert pair is not None
    settings = {
        "data": Path(options.data).name if options.data else "phrasebook" if options.run is None else "the run's",
        "sentences": len(split), "reference_tokens": int((split.target.lengths + 1).sum()),
        "vocabulary_source": len(pair.source), "vocabulary_target": len(pair.target),
        "lengths": "the references'" if options.run is None else "the model's",
        "models": {name: list(MODELS[name]) for name in options.models} if options.run is None else None,
        "elsewhere": _ELSEWHERE,
    }  # fmt: skip
    return settings | {name: getattr(options, name) for name in ("batch", "warmup", "repeats", "retries")}, rows


def _corpus(base: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The data config of the test set, in batches as the options say."""
    from attnlab.cli import CONF
    from attnlab.experiment.build import compose

    if options.data:
        columns = {"path": options.data, "source": options.source, "target": options.target}
        base = compose(CONF, ["data=parallel"])["data"] | columns
    return base | {"max_sentences": options.batch, "eval_max_tokens": options.batch * (_LONGEST + 1)}


def _untrained(options: argparse.Namespace) -> list[Subject]:
    """Models of fixed sizes that stop where the references do."""
    import torch

    from attnlab.cli import CONF
    from attnlab.experiment.build import build, compose
    from attnlab.experiment.domains import DOMAINS

    phrasebook = compose(CONF, ["data=phrasebook"])["data"] | {
        "train": options.pairs, "validation": 1, "test": options.test,
    }  # fmt: skip
    spec = _corpus(phrasebook, options)
    spec["tokenizer"] |= {"kind": "word", "min_frequency": 2}
    data = build(spec)
    data.prepare()
    subjects = []
    for name in options.models:
        torch.manual_seed(1)
        model = build(DOMAINS["translation"].spec(compose(CONF, MODELS[name]), data)).eval()
        subjects.append(Subject(name, _forced(model), data, model.parameter_count()))
    return subjects


def _trained(options: argparse.Namespace) -> Subject:
    """The model of a run, which stops where it wants to."""
    from attnlab.experiment.build import build
    from attnlab.experiment.use import load_translator

    run = load_translator(options.run)
    data = build(_corpus(run.config["data"], options))
    data.use_tokenizers(run.tokenizers)
    data.prepare_split("test")
    alpha = run.config["search"]["alpha"]
    return Subject(
        options.run.name, lambda batch, beam: run.task.search(batch.source, beam, alpha), data,
        run.task.model.parameter_count(),
    )  # fmt: skip


class _ForcedState(NamedTuple):
    """The model's own state, and how many steps each row [N] has yet to make."""

    own: Any
    left: "Tensor"

    def select(self, rows: "Tensor") -> "_ForcedState":
        return _ForcedState(self.own.select(rows), self.left[rows])


class Forced:
    """A model whose hypotheses end after a given number of steps, and not before.

    Args:
        model: what is searched.
        steps: long [B], of each source, the end symbol included.
    """

    def __init__(self, model: Any, steps: "Tensor") -> None:
        self.model = model
        self.steps = steps

    def start(self, source: "Tensor") -> _ForcedState:
        return _ForcedState(self.model.start(source), self.steps)

    def step(self, tokens: "Tensor", state: _ForcedState) -> "tuple[Tensor, Tensor, _ForcedState]":
        import torch

        from attnlab.data.tokenizers import EOS

        log_probs, weights, own = self.model.step(tokens, state.own)
        left = state.left - 1
        log_probs[:, EOS] += torch.where(left == 0, _CERTAIN, -_CERTAIN)
        return log_probs, weights, _ForcedState(own, left)


def _forced(model: Any) -> Search:
    from attnlab.data.tokenizers import BOS, EOS, PAD
    from attnlab.decoding import beam, greedy

    def search(batch: "Batch", width: int) -> "list[Hypothesis]":
        steps = (batch.target_out != PAD).sum(1)
        forced = Forced(model, steps)
        if width == 1:
            return greedy(forced, batch.source, steps, BOS, EOS)
        return beam(forced, batch.source, steps, BOS, EOS, width)

    return search


def _row(subject: Subject, precision: str, beam: int, options: argparse.Namespace) -> dict[str, Any]:
    import torch

    data, count = subject.data, len(subject.data.splits["test"])
    pair = data.tokenizers
    assert pair is not None
    made: dict[int, int] = {}  # steps of each sentence

    def turn() -> None:
        texts = {}
        for batch in data.loader("test"):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                found = subject.search(batch, beam)
            for index, hypothesis in zip(batch.index.tolist(), found, strict=True):
                texts[index] = pair.target.decode(hypothesis.tokens)
                made[index] = len(hypothesis.weights)

    measured = _machine.turns(turn, options.repeats, options.retries, options.warmup)
    spread = measured.spread()
    steps = sum(made.values())
    rate = count / spread["seconds"]
    published = _ELSEWHERE["OpenNMT-py"].get(beam) if options.data else None
    return {
        "model": subject.name, "precision": precision, "beam": beam, "sentences_per_second": rate,
        "sentences_per_second_min": count / spread["seconds_max"],
        "sentences_per_second_max": count / spread["seconds_min"],
        "tokens_per_second": steps / spread["seconds"], "milliseconds_per_sentence": 1e3 / rate, "tokens": steps,
        "opennmt_py_elsewhere": published, "ratio": None if published is None else rate / published,
        "parameters": subject.parameters,
    } | {name: spread[name] for name in ("repeats", "cpu_pressure", "void")}  # fmt: skip


def table(rows: list[dict[str, Any]]) -> "Table":
    """A line for each row; tokens are the target's, with the end symbol."""
    from rich import box
    from rich.table import Table

    shown = Table(title="Decoding", title_justify="left", box=box.SIMPLE, padding=0)
    for name in ("model", "type"):
        shown.add_column(name, no_wrap=True)
    for name in ("beam", "sents/s", "least", "most", "tokens/s", "ms each", "x OpenNMT", "waited"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        rates = [row[f"sentences_per_second{suffix}"] for suffix in ("", "_min", "_max")]
        shown.add_row(
            row["model"], row["precision"], str(row["beam"]), *[f"{rate:,.1f}" for rate in rates],
            f"{row['tokens_per_second']:,.0f}", f"{row['milliseconds_per_sentence']:,.2f}",
            "" if row["ratio"] is None else f"{row['ratio']:.2f}", _machine.waited(row),
        )  # fmt: skip
    return shown
