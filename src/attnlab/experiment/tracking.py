"""Weights & Biases: a view of the run directory, offline unless asked, and always closed."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attnlab.experiment.record import RunRecord


class Tracker:
    """The W&B run of one run directory; with `wandb.mode: disabled`, nothing.

    Args:
        record: the run's record.
        config: its config, logged with the run.
    """

    def __init__(self, record: RunRecord, config: dict[str, Any]) -> None:
        self.options = config["wandb"]
        self.exit_code = 0
        self.loggers: Any = False
        if self.options["mode"] == "disabled":
            return
        import wandb
        from pytorch_lightning.loggers import WandbLogger

        directory = record.directory.resolve()
        self._run = wandb.init(
            project=self.options["project"], group=self.options["group"], tags=self.options["tags"],
            name=f"{record.directory.parent.name}-{record.directory.name}", dir=str(directory), config=config,
            mode=self.options["mode"], settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )  # fmt: skip
        self.loggers = [WandbLogger(experiment=self._run)]

    def finish(self, metrics: dict[str, Any], pictures: dict[str, Path]) -> None:
        """Logs the final metrics and the attention maps."""
        if not self.loggers:
            return
        import wandb

        self._run.log({f"attention/{name}": wandb.Image(str(path)) for name, path in pictures.items()})
        self._run.summary.update(metrics)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.loggers:
            self._run.finish(exit_code=1 if kind else self.exit_code)
