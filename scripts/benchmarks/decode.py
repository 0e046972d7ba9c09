"""Decoding speed: sentences per second of greedy and beam search on a test set.

Without --run the models are untrained, of the sizes of the published comparisons, as in `benchmark.py train`: the
recurrent one with additive attention, with and without input feeding, and the Transformer; words seen at least twice.
An untrained model does not end where a trained one does. So the end symbol is ruled out until the step at which the
reference of a source has it, and taken for certain there: each source makes as many steps as its reference has tokens,
with the end symbol, and leaves the batch as it would; all other choices are the model's. With --run a trained model
ends where it wants to.

OpenNMT-py and JoeyNMT, where they are installed, search the same batches with models of the same sizes and by their
own search, in fp32, which ends in the same way: JoeyNMT's greedy and beam search, OpenNMT-py's beam search (of width 1
for greedy). `ratios` are to them. On a GPU fp32 is without TF32 in all; tf32 is fp32 with it, and its ratios are to
fp32 too. Where another's search fails, it is left out, and a sentence says so.

A turn is the whole test set: batches of like lengths, search, and the hypotheses as text. All that search with one
beam width, all toolkits, models and precisions, take their turns one after the other, lest a machine that slows
down tell against one of them. The figures are medians over turns that are not void.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from _command import add_device, add_numbers, whole

from benchmarks import _machine, _peers

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from torch import Tensor

    from attnlab.data.batching import Batch
    from attnlab.data.translation import TranslationData
    from attnlab.decoding import Hypothesis

MODELS = {
    "rnn": _peers.Shape("rnn", "additive", feeding=False),
    "rnn-feeding": _peers.Shape("rnn", "additive", feeding=True),
    "transformer": _peers.Shape("transformer", "scaled", feeding=False),
}

_LONGEST = 100  # tokens of a sentence: bounds a batch's cells
_CERTAIN = 1e4  # nats, more than the log-probabilities of two hypotheses differ by


@dataclass
class Subject:
    """What is measured: a model's search over a batch with a beam width, the test set, and where it comes from."""

    name: str
    search: _peers.Searching
    data: "TranslationData"
    parameters: int
    toolkit: str = "attnlab"


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
        "--precision", choices=_machine.PRECISIONS["cuda"], **many,
        help="fp32, bf16, on a GPU also tf32 (default: all of the device)",
    )  # fmt: skip
    parser.add_argument(
        "--no-peers", action="store_true", help="leave OpenNMT-py and JoeyNMT out, even if they are installed"
    )
    add_device(parser, "where all search")
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
    rows: list[dict[str, Any]] = []
    theirs: dict[tuple[str, int], dict[str, float]] = {}  # sentences per second, of a model and beam width
    for beam in options.beams:
        searches = {search: search.turn for search in _searches(subjects, beam, options.precision, console)}
        taken = _machine.in_turn(searches, options.repeats, options.retries, options.warmup)
        for search, measured in taken.items():
            subject, row = search.subject, search.row(measured)
            rate = row["sentences_per_second"]
            others = theirs.setdefault((subject.name, beam), {})
            if subject.toolkit != "attnlab":
                others[subject.toolkit] = rate
                rows.append(row)
            else:
                rows.append(row | {"ratios": {name: rate / other for name, other in others.items()}})
            console.print(
                f"{subject.toolkit} {subject.name}, {search.precision}, beam {beam}: {rate:,.1f} sentences/s",
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
        "models": {name: _peers.overrides(MODELS[name]) for name in options.models} if options.run is None else None,
        "peers": _peers.versions() if options.run is None else {},
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
        for toolkit in [] if options.no_peers else _peers.available(MODELS[name]):
            parameters, search = _peers.searching(toolkit, MODELS[name], data, _CERTAIN)
            subjects.append(Subject(name, search, data, parameters, toolkit))
        config = compose(CONF, _peers.overrides(MODELS[name]))
        model = _machine.placed(build(DOMAINS["translation"].spec(config, data)).eval())
        subjects.append(Subject(name, _forced(model), data, model.parameter_count()))
    return subjects


def _trained(options: argparse.Namespace) -> Subject:
    """The model of a run, which stops where it wants to."""
    from attnlab.experiment.build import build
    from attnlab.experiment.use import load_translator

    run = load_translator(options.run)
    _machine.placed(run.task)
    data = build(_corpus(run.config["data"], options))
    data.use_tokenizers(run.tokenizers)
    data.prepare_split("test")
    alpha = run.config["search"]["alpha"]
    return Subject(
        options.run.name, lambda batch, beam: _found(run.task.search(_machine.placed(batch.source), beam, alpha)), data,
        run.task.model.parameter_count(),
    )  # fmt: skip


class _ForcedState(NamedTuple):
    """The model's own state, and how many steps each row [N] has yet to make."""

    own: Any
    left: "Tensor"

    def select(self, rows: "Tensor", same_sources: bool = False) -> "_ForcedState":
        return _ForcedState(self.own.select(rows, same_sources), self.left[rows])


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


def _found(hypotheses: "list[Hypothesis]") -> list[tuple[list[int], int]]:
    return [(hypothesis.tokens, len(hypothesis.weights)) for hypothesis in hypotheses]


def _forced(model: Any) -> _peers.Searching:
    from attnlab.data.tokenizers import BOS, EOS, PAD
    from attnlab.decoding import beam, greedy

    def search(batch: "Batch", width: int) -> list[tuple[list[int], int]]:
        source, steps = (_machine.placed(part) for part in (batch.source, (batch.target_out != PAD).sum(1)))
        forced = Forced(model, steps)
        if width == 1:
            return _found(greedy(forced, source, steps, BOS, EOS))
        return _found(beam(forced, source, steps, BOS, EOS, width))

    return search


class Search:
    """Turns of a subject in a precision with a beam width."""

    def __init__(self, subject: Subject, precision: str, beam: int) -> None:
        self.subject, self.precision, self.beam = subject, precision, beam
        self._steps: dict[int, int] = {}  # of each sentence

    def turn(self) -> None:
        import torch

        from attnlab.kernels.products import Packing

        data, packing = self.subject.data, Packing()  # as `translate.py` searches; nothing to other toolkits
        pair = data.tokenizers
        assert pair is not None
        half = self.precision == "bf16"
        texts = {}
        with _machine.arithmetic(self.precision), torch.autocast(_machine.device(), torch.bfloat16, enabled=half):
            for batch in data.loader("test"):
                with packing:
                    found = self.subject.search(batch, self.beam)
                for index, (tokens, steps) in zip(batch.index.tolist(), found, strict=True):
                    texts[index] = pair.target.decode(tokens)
                    self._steps[index] = steps

    def row(self, measured: _machine.Turns) -> dict[str, Any]:
        spread, count = measured.spread(), len(self.subject.data.splits["test"])
        steps = sum(self._steps.values())
        return {
            "toolkit": self.subject.toolkit, "model": self.subject.name, "precision": self.precision, "beam": self.beam,
            "sentences_per_second": count / spread["seconds"],
            "sentences_per_second_min": count / spread["seconds_max"],
            "sentences_per_second_max": count / spread["seconds_min"],
            "tokens_per_second": steps / spread["seconds"], "tokens": steps,
            "parameters": self.subject.parameters,
        } | {name: spread[name] for name in ("repeats", "cpu_pressure", "void")}  # fmt: skip


def _searches(subjects: list[Subject], beam: int, precisions: list[str], console: "Console") -> Iterator[Search]:
    """All that search with a beam width. Of another toolkit's, those whose first turn does not fail."""
    for subject in subjects:
        if subject.toolkit == "attnlab":
            yield from (Search(subject, precision, beam) for precision in precisions)
            continue
        search = Search(subject, "fp32", beam)
        try:
            search.turn()
        except Exception as error:  # from others' code anything may come; the other rows are still worth having
            console.print(
                f"{subject.toolkit} {subject.name}, beam {beam} is left out: {type(error).__name__}: {error}",
                highlight=False, markup=False, soft_wrap=True,
            )  # fmt: skip
            continue
        yield search


def table(rows: list[dict[str, Any]]) -> "Table":
    """A line for each row; tokens are the target's, with the end symbol."""
    from rich import box
    from rich.table import Table

    shown = Table(title="Decoding", title_justify="left", box=box.SIMPLE, padding=0)
    for name in ("toolkit", "model", "type"):
        shown.add_column(name, no_wrap=True)
    for name in ("beam", "sents/s", "least", "most", "tokens/s", "ratio", "waited"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        rates = [row[f"sentences_per_second{suffix}"] for suffix in ("", "_min", "_max")]
        shown.add_row(
            row["toolkit"], row["model"], row["precision"], str(row["beam"]), *[f"{rate:,.1f}" for rate in rates],
            f"{row['tokens_per_second']:,.0f}", _machine.ratios(row), _machine.waited(row),
        )  # fmt: skip
    return shown
