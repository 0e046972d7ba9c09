"""The launchers of conf/hydra/launcher. Hydra takes launchers from the package `hydra_plugins` alone, so they are here.

Hydra's own launcher composes the points of a sweep one after another and calls the application with each; so do these,
and they take options. The application keeps the points, and starts them side by side once it has them all
(`attnlab.experiment.launch`).
"""

from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher


class Joblib(BasicLauncher):
    """Processes of this machine."""

    def __init__(self, **options: Any) -> None:
        super().__init__()


class SubmititLocal(Joblib):
    """Jobs of submitit's local executor."""


class SubmititSlurm(Joblib):
    """Jobs of a SLURM cluster."""
