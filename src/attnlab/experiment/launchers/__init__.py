"""Points of a sweep side by side, each the command of a plain run in a process of its own.

So one that is killed takes no other with it, and it may start processes itself. `joblib` runs the commands on this
machine, `submitit` in jobs of this machine or of a SLURM cluster. What became of a point is read off its directory;
its output is in the `.log` beside that.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlab.experiment.launchers.jobs import with_submitit_local, with_submitit_slurm
from attnlab.experiment.launchers.point import Ended, Point
from attnlab.experiment.launchers.processes import with_joblib

LAUNCHERS: dict[str, Callable[[Sequence[Point], Mapping[str, Any], Path, Ended], None]] = {
    "Joblib": with_joblib,
    "SubmititLocal": with_submitit_local,
    "SubmititSlurm": with_submitit_slurm,
}
"""By the names of their classes for Hydra. Each takes the points, its options (`hydra.launcher`), the directory of the
sweep, and what is to hear of every point that has ended."""
