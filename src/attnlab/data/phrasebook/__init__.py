"""An embedded parallel corpus with gold word alignments: English to German, French or Spanish.

The sentences are generated: a meaning is drawn at random and put into words by an English and a target
grammar, each with its own word order. Names, dates, numbers and units come from CLDR (Babel) and
num2words, common words from small hand-written lexicons. As both sides grow from one meaning, the
alignment is known by construction.

Conventions of the alignment, between the words of ``attnlab.data.words.split_words``: words that express
the same part of the meaning are linked as sure, all with all ("twenty-one" with each word of "vingt et
un", "not" with both "ne" and "pas", "im" with "in" and "the"). A function word that only one side
has is linked as possible to the translation of its head: an article to its noun, an auxiliary, subject
pronoun or infinitive marker to its verb, a comma to its conjunction; the comma of an English date stays
without a link."""

import itertools
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from attnlab.errors import UserError

if TYPE_CHECKING:
    import datasets

LANGUAGES = ("de", "fr", "es")
LARGEST = 5_000_000  # sentences; far below what the templates yield, so that drawing a new one stays easy


def generate(
    *, language: str = "de", train: int = 20000, validation: int = 500, test: int = 1000, seed: int = 0
) -> "datasets.DatasetDict":
    """The splits train, validation and test with so many sentence pairs.

    Columns: ``source`` (English), ``target``, and the links ``sure`` and ``possible``, lists of pairs
    ``[i, j]`` of a source and a target word index; ``possible`` holds only what is not sure. No source
    and no target sentence occurs twice, within or across splits. The pairs depend on ``language`` and
    ``seed`` alone: test and validation do not change with ``train``, and a larger split begins with the
    pairs of a smaller one when the splits drawn before it (test, then validation, then train) keep their
    sizes.

    Raises UserError for an unknown language and for a size that cannot be met.
    """
    sizes = {"test": test, "validation": validation, "train": train}
    if language not in LANGUAGES:
        raise UserError(f"unknown phrasebook language {language!r}: choose one of {', '.join(LANGUAGES)}")
    for name, size in sizes.items():
        if size < (name == "train"):
            raise UserError(f"phrasebook split {name} has size {size}: it must be at least {int(name == 'train')}")
    if sum(sizes.values()) > LARGEST:
        raise UserError(f"phrasebook cannot yield {sum(sizes.values())} sentence pairs: ask for at most {LARGEST}")

    import datasets

    pairs = _pairs(language, seed)
    link = datasets.Sequence(datasets.Sequence(datasets.Value("int32")))
    features = datasets.Features(
        {
            "source": datasets.Value("string"),
            "target": datasets.Value("string"),
            "sure": link,
            "possible": link,
        }
    )
    splits = {}
    for name, size in sizes.items():
        rows = list(itertools.islice(pairs, size))
        columns = {column: [row[index] for row in rows] for index, column in enumerate(features)}
        splits[name] = datasets.Dataset.from_dict(columns, features=features)
    return datasets.DatasetDict({name: splits[name] for name in ("train", "validation", "test")})


def _pairs(language: str, seed: int) -> Iterator[tuple[str, str, list[list[int]], list[list[int]]]]:
    """Endless ``(source, target, sure, possible)``, all sources and all targets distinct."""
    from attnlab.data.phrasebook.cldr import GRAMMARS
    from attnlab.data.phrasebook.english import English
    from attnlab.data.phrasebook.sampler import Sampler
    from attnlab.data.phrasebook.tokens import align, join

    sampler, source_grammar = Sampler(language), English()
    target_grammar = GRAMMARS[language].GRAMMAR
    rng = random.Random(f"phrasebook {language} {seed}")  # a string seeds alike in every process
    sources: set[str] = set()
    targets: set[str] = set()
    while True:
        sentence = sampler.sentence(rng)
        source, source_words = join(source_grammar.sentence(sentence))
        if source in sources:
            continue
        target, target_words = join(target_grammar.sentence(sentence))
        if target in targets:
            continue
        sources.add(source)
        targets.add(target)
        yield source, target, *align(source_words, target_words)
