"""The interface between a run and its kind of task."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from attnlab.errors import UserError
from attnlab.tasks.base import Task
from attnlab.tasks.scoring import Outcome


@dataclass
class Tested:
    """What the test at the end of a run found.

    Attributes:
        outcomes: by test mode, the selecting one first.
        pictures: files by name.
        maps: one dictionary an example, for `attention.jsonl`.
    """

    outcomes: dict[str, Outcome]
    pictures: dict[str, Path] = field(default_factory=dict)
    maps: list[dict[str, Any]] = field(default_factory=list)


_NEEDED = {
    "limit_train_batches": "training",
    "limit_val_batches": "validation that selects the best checkpoint",
}
"""Options of the trainer, and what there is none of where they are 0."""


class Domain(ABC):
    """A kind of task: its Lightning module, and how its data, model and test fit together."""

    task: ClassVar[type[Task]]
    models: ClassVar[Mapping[str, str]]
    """The options of the group `model` that it can train, by their targets."""
    data: ClassVar[str]
    """The module whose factories make its data."""
    example: ClassVar[str]
    """An option of the group `data` that makes some."""

    def check(self, config: dict[str, Any], chosen: str | None = None) -> None:
        """Refuses what does not belong to this kind of task.

        Args:
            config: of a run.
            chosen: the option of the group `data`, where it is known.

        Raises:
            UserError: for a model or data of another kind, or a metric that it does not measure.
        """
        name = self.task.name
        target = config["model"]["_target_"]
        if target not in self.models:
            raise UserError(
                f"task={name} cannot train a {target.rpartition('.')[2]}; choose "
                f"{' or '.join(f'model={option}' for option in self.models.values())}, or another task."
            )
        module, _, factory = config["data"]["_target_"].rpartition(".")
        if not self.takes(config["data"]):
            option = chosen or factory
            others = [domain.task.name for domain in Domain.__subclasses__() if domain.data == module]
            raise UserError(
                f"data={option} is of {' or '.join(f'task={other}' for other in others) or 'no task'}, and this run of "
                f"task={name}: give {' or '.join(f'task={other} data={option}' for other in others)}"
                f"{', or ' if others else ''}data of task={name}, such as data={self.example}."
            )
        monitor, mode = config["task"]["monitor"], config["task"]["mode"]
        if monitor not in self.task.measured:
            raise UserError(f"task.monitor={monitor} is not measured; choose one of {', '.join(self.task.measured)}.")
        best = "min" if monitor == "val/loss" else "max"
        if mode != best:
            raise UserError(f"task.mode={mode} does not select the best {monitor}; set task.mode={best}.")
        if "limit_test_batches" in config["trainer"]:
            raise UserError(
                "trainer.limit_test_batches has no effect: a test split is scored whole; give a smaller one."
            )
        for key, what in _NEEDED.items():
            if not config["trainer"].get(key, True):
                raise UserError(f"trainer.{key}={config['trainer'][key]} leaves out the {what}; give 1 or more.")

    def takes(self, data: dict[str, Any]) -> bool:
        """Whether the data of such a spec are of this kind of task."""
        module, _, _ = str(data["_target_"]).rpartition(".")
        return module == self.data

    @abstractmethod
    def sizes(self, config: dict[str, Any], data: Any) -> dict[str, Any]:
        """What the data decide of a model's options; of no data in particular where `data` is None."""

    @abstractmethod
    def save(self, data: Any, directory: Path) -> None:
        """Keeps with a run what its model needs of the data."""

    @abstractmethod
    def restore(self, data: Any, directory: Path) -> None:
        """Gives the data, before they are prepared, what a run has kept of them."""

    @abstractmethod
    def examples(self, data: Any, split: str) -> Iterator[bytes]:
        """The examples of a split that is prepared, such that the same ones are equal."""

    def known(self, data: Any, split: str, trained: Any = None) -> int:
        """How many examples of a split stand in the training split too, of the same data or of those that `trained` is;
        both are prepared."""
        asked = list(self.examples(data, split))
        found = set(asked).intersection(self.examples(data if trained is None else trained, "train"))
        return sum(example in found for example in asked)

    @abstractmethod
    def describe(self, data: Any) -> str:
        """The data in half a sentence."""

    @abstractmethod
    def outcomes(
        self, task: Any, data: Any, config: dict[str, Any], split: str, modes: tuple[str, ...], seed: int
    ) -> dict[str, Any]:
        """Scores a trained task on one split in some test modes."""

    @abstractmethod
    def test(self, task: Any, data: Any, config: dict[str, Any], directory: Path) -> Tested:
        """Scores a trained task on the test split, in all its modes, and draws its attention into the directory."""

    def spec(self, config: dict[str, Any], data: Any) -> dict[str, Any]:
        """The spec of a config's model."""
        spec: dict[str, Any] = config["model"] | {"attention": config["attention"]} | self.sizes(config, data)
        return spec
