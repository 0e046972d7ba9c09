"""Checkpoints written like every other file, whole or not at all, and read like those of a finished run."""

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from attnlab.experiment.build import load_checkpoint
from attnlab.files import write_bytes


class WholeCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint in one step.

    Lightning's own writes to the system's temporary folder and moves the file; onto another disk that is a copy, which
    leaves half a checkpoint and none of the last one where it is cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises UserError where the disk refuses; the checkpoint that was there stays then."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_bytes(path, buffer.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads it to the processor, tensors and primitives alone; UserError if it is truncated or foreign."""
        return load_checkpoint(Path(path))
