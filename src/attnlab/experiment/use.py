"""A trained run in use: its model, tokenizers and config read back from the run directory, and translation with them.

What is slow to import is imported in functions, so that a mistaken path is told at once.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from attnlab.data.tokenizers import EOS, TokenizerPair
from attnlab.errors import UserError
from attnlab.experiment.record import read_config

if TYPE_CHECKING:
    from attnlab.decoding import Hypothesis

_CHECKPOINTS = ("best", "last")


@dataclass(frozen=True)
class TrainedRun:
    """What a run directory holds.

    Attributes:
        directory: the run directory.
        config: the resolved config of the run.
        task: the trained model, in evaluation mode.
    """

    directory: Path
    config: dict[str, Any]
    task: Any

    @property
    def modes(self) -> tuple[str, ...]:
        """The test modes of the model, the one that selected its checkpoint first."""
        modes: tuple[str, ...] = self.task.model.modes
        return modes

    def check_mode(self, mode: str) -> str:
        """The mode itself; UserError if this model cannot be read in it."""
        if mode not in self.modes:
            raise UserError(f"This model has no test mode {mode!r}; its modes are {', '.join(self.modes)}.")
        return mode


@dataclass(frozen=True)
class TrainedTranslator(TrainedRun):
    """A run of translation.

    Attributes:
        tokenizers: of its two sides.
    """

    tokenizers: TokenizerPair

    @property
    def tagged(self) -> bool:
        """Whether a source is a text and a list of tags."""
        return bool(self.config["data"].get("tags"))


def load_run(directory: Path, checkpoint: str = "best", task: str | None = None) -> TrainedRun:
    """Reads a run directory.

    Args:
        directory: the run directory.
        checkpoint: best, last, or the path of a checkpoint.
        task: the kind of task that is asked for, such as vision; None for any.

    Raises:
        UserError: if it is no run directory, is one of another task, or has no checkpoint or one that does not fit it.
    """
    config = load_config(directory)
    name = (config.get("task") or {}).get("name")
    if task is not None and name != task:
        raise UserError(f"The run {directory} is one of task={name}, and this is for task={task}.")
    path = directory / "checkpoints" / f"{checkpoint}.ckpt" if checkpoint in _CHECKPOINTS else Path(checkpoint)
    if not path.is_file():
        raise UserError(_without_checkpoint(directory, checkpoint, path))

    from attnlab.experiment.build import load_task

    return TrainedRun(directory, config, load_task(path))


def load_translator(directory: Path, checkpoint: str = "best") -> TrainedTranslator:
    """Reads the directory of a run of translation; a checkpoint must be of the same vocabularies."""
    run = load_run(directory, checkpoint, "translation")
    tokenizers = TokenizerPair.load(directory / "tokenizer.json")
    for side in ("source", "target"):
        size, model = len(getattr(tokenizers, side)), run.task.hparams["model"].get(f"{side}_vocabulary")
        if model != size:
            raise UserError(
                f"The checkpoint {checkpoint} is of another run: its {side} vocabulary has {model} types, and that of "
                f"{directory} {size}."
            )
    return TrainedTranslator(directory, run.config, run.task, tokenizers)


def trained_on(run: TrainedRun, data: Any, split: str) -> int:
    """How many examples of a split that is prepared are among those that a run was trained on.

    They may be where the data are the run's corpus, cut into other splits; of other corpora it is 0.
    """
    from attnlab.experiment.build import build
    from attnlab.experiment.domains import DOMAINS

    domain, before = DOMAINS[run.task.name], build(run.config["data"])
    kinds = [(type(corpus), _place(getattr(corpus, "path", None))) for corpus in (before.corpus, data.corpus)]
    if split == "train" or kinds[0] != kinds[1]:
        return 0
    domain.restore(before, run.directory)
    before.prepare_split("train")
    return domain.known(data, split, trained=before)


def _place(path: str | None) -> str | None:
    """Where a corpus lies, however it was spelled; an id on the Hub stays as it is."""
    return str(Path(path).expanduser().resolve()) if path and Path(path).expanduser().exists() else path


def load_config(directory: Path) -> dict[str, Any]:
    """The resolved config of a run; UserError if the directory is not that of a run."""
    if not directory.is_dir():
        raise UserError(f"There is no run directory {directory}.")
    try:
        config = read_config(directory)
    except (OSError, ValueError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{directory}/.hydra/config.yaml cannot be read ({first}); the run cannot be used.") from error
    if not isinstance(config, dict) or not isinstance(config.get("data"), dict):
        raise UserError(f"{directory}/.hydra/config.yaml describes no run of attnlab: it has no data.")
    return config


def _without_checkpoint(directory: Path, checkpoint: str, path: Path) -> str:
    """Why there is none, and what to do."""
    if checkpoint not in _CHECKPOINTS:
        return f"There is no checkpoint {path}; give best, last or the path of one."
    try:
        state = json.loads((directory / "status.json").read_text())["state"]
    except (OSError, ValueError, KeyError, TypeError):
        state = "unknown"
    others = [name for name in _CHECKPOINTS if (directory / "checkpoints" / f"{name}.ckpt").is_file()]
    advice = f"Give --checkpoint {others[0]}." if others else "Let it train until its first checkpoint is written."
    return f"The run {directory} has no checkpoint {path.name} (its state is {state}). {advice}"


def translate(
    run: TrainedTranslator,
    sources: Sequence[Sequence[int]],
    *,
    beam: int = 5,
    alpha: float = 1.0,
    mode: str | None = None,
    batch_tokens: int = 2048,
) -> Iterator[tuple[int, "Hypothesis"]]:
    """Searches for the translation of each source, in batches of like lengths.

    Args:
        run: the trained run.
        sources: ids without EOS, none of them empty.
        beam: beam width; 1 is greedy.
        alpha: length penalty.
        mode: test mode; the model's own by default.
        batch_tokens: cells of a batch, padding included; a longer source is a batch of its own.

    Yields:
        row numbers, shortest sources first, each with its hypothesis, whose weights [T + 1, S + 1] are cut to the
        source's length (with EOS) and lie on the CPU.
    """
    import torch

    from attnlab.attention import reading
    from attnlab.data.batching import TokenBatchSampler
    from attnlab.data.ragged import Ragged
    from attnlab.kernels.products import Packing

    rows = Ragged.from_lists(sources)
    lengths, packing = rows.lengths + 1, Packing()
    with reading(run.task.model, run.check_mode(mode or run.modes[0])):
        for batch in TokenBatchSampler(lengths, lengths, max_tokens=batch_tokens):
            padded = torch.from_numpy(rows.padded(np.asarray(batch), after=EOS)).to(run.task.device)
            with packing:
                hypotheses = run.task.search(padded, beam, alpha)
            for row, found in zip(batch, hypotheses, strict=True):
                yield row, found._replace(weights=found.weights[:, : int(lengths[row])].float().cpu())
