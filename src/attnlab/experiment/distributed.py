"""Several processes for one run: which of them this one is, how they are started, and how they end.

torchrun and SLURM start the processes themselves. Else the process of the command starts them, each of which runs what
the command resolved to, and waits; it imports no torch.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from attnlab.errors import INTERRUPTED, UserError
from attnlab.experiment.record import RunRecord

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from pytorch_lightning.plugins.environments import ClusterEnvironment

PATIENCE = 30.0
"""Seconds that a process has to end in order before it is killed."""
_RANK = "ATTNLAB_RANK"  # in the environment of a process that another process of ours has started
_STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")


@dataclass(frozen=True)
class Ranks:
    """The processes of a run.

    Attributes:
        world: their number.
        rank: which of them this one is, from 0; None where they have yet to be started.
    """

    world: int = 1
    rank: int | None = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the files of the run and speaks of it."""
        return not self.rank


def find_ranks(trainer: dict[str, Any]) -> Ranks:
    """The processes that a trainer's options ask for, and which of them this one is.

    Raises:
        UserError: if torchrun or SLURM has started another number of them, or the options ask for what there is not.
    """
    nodes, devices = trainer.get("num_nodes", 1), _devices(trainer)
    nodes = nodes if isinstance(nodes, int) else 1  # which Lightning will refuse
    wanted = nodes * devices
    if wanted > 1 and trainer.get("strategy", "auto") not in _STRATEGIES:
        raise UserError(f"trainer.strategy={trainer['strategy']} is not supported; choose ddp.")
    if _RANK in os.environ:
        return Ranks(wanted, int(os.environ[_RANK]))
    launcher, world, rank = _started(wanted)
    if world not in (None, wanted):
        raise UserError(
            f"{launcher} has started {world} processes, and trainer.devices={devices} on trainer.num_nodes={nodes} are "
            f"{wanted}; give trainer=ddp and both numbers to torchrun, or trainer=slurm to srun."
        )
    if world is None and nodes > 1:
        raise UserError(
            f"trainer.num_nodes={nodes} needs torchrun or srun, which start processes on each node: "
            f"torchrun --nnodes={nodes} --nproc-per-node={devices} ... train.py ..., or trainer=slurm."
        )
    return Ranks(wanted, None if world is None and wanted > 1 else rank)


def _devices(trainer: dict[str, Any]) -> int:
    """The number of processes on a node; 1 for what Lightning will refuse."""
    devices = trainer["devices"]
    if devices is None:
        raise UserError(
            "trainer=slurm is for the tasks of a SLURM step, and SLURM_NTASKS_PER_NODE is not set: start it with "
            "srun --ntasks-per-node=N, or choose trainer=ddp."
        )
    if isinstance(devices, list):
        return max(1, len(devices))
    if str(devices) in ("auto", "-1"):
        import torch

        return 1 if trainer.get("accelerator") == "cpu" else max(1, torch.cuda.device_count())
    return max(1, int(devices)) if str(devices).isdigit() else len(str(devices).split(","))


def _started(wanted: int) -> tuple[str, int | None, int]:
    """Who has started this process as one of several, their number, and its rank; None where nobody has."""
    given = os.environ
    if "TORCHELASTIC_RUN_ID" in given:
        return "torchrun", int(given["WORLD_SIZE"]), int(given["RANK"])
    # Of tasks that train each for itself SLURM is not asked; nor in a batch script, or a shell, outside any step.
    step = "SLURM_STEP_ID" in given and given.get("SLURM_JOB_NAME") not in ("bash", "interactive")
    if wanted > 1 and step and int(given.get("SLURM_NTASKS", 1)) > 1:
        return "srun", int(given["SLURM_NTASKS"]), int(given["SLURM_PROCID"])
    return "", None, 0


def environment(ranks: Ranks) -> "ClusterEnvironment":
    """Lightning's view of who has started the processes.

    It is told, since it would take any process within a SLURM job for a task of it. A job that SLURM requeues goes on
    from the last epoch, as any run does, and not from where Lightning would stop it.
    """
    from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

    launcher = "" if _RANK in os.environ else _started(ranks.world)[0]
    if launcher == "srun":
        return SLURMEnvironment(auto_requeue=False)
    return TorchElasticEnvironment() if launcher else LightningEnvironment()


def start(run: Callable[..., int], arguments: tuple[Any, ...], world: int, record: RunRecord) -> int:
    """Runs processes on this machine until all have ended. If one fails, the others are ended.

    Args:
        run: what each of them runs, which finds its rank by `find_ranks` and returns an exit code.
        arguments: its arguments.
        world: the number of processes.
        record: the run's record, for the end of which a process may have had no time.

    Returns:
        the exit code.

    Raises:
        UserError: if a process was killed.
    """
    context = multiprocessing.get_context("spawn")
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "NODE_RANK": "0"}
    processes = [
        context.Process(target=_work, args=(run, arguments, place | {_RANK: str(rank), "LOCAL_RANK": str(rank)}))
        for rank in range(world)
    ]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for process in processes:
            process.start()
        lost = _watch(processes)
        killed = None if lost is None else _killed(lost, processes[lost].exitcode or 0)
        if killed is not None and record.state == "running":  # before the others are told to end
            record.end("failed", killed)
    except KeyboardInterrupt as stop:
        _end(processes)
        if record.state == "running":
            record.end("interrupted", stop)
        return INTERRUPTED
    finally:
        _end(processes)
        signal.signal(signal.SIGTERM, before)
    if killed is not None:
        raise killed
    if lost is None:
        return 0
    return INTERRUPTED if record.state == "interrupted" else 1


def _watch(processes: "list[SpawnProcess]") -> int | None:
    """Waits until all have ended, or one has failed: which."""
    while True:
        alive = [process.sentinel for process in processes if process.is_alive()]
        failed = next((rank for rank, process in enumerate(processes) if process.exitcode), None)
        if failed is not None or not alive:
            return failed
        wait(alive)


def _killed(rank: int, code: int) -> UserError | None:
    """What to say of a process that a signal has ended."""
    if code >= 0:
        return None
    return UserError(
        f"Process {rank} of the run was ended by {signal.Signals(-code).name}, perhaps for want of memory. The same "
        "command, with the same run_dir, goes on from the last checkpoint."
    )


def _end(processes: "list[SpawnProcess]") -> None:
    """Has the processes that still run end, in order if they can."""
    alive = [process for process in processes if process.is_alive()]
    for process in alive:
        process.terminate()
    for process in alive:
        process.join(PATIENCE)
        process.kill()
        process.join()


def _work(run: Callable[..., int], arguments: tuple[Any, ...], place: dict[str, str]) -> None:
    """What a process does that `start` has started."""
    os.environ.update(place)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all, and the one that waits passes it on
    interruptible()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        code = run(*arguments)
    except UserError as error:
        print(f"attnlab: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def interruptible() -> None:
    """Has SIGTERM raise a KeyboardInterrupt in this process, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def uninterruptible() -> None:
    """Has this process, which is about to end, be told so no more: its last words would be cut off."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
