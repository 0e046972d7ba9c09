"""Where a point may train with several processes."""

from collections.abc import Mapping
from typing import Any

from attnlab.errors import UserError

_STRATEGIES = ("ddp", "fsdp", "deepspeed")
"""How the names of Lightning's strategies begin that start processes."""


def refuse_several_processes(trainer: Mapping[str, Any], launcher: str | None) -> None:
    """Refuses training by several processes where a launcher cannot start them.

    They are those of a command, which starts them and ends with them. The launchers make each point a command; without
    one, the points are a single command's.

    Args:
        trainer: the config of Lightning's trainer.
        launcher: of the sweep; None for points in its own process.

    Raises:
        UserError: that names what can be used instead.
    """
    nodes, devices = trainer.get("num_nodes", 1), trainer.get("devices", 1)
    strategy = str(trainer.get("strategy", "auto"))
    if devices is None:
        raise UserError(
            "trainer=slurm takes its numbers from SLURM, and this sweep is no step of a job: use hydra/launcher="
            "submitit_slurm with trainer=ddp trainer.devices=N hydra.launcher.tasks_per_node=N."
        )
    if launcher not in (None, "SubmititSlurm") and nodes > 1:
        raise UserError(
            f"trainer.num_nodes={nodes} needs a cluster, and this launcher has one machine: use "
            f"hydra/launcher=submitit_slurm hydra.launcher.nodes={nodes}, or start each point alone with torchrun."
        )
    many = _several(devices, trainer)
    if launcher is not None or not (nodes > 1 or many or strategy.startswith(_STRATEGIES)):
        return
    key = f"num_nodes={nodes}" if nodes > 1 else f"devices={devices}" if many else f"strategy={strategy}"
    raise UserError(
        f"trainer.{key} trains with several processes, and this sweep runs its points in its own: add "
        "hydra/launcher=joblib, hydra/launcher=submitit_local or hydra/launcher=submitit_slurm, which give each point "
        "a command of its own to start them, or start each point alone, with torchrun."
    )


def _several(devices: Any, trainer: Mapping[str, Any]) -> bool:
    """Whether Lightning's `devices` are more than one, or may be: -1 and auto are as many as there are."""
    if isinstance(devices, list | tuple):
        return len(devices) > 1
    if str(devices) in ("auto", "-1"):
        return trainer.get("accelerator", "auto") != "cpu"
    if isinstance(devices, str):  # "2" is two of them, "0,1" and "1," name them
        return len([part for part in devices.split(",") if part]) > 1 or (devices.isdigit() and int(devices) > 1)
    return int(devices) > 1
