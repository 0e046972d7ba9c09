"""Files written whole or not at all.

A reader, or a run that resumes, sees the old file or the new one, never half of one: the data goes to a
temporary file in the same directory, is flushed to the disk, and is then renamed over the target, which POSIX
does in one step.
"""

import contextlib
import dataclasses
import errno
import json
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from attnlab.errors import UserError

# What the disk itself can refuse while data is written. Any other OSError in the body of `atomic` (a dead
# connection, another file that is missing) is not about our file, and must not be reported as if it were.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT}

# json leaves these three as they are, yet str.splitlines ends a line at them, which would tear a row in two.
_LINE_BREAKS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open `path` for writing so that it changes only if the body finishes.

    mode: "w" for text (UTF-8, line ends as given) or "wb" for bytes. Missing parent directories are made. A
    symbolic link is followed, so its target is replaced and the link stays.

    If the body raises anything, KeyboardInterrupt included, the temporary file is removed, the old file is
    left as it was, and the exception goes on. A full, read-only or forbidden disk becomes a UserError. Only a
    process that is killed outright can leave a temporary file (`.tmp-*`) behind.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"atomic writes with mode 'w' or 'wb', not {mode!r}.")
    target = Path(os.path.realpath(path))
    # Not tempfile: its files are readable by their owner alone, and a result file should follow the umask.
    temporary = target.parent / f".tmp-{secrets.token_hex(8)}"
    try:
        with _reporting(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
            # Closed below, in either case.
            file = open(temporary, mode.replace("w", "x"), **text)  # noqa: SIM115
        try:
            with _reporting(path, only=_DISK_ERRORS):
                yield file
            with _reporting(path):
                file.flush()
                os.fsync(file.fileno())
        finally:
            with _reporting(path):
                file.close()
        with _reporting(path):
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _reporting(path: str | os.PathLike[str], only: set[int] | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if only is not None and (error.errno not in only or error.filename is not None):
            raise
        advice = "Free some space there, or choose" if error.errno in _FULL else "Choose"
        raise UserError(
            f"Cannot write {os.fspath(path)}: {_reason(path, error)}. {advice} a place that can be written."
        ) from error


def _reason(path: str | os.PathLike[str], error: OSError) -> str:
    """What the system says, and where a file stands in the place of a folder, which it is."""
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        for place in (Path(path), *Path(path).parents):
            if place.is_file():
                return f"{place} is a file, not a folder"
    return error.strerror or str(error)


def check_file(path: str | os.PathLike[str]) -> None:
    """Refuse a file that cannot be written, before the work whose outcome it is to hold; UserError. Leaves nothing."""
    with _reporting(path):
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _try(Path(os.path.realpath(path)).parent)


def check_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a folder in which no file can be written; it need not be there yet. UserError. Leaves nothing."""
    with _reporting(path):
        _try(Path(os.path.realpath(path)))


def _try(folder: Path) -> None:
    """Writes a file without a name into a folder, or where the folder would be made."""
    while not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8, whole or not at all; UserError where the disk refuses."""
    with atomic(path, "w") as file:
        file.write(text)


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write `data`, whole or not at all; UserError where the disk refuses."""
    with atomic(path, "wb") as file:
        file.write(data)


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` if the body finishes."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        whole = Path(work) / "whole"
        whole.mkdir()
        yield whole
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(whole, folder)


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write `obj` as JSON (UTF-8, indent 2, keys in the order given), whole or not at all.

    Always valid JSON: NaN and the infinities, which JSON lacks, are written as null. numpy and torch scalars
    and arrays become numbers and nested lists, dataclasses objects, tuples lists, paths strings; anything
    else is a TypeError.
    """
    write_bytes(path, _encode(obj, indent=2) + b"\n")


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[Any]) -> None:
    """Write one JSON value a line, as `write_json` does, whole or not at all; `rows` may be a generator."""
    with atomic(path, "wb") as file:
        for row in rows:
            file.write(_encode(row) + b"\n")


def _encode(obj: Any, indent: int | None = None) -> bytes:
    text = json.dumps(_plain(obj), ensure_ascii=False, allow_nan=False, indent=indent)
    # A lone surrogate has no UTF-8; the escape that backslashreplace writes for it (\udcff) is JSON's own.
    return text.translate(_LINE_BREAKS).encode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    """`value` in the types that JSON has."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):  # numpy.float64 is one
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    # Asked by method, so that writing a file needs neither numpy nor torch. It is tested last, and its answer
    # must have left the array behind: a scalar without a JSON type (complex, datetime) may answer with
    # itself.
    if hasattr(value, "tolist") and type(listed := value.tolist()) is not type(value):
        return _plain(listed)
    raise TypeError(f"JSON has no form for {type(value).__name__}: {value!r}.")


def _key(key: Any) -> Any:
    if isinstance(key, float) and not math.isfinite(key):
        raise TypeError(f"A JSON object cannot have the key {key!r}.")
    key = _plain(key)
    if isinstance(key, list | dict):
        raise TypeError(f"A JSON object's key is a string or a number, not {key!r}.")
    return key
