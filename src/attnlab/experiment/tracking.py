"""Weights & Biases: a view of the run directory, offline unless asked, and always closed."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attnlab.errors import UserError
from attnlab.experiment.record import RunRecord

MODES = ("offline", "online", "disabled")


class Tracker:
    """The W&B run of one run directory; with `wandb.mode: disabled`, nothing.

    It opens when it is told to, in a thread, since it takes seconds to, and is waited for when it is first used or
    left. A resumed run goes on under the id that it had.

    Args:
        record: the run's record.
        config: its config, logged with the run.
        silent: whether another process of the run tracks it.
    """

    def __init__(self, record: RunRecord, config: dict[str, Any], silent: bool = False) -> None:
        self.record = record
        self.config = config
        self.silent = silent or config["wandb"]["mode"] == "disabled"
        self.exit_code = 0
        self._opening: Future[Any] | None = None

    def open(self) -> None:
        """Begins to open the run; without it there is none, and nothing to send."""
        if self.silent:
            return
        import wandb

        record, config, options = self.record, self.config, self.config["wandb"]
        directory = record.directory.resolve()
        choices = record.status["choices"]
        group = options["group"] or choices.get("experiment") or config["task"]["name"]
        with_thread = ThreadPoolExecutor(1, "wandb")
        self._opening = with_thread.submit(
            wandb.init, project=options["project"], group=group, tags=options["tags"],
            name=f"{choices.get('attention')} seed={config['seed']}", dir=str(directory),
            config=config | {"git": record.status["git"]}, mode=options["mode"], id=record.tracking_id, resume="allow",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )  # fmt: skip
        with_thread.shutdown(wait=False)

    @property
    def loggers(self) -> list[Any]:
        """What Lightning logs to."""
        if self._opening is None:
            return []
        from pytorch_lightning.loggers import WandbLogger

        return [WandbLogger(experiment=self._run())]

    def finish(self, metrics: dict[str, Any], pictures: dict[str, Path]) -> None:
        """Logs the final metrics and the attention maps."""
        if self._opening is None:
            return
        import wandb

        run = self._run()
        run.log({f"attention/{name}": wandb.Image(str(path)) for name, path in pictures.items()})
        run.summary.update(metrics)

    def _run(self) -> Any:
        """The run, once it is open; UserError if W&B refuses it."""
        import wandb

        assert self._opening is not None
        try:
            return self._opening.result()
        except wandb.Error as error:
            reason = str(error).strip().rstrip(".")
            raise UserError(
                f"W&B does not open the run: {reason}. Mend that, set wandb.mode=offline, which needs no account, or "
                "wandb.mode=disabled."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opening is not None and self._opening.exception() is None:
            self._opening.result().finish(exit_code=1 if kind else self.exit_code)
