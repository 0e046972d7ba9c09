"""Where sentence pairs come from: a generated phrasebook, a local folder, or the Hugging Face Hub.

A corpus gives the splits train, validation and test, each a `datasets.Dataset` with the string columns
`source` and `target`; some add `tags` (morphological features of the row, separated by ";"), or `sure` and
`possible` (gold alignments: lists of [source word, target word], a link in one of the two).
"""

import contextlib
import hashlib
import inspect
import json
import logging
import os
import re
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np

from attnlab.errors import UserError
from attnlab.files import replacing

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
_CHUNK = 10_000  # rows looked at together: bounds the memory that copies of their text take

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")  # name, or owner/name
_HTTP_LIBRARIES = ("httpx", "httpcore", "requests", "urllib3")


class Corpus(ABC):
    """Sentence pairs in three splits.

    Attributes:
        notes: what there is to say of a split that has been loaded, in a sentence.
    """

    notes: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def load(self) -> "dict[str, datasets.Dataset]":
        """The splits train, validation and test; UserError for what the user can mend."""

    def load_split(self, split: str) -> "datasets.Dataset":
        """One of them, where a corpus can do without the others."""
        return self.load()[split]

    def identity(self) -> str | None:
        """A digest of all that the splits are made from, known without loading them; None if it cannot be known."""
        return None


def from_spec(spec: Mapping[str, Any]) -> Corpus:
    """The corpus that a data config describes."""
    kind = {"phrasebook": Phrasebook, "hub": HubCorpus}[str(spec["_target_"]).rpartition(".")[2]]
    return kind(**{name: spec[name] for name in inspect.signature(kind).parameters if name in spec})


def cache_folder() -> Path:
    """Where attnlab keeps what can be made anew."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attnlab"


class Phrasebook(Corpus):
    """Pairs written by the package itself, with gold alignments: no download, the same for the same seed."""

    def __init__(
        self,
        language: str = "de",
        train: int = 20_000,
        validation: int = 500,
        test: int = 1_000,
        generation_seed: int = 0,
    ) -> None:
        self.options = {
            "language": language,
            "train": train,
            "validation": validation,
            "test": test,
            "seed": generation_seed,
        }

    def load(self) -> "dict[str, datasets.Dataset]":
        """The generated splits; kept in the user's cache, since generating takes some seconds."""
        import datasets

        kept = self._kept
        if kept.is_dir():
            with contextlib.suppress(Exception):  # a damaged copy is made anew
                return dict(datasets.load_from_disk(str(kept)))
        from attnlab.data import phrasebook

        splits = phrasebook.generate(**self.options)
        with (
            contextlib.suppress(OSError),
            no_progress_bars(),
        ):  # a cache that cannot be written is done without
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing(kept) as whole:
                splits.save_to_disk(str(whole))
        return dict(splits)

    @property
    def _kept(self) -> Path:
        return cache_folder() / f"phrasebook-{self.identity()}"

    def identity(self) -> str:
        """The options, the code and the libraries whose data the sentences are made from."""
        digest = hashlib.sha256(json.dumps(self.options, sort_keys=True).encode())
        for package in ("babel", "num2words"):
            digest.update(version(package).encode())
        for file in sorted(Path(__file__).parent.glob("phrasebook/*.py")):
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    def load_split(self, split: str) -> "datasets.Dataset":
        if self._kept.is_dir():
            return self.load()[split]
        from attnlab.data import phrasebook

        # the other two do not depend on how many training pairs are drawn after them
        fewer = {} if split == "train" else {"train": 1}
        return phrasebook.generate(**self.options | fewer)[split]


class HubCorpus(Corpus):
    """Pairs from a data set in Hugging Face layout: a local folder, or an id on the Hub.

    `path`        a folder (files named after their splits, or what `save_to_disk` wrote) or a Hub id
    `source`, `target`, `tags`    columns; `translation.de` names a field of a nested column
    `splits`      our split's name -> theirs; slices such as `train[:95%]` and `train[95%:]` make two of one
    `limit`       keep only the first so many training pairs (for learning curves)
    `name`        the Hub data set's configuration, where it has several

    Pairs with a blank side can be neither learned nor scored: they are left out of every split, and counted
    in the log. Code that a data set brings along is never run.
    """

    def __init__(
        self,
        path: str,
        source: str,
        target: str,
        tags: str | None = None,
        splits: Mapping[str, str] | None = None,
        limit: int | None = None,
        name: str | None = None,
    ) -> None:
        self.notes: dict[str, str] = {}
        self.path = str(path)
        self.columns = {"source": source, "target": target} | ({"tags": tags} if tags else {})
        if len(set(self.columns.values())) < len(self.columns):
            raise UserError(f"data.source, target and tags must be columns of their own, not {self.columns}.")
        self.splits = {split: split for split in SPLITS} | dict(splits or {})
        self.limit = limit
        self.name = name
        if unknown := sorted(set(self.splits) - set(SPLITS)):
            raise UserError(f"data.splits names {', '.join(unknown)}: the splits are {', '.join(SPLITS)}.")
        if limit is not None and limit < 1:
            raise UserError(f"data.limit={limit} must be 1 or more (or null for every training pair).")

    def load(self) -> "dict[str, datasets.Dataset]":
        return self._load(self.splits)

    def load_split(self, split: str) -> "datasets.Dataset":
        return self._load({split: self.splits[split]})[split]

    def identity(self) -> str | None:
        """The bytes of a local folder's files and what is read of them; what the Hub holds may change."""
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            return None
        content = _digest(folder)
        if content is None:
            return None
        how = json.dumps([self.columns, self.splits, self.limit, self.name])
        return hashlib.sha256(f"{how} {content}".encode()).hexdigest()[:16]

    def _load(self, wanted: Mapping[str, str]) -> "dict[str, datasets.Dataset]":
        with self.reading():
            splits = {split: self._tidy(split, rows) for split, rows in self._open(wanted).items()}
            if self.limit is not None and "train" in splits:
                train = splits["train"]
                splits["train"] = train.select(range(min(self.limit, len(train))))
        return splits

    def _open(self, wanted: Mapping[str, str]) -> "dict[str, datasets.Dataset]":
        """The wanted ones of our splits (our name -> theirs), with all of their columns."""
        read = self.reader()
        available = read()
        chosen = {}
        for ours, theirs in wanted.items():
            if theirs in available:
                chosen[ours] = available[theirs]
            elif "[" in str(theirs):
                chosen[ours] = read(split=theirs)
            else:
                first = next(iter(available))
                raise UserError(
                    f"{self.path} has no split {theirs!r} (for {ours}); it has {listed(available)}. Name "
                    f"another with data.splits.{ours}=..., or cut one in two, as with "
                    f"'data.splits.train=\"{first}[:95%]\"' 'data.splits.validation=\"{first}[95%:]\"'."
                )
        return chosen

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """While the library reads this corpus: without progress bars, and without asking a Hub that is out of reach."""
        if not Path(self.path).expanduser().exists():
            _spare_retries()
        with no_progress_bars():
            yield

    def reader(self) -> Callable[..., Any]:
        """A function that reads all splits, or one with `split=...`, and whose failures are UserErrors."""
        import datasets

        folder = Path(self.path).expanduser()
        if folder.is_dir():
            if (folder / "dataset_dict.json").exists():
                return _explained(_read_saved, f"The saved data set {folder} could not be read", folder)
            failing = f"The folder {folder} could not be read as a data set"
            # the library tells files by their time alone, which a changed one may have kept
            kept = Path(datasets.config.HF_DATASETS_CACHE) / f"attnlab-{_digest(folder)}"
            return _explained(partial(datasets.load_dataset, cache_dir=str(kept)), failing, str(folder), self.name)
        if folder.exists():
            raise UserError(f"data.path={self.path} is a file: give the folder that holds it.")
        if not _HUB_ID.fullmatch(self.path):
            raise UserError(f"There is no folder data.path={self.path}: give a folder, or a Hub id (owner/name).")
        failing = f"data.path={self.path} is no local folder, and could not be read from the Hub"
        return _explained(datasets.load_dataset, failing, self.path, self.name)

    def _tidy(self, split: str, rows: "datasets.Dataset") -> "datasets.Dataset":
        """The wanted columns under our names, checked, without blank pairs."""
        import pyarrow.compute as pc

        where = f"the split {self.splits[split]!r} of {self.path}"
        if not set(self.columns.values()) <= set(rows.column_names):
            rows = rows.flatten()  # the fields of nested columns become columns: translation.de
        for ours, theirs in self.columns.items():
            if theirs not in rows.column_names:
                raise UserError(
                    f"There is no column {theirs!r} in {where}; it has {listed(rows.column_names)}. Name one "
                    f"with data.{ours}=..."
                )
        if not len(rows):
            raise UserError(f"In {where} there is not one row, and {split} needs some. Name another split.")
        for column in self.columns.values():
            _check_strings(rows, column, where)
        rows = rows.select_columns(list(self.columns.values()))
        sides = [self.columns[side] for side in ("source", "target")]
        blank = np.concatenate(
            [
                pc.or_(*(pc.equal(pc.utf8_trim_whitespace(part.column(side)), "") for side in sides)).to_numpy()
                for part in rows.with_format("arrow").iter(_CHUNK)
            ]
        )
        if blank.all():
            raise UserError(f"In {where} every row has a blank side ({listed(self.columns.values())}).")
        if blank.any():
            self.notes[split] = f"{blank.sum()} of {len(rows)} rows in {where} have a blank side: left out"
            logger.warning(self.notes[split])
            rows = rows.select(np.flatnonzero(~blank))
        return rows.rename_columns({theirs: ours for ours, theirs in self.columns.items()})


def _digest(folder: Path) -> str | None:
    """Of the names and bytes of a folder's files; None if they cannot be read, which reading them will tell."""
    digest = hashlib.sha256()
    try:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size} ".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError:
        return None
    return digest.hexdigest()[:16]


def _check_strings(rows: "datasets.Dataset", column: str, where: str) -> None:
    """UserError that names the first cell of the column that is not a string."""
    import datasets

    feature = rows.features[column]
    strings = isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
    if strings and not rows.data.column(column).null_count:
        return
    for number, value in enumerate(rows[column], start=1):
        if not isinstance(value, str):
            raise UserError(
                f"Row {number} of {where}: the column {column!r} holds {value!r}, which is not a string. "
                "Mend or remove the row, or name another column."
            )
    raise UserError(f"The column {column!r} in {where} is of type {feature}: name a column of strings.")


def _spare_retries() -> None:
    """Where the Hub's name cannot even be looked up, has the library read its cache at once, where it would ask six
    times in half a minute. It looks at the variable when it is imported, which is not before this."""
    host = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname
    if "huggingface_hub" in sys.modules or getproxies():  # a proxy looks names up itself
        return
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _read_saved(folder: Path, split: str | None = None) -> Any:
    """What `DatasetDict.save_to_disk` wrote; it knows no slices."""
    import datasets

    if split is not None:
        raise ValueError(f"a saved data set has no slices such as {split}: save the parts as splits")
    return datasets.load_from_disk(str(folder))


def _explained(read: Callable[..., Any], failing: str, *arguments: Any) -> Callable[..., Any]:
    """`read(*arguments, ...)`, whose every failure becomes a UserError.

    Reading runs the library's parsers over the user's files or the network: what it raises is about those.
    """

    def attempt(**options: Any) -> Any:
        try:
            return read(*arguments, **options)
        except Exception as error:
            if options:
                raise UserError(f"{failing}: {_line(error)}. Check data.splits.") from error
            raise UserError(f"{failing}: {_reason(error, arguments[0])}") from error

    return attempt


def _reason(error: Exception, path: str | Path) -> str:
    """Why reading failed, and what to do."""
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError, DatasetNotFoundError
    from huggingface_hub import constants, errors

    if isinstance(error, DatasetNotFoundError):
        return "the Hub has no such data set, or it needs a login (`hf auth login`). Check data.path."
    if isinstance(error, EmptyDatasetError | DataFilesNotFoundError):
        return (
            "it holds no data files. It needs train.jsonl, validation.jsonl, test.jsonl (.csv, .parquet), with a "
            "column for each side."
        )
    if broken := _broken_line(Path(path)):
        return f"{broken}. Mend or remove it."
    unreachable = (ConnectionError, TimeoutError, errors.LocalEntryNotFoundError, errors.HfHubHTTPError)
    if isinstance(error, unreachable) or type(error).__module__.split(".")[0] in _HTTP_LIBRARIES:
        if constants.HF_HUB_OFFLINE:
            why, hint = ", and the cache of this machine does not have it", ""
        else:
            why, hint = "", " If the cache of this machine has it, HF_HUB_OFFLINE=1 reads it from there."
        download = "Download it on a machine that can, and give its folder: data.path=/folder."
        return f"the Hub could not be reached ({_line(error)}){why}. {download}{hint}"
    if "corresponds to no data" in str(error):
        return f"one of its splits has not one row ({_line(error)}). Fill or remove its file."
    if isinstance(error, DatasetGenerationError) and error.__cause__ is not None:
        error = error.__cause__  # the parser's own sentence
    return f"{_line(error)}. Mend the files, or give another data.path."


def _broken_line(folder: Path) -> str | None:
    """The first line of a folder's files that is no text, or no JSON: the library names neither file nor line."""
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".csv", ".jsonl", ".tsv", ".txt")):
        in_json = path.suffix == ".jsonl"
        if in_json and not path.stat().st_size:
            return f"{path.name} is empty"
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    text = line.decode()
                    if in_json and text.strip():
                        json.loads(text)
                except ValueError as error:
                    what = "UTF-8" if isinstance(error, UnicodeDecodeError) else "JSON"
                    return f"{path.name}, line {number} is not {what} ({error})"
    return None


def _line(error: BaseException) -> str:
    """The error's first line, without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".!")


def listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    import datasets

    silent = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not silent:
            datasets.enable_progress_bars()
