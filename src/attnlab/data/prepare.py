"""From a corpus to token ids, once: what was tokenized is kept in the user's cache, keyed by content. Knows no torch.

`python -m attnlab.data.prepare JSON` fills the cache for a data config; the command line starts it as a second process
(`prefetch`) while the first one imports torch.
"""

import contextlib
import gc
import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attnlab.data.corpora import SPLITS, Corpus, cache_folder, from_spec
from attnlab.data.ragged import Ragged, RaggedWriter
from attnlab.data.tokenizers import TextTokenizer, TokenizerPair, tag_symbols
from attnlab.errors import UserError
from attnlab.files import replacing, write_json

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

TOKENIZER_OPTIONS = {"kind": "word", "vocabulary": None, "min_frequency": 1, "lowercase": False, "joint": False}
_CHUNK = 10_000  # rows tokenized at a time: bounds the memory that lists of Python ints take
_SIDES = ("source", "target")


class EncodedSplit:
    """One split as ids without special tokens (a tagged source ends in its tags' ids), and its rows as text.

    The text stays on disk, where the data set has it; a property reads a whole column, so keep what it gives.

    Args:
        rows: gives the rows, when they are first asked for.
        source: ids of the sources.
        target: ids of the targets.
    """

    def __init__(self, rows: "Callable[[], datasets.Dataset]", source: Ragged, target: Ragged) -> None:
        self._rows = cache(rows)
        self.source = source
        self.target = target

    def __len__(self) -> int:
        return len(self.source)

    @property
    def rows(self) -> "datasets.Dataset":
        return self._rows()

    @property
    def source_texts(self) -> list[str]:
        return _column(self.rows, "source")

    @property
    def target_texts(self) -> list[str]:
        return _column(self.rows, "target")

    @property
    def tags(self) -> list[str] | None:
        return _column(self.rows, "tags")

    @property
    def sure(self) -> list[list[list[int]]] | None:
        """Each row's certain alignment links [source word, target word]; None if the corpus has none."""
        return _column(self.rows, "sure")

    @property
    def possible(self) -> list[list[list[int]]] | None:
        """Each row's alignment links that are possible but not sure; None if the corpus has none."""
        return _column(self.rows, "possible")

    def no_longer_than(self, length: int) -> "EncodedSplit":
        """The pairs with at most `length` tokens on either side."""
        kept = np.flatnonzero((self.source.lengths <= length) & (self.target.lengths <= length))
        if len(kept) == len(self):
            return self
        return EncodedSplit(lambda: self.rows.select(kept), self.source.take(kept), self.target.take(kept))


def encode_corpus(
    corpus: Corpus, options: Mapping[str, Any], tokenizers: TokenizerPair | None = None
) -> tuple[TokenizerPair, dict[str, EncodedSplit]]:
    """The tokenizers of a corpus and its encoded splits, from the cache where it has them.

    What is cached is mapped into memory, and written part by part: however long the corpus, little of it is in memory.

    Args:
        corpus: what to encode; one without an identity is not cached, and its ids are in memory.
        options: how to train the tokenizers on the training split; see `TextTokenizer.train`, and `joint`.
        tokenizers: tokenizers to use instead.
    """
    identity = corpus.identity()
    if identity is None:
        return _encode_now(corpus, options, tokenizers)
    how = dict(options) if tokenizers is None else [side.to_str() for side in (tokenizers.source, tokenizers.target)]
    key = hashlib.sha256(json.dumps([identity, how, version("tokenizers")], sort_keys=True).encode())
    for module in ("prepare", "ragged", "tokenizers", "corpora"):
        key.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    folder = cache_folder() / f"encoded-{key.hexdigest()[:16]}"
    with alone(folder):  # of two processes that want the same, one works and the other waits
        if folder.is_dir():
            with contextlib.suppress(Exception):  # a damaged copy is made anew
                return _read(folder, corpus)
        rows, pair = _load_now(corpus, options, tokenizers)
        with contextlib.suppress(OSError, UserError):  # a cache that cannot be written is done without
            _write(folder, pair, rows, corpus.notes)
            return _read(folder, corpus, rows)
        return pair, {name: encode(split, pair) for name, split in rows.items()}


def encode(rows: "datasets.Dataset", tokenizers: TokenizerPair) -> EncodedSplit:
    """One split, encoded, in memory."""
    parts = list(_encoded(rows, tokenizers))
    source, target = (Ragged.concatenate([part[side] for part in parts]) for side in range(2))
    return EncodedSplit(lambda: rows, source, target)


def _encoded(rows: "datasets.Dataset", tokenizers: TokenizerPair) -> Iterator[tuple[Ragged, Ragged]]:
    """The ids of sources and targets, part by part."""
    columns = [name for name in (*_SIDES, "tags") if name in rows.column_names]
    for chunk in rows.select_columns(columns).iter(_CHUNK):
        yield (
            Ragged.from_lists(tokenizers.encode_sources(chunk["source"], chunk.get("tags"))),
            Ragged.from_lists(tokenizers.target.encode(chunk["target"])),
        )


def prefetch(spec: Mapping[str, Any]) -> None:
    """Fills the cache for the config of a corpus of texts in a process of its own; what goes wrong there is left to the
    one that asks."""
    if not str(spec["_target_"]).startswith("attnlab.data.translation."):
        return
    command = [sys.executable, "-m", "attnlab.data.prepare", json.dumps(dict(spec))]
    with contextlib.suppress(OSError):
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _encode_now(
    corpus: Corpus, options: Mapping[str, Any], tokenizers: TokenizerPair | None
) -> tuple[TokenizerPair, dict[str, EncodedSplit]]:
    rows, pair = _load_now(corpus, options, tokenizers)
    return pair, {name: encode(split, pair) for name, split in rows.items()}


def _load_now(
    corpus: Corpus, options: Mapping[str, Any], tokenizers: TokenizerPair | None
) -> "tuple[dict[str, datasets.Dataset], TokenizerPair]":
    """The rows of a corpus, and the tokenizers for them."""
    rows = corpus.load()
    return rows, _train_tokenizers(rows["train"], **options) if tokenizers is None else tokenizers


def _train_tokenizers(rows: "datasets.Dataset", *, joint: bool, **options: Any) -> TokenizerPair:
    tagged = set(_texts(rows, "tags")) if "tags" in rows.column_names else ()
    symbols = sorted({symbol for tags in tagged for symbol in tag_symbols(tags)})
    if joint:
        both = TextTokenizer.train(_texts(rows, *_SIDES), symbols=symbols, **options)
        return TokenizerPair(both, both)
    return TokenizerPair(
        TextTokenizer.train(_texts(rows, "source"), symbols=symbols, **options),
        TextTokenizer.train(_texts(rows, "target"), **options),
    )


def _texts(rows: "datasets.Dataset", *columns: str) -> Iterator[str]:
    for column in columns:
        for chunk in rows.select_columns([column]).iter(_CHUNK):
            yield from chunk[column]


def _column(rows: "datasets.Dataset", name: str) -> Any:
    """A whole column as a list, or None if there is none."""
    if name not in rows.column_names:
        return None
    return rows.select_columns([name]).with_format("arrow")[:].column(name).to_pylist()


def _write(
    folder: Path, pair: TokenizerPair, splits: "Mapping[str, datasets.Dataset]", notes: Mapping[str, str]
) -> None:
    """Encodes splits into a folder, with what their corpus had to say of them."""
    with replacing(folder) as whole:
        pair.save(whole / "tokenizer.json")
        write_json(whole / "notes.json", notes)
        for name, rows in splits.items():
            writers = [RaggedWriter(whole / f"{name}.{side}") for side in _SIDES]
            with writers[0], writers[1]:
                for parts in _encoded(rows, pair):
                    for writer, part in zip(writers, parts, strict=True):
                        writer.append(part)


def _read(
    folder: Path, corpus: Corpus, rows: "Mapping[str, datasets.Dataset] | None" = None
) -> tuple[TokenizerPair, dict[str, EncodedSplit]]:
    """What `_write` left: the ids stay on disk, and the text is not read until it is asked for, unless `rows` are."""
    splits = {}
    for name in SPLITS:
        source, target = (Ragged.open(folder / f"{name}.{side}") for side in _SIDES)
        load = partial(corpus.load_split if rows is None else rows.__getitem__, name)
        splits[name] = EncodedSplit(load, source, target)
    pair = TokenizerPair.load(folder / "tokenizer.json")
    notes: dict[str, str] = json.loads((folder / "notes.json").read_text())
    if rows is None and "train" in notes:  # of a split whose text is read, the corpus says it again
        logger.warning(notes["train"])
    return pair, splits


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds a lock on a folder of the cache, where the cache can be written."""
    import filelock

    lock = filelock.FileLock(f"{folder}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:
        pass
    try:
        yield
    finally:
        lock.release()


def main() -> None:
    gc.disable()  # of the many small lists none is in a cycle; looking for one takes a fifth of the time
    spec = json.loads(sys.argv[1])
    corpus = from_spec(spec)
    if corpus.identity() is not None:
        encode_corpus(corpus, TOKENIZER_OPTIONS | dict(spec.get("tokenizer") or {}))


if __name__ == "__main__":
    main()
