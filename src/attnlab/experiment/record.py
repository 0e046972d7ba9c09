"""The run directory: what a run was, how it ended, what it measured."""

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import time
import traceback
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import yaml

from attnlab.errors import UserError
from attnlab.files import write_json, write_text

_VERSIONS = (
    "attnlab",
    "torch",
    "pytorch-lightning",
    "hydra-core",
    "datasets",
    "tokenizers",
    "sacrebleu",
    "wandb",
)
_WITHOUT_EFFECT = ("run_dir", "wandb", "maps")
"""Keys of the config that do not change what is computed, and so do not make it another run."""


class RunRecord:
    """The files of one run directory, each written whole or not at all.

    Args:
        directory: the run directory; made if it is missing.
        config: the resolved config, primitives only.

    Raises:
        UserError: if the directory holds a run of another config, or cannot be written.
    """

    def __init__(self, directory: Path, config: dict[str, Any]) -> None:
        self.directory = directory
        self.config = config
        relevant = {key: value for key, value in config.items() if key not in _WITHOUT_EFFECT}
        self.hash = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]
        self.status: dict[str, Any] = {}
        self._lock: IO[str] | None = None
        before = self._read_status()
        if before and before.get("config_hash") != self.hash and (difference := _difference(self, config)):
            raise UserError(
                f"The run directory {directory} holds a run of another config ({difference}). "
                "Nothing was changed there; give another run_dir, or remove that directory."
            )
        self.before = before.get("state")
        self._corpus = before.get("corpus")
        self.tracking_id: str = before.get("tracking_id") or uuid.uuid4().hex[:8]

    def _read_status(self) -> dict[str, Any]:
        path = self.directory / "status.json"
        if not path.exists():
            if self.directory.is_dir() and any((self.directory / "checkpoints").glob("*.ckpt")):
                raise UserError(f"The run directory {self.directory} has checkpoints but no status.json; give another.")
            return {}
        try:
            status = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}); give another run_dir.") from error
        return status if isinstance(status, dict) else {}

    @property
    def finished(self) -> bool:
        """Whether this run ended well before."""
        return self.before == "finished"

    @property
    def state(self) -> str | None:
        """The state of the run by now, which another of its processes may have marked; None if it has not begun."""
        return self._read_status().get("state")

    @property
    def last_checkpoint(self) -> Path | None:
        """The checkpoint to resume from, if there is one."""
        path = self.directory / "checkpoints" / "last.ckpt"
        return path if path.exists() else None

    def claim(self) -> None:
        """Takes the directory for this process, as long as it lives.

        Raises:
            UserError: if a run is under way there.
        """
        lock = self.directory / ".hydra" / "lock"
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            self._lock = lock.open("a")
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, not a child's too
        except BlockingIOError as error:
            pid = self._read_status().get("pid")  # which it may not have said yet
            where = f"{self.directory} (process {pid})" if pid else str(self.directory)
            raise UserError(f"A run is under way in {where}; wait for it, or give another run_dir.") from error
        except OSError:  # a file system without locks, or one that cannot be written, which is told by who writes there
            return

    def begin(self, overrides: list[str], choices: dict[str, Any]) -> None:
        """Writes the config, the command's overrides and the option chosen of each group, and marks the run as
        running."""
        hydra = {"hydra": {"runtime": {"choices": choices}}}  # where Hydra itself would write them
        write_text(self.directory / ".hydra" / "hydra.yaml", yaml.safe_dump(hydra))
        write_text(self.directory / ".hydra" / "config.yaml", yaml.safe_dump(self.config, sort_keys=False))
        write_text(self.directory / ".hydra" / "overrides.yaml", yaml.safe_dump(overrides))
        self.status = {
            "state": "running",
            "config_hash": self.hash,
            "started": _now(),
            "pid": os.getpid(),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in _VERSIONS},
            "git": _git_revision(),
            "choices": choices,
            "tracking_id": self.tracking_id,
            "corpus": self._corpus,
        }
        write_json(self.directory / "status.json", self.status)

    def keep_identity(self, corpus: str | None) -> None:
        """Notes the identity of the corpus, where it can be known, in a run that has begun.

        Raises:
            UserError: if there is a checkpoint to go on from, of a run with another corpus.
        """
        if self.last_checkpoint and self._corpus and corpus and corpus != self._corpus:
            raise UserError(
                f"The data have changed since the run in {self.directory} began, and it would go on with others; give "
                "another run_dir, or put the data back."
            )
        self.status["corpus"] = corpus
        write_json(self.directory / "status.json", self.status)

    def end(self, state: str, error: BaseException | None = None) -> None:
        """Marks how the run ended: finished, failed or interrupted, with the reason."""
        self.status = (self.status or self._read_status()) | {"state": state, "ended": _now()}
        if error is not None:
            self.status["error"] = str(error)
            if not isinstance(error, UserError):
                self.status["traceback"] = "".join(traceback.format_exception(error))
        write_json(self.directory / "status.json", self.status)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        write_json(self.directory / "metrics.json", metrics)

    def read_metrics(self) -> dict[str, Any]:
        path = self.directory / "metrics.json"
        try:
            metrics: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise UserError(
                f"The run in {self.directory} has finished, but {path} cannot be read ({error}); give another run_dir, "
                "or remove that directory."
            ) from error
        return metrics


def read_config(directory: Path) -> dict[str, Any]:
    """The resolved config of a run; UserError if the directory holds none."""
    path = directory / ".hydra" / "config.yaml"
    if not path.is_file():
        raise UserError(f"{directory} is not a run directory: it has no .hydra/config.yaml.")
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


def _difference(record: RunRecord, config: dict[str, Any]) -> str:
    """The first few keys in which two configs differ, in words; empty if none does. An option that an earlier version
    did not have is the same as null."""
    try:
        before, now = _flat(read_config(record.directory)), _flat(config)
    except UserError:
        return "its config.yaml is missing"
    keys = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
    keys = [key for key in keys if key.split(".")[0] not in _WITHOUT_EFFECT]
    named = ", ".join(f"{key}: {before.get(key)} there, {now.get(key)} here" for key in keys[:3])
    return named + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(config, dict):
        return {prefix.rstrip("."): config}
    return {k: v for key, value in config.items() for k, v in _flat(value, f"{prefix}{key}.").items()}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _git_revision() -> str | None:
    """The revision of the checkout that this package runs from, `+` for uncommitted changes; None elsewhere, also
    where it is installed within a repository of something else."""
    here = Path(__file__).resolve().parent
    try:
        subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name], cwd=here, capture_output=True, timeout=10,
            check=True,
        )  # fmt: skip
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
