"""A start that takes less time: Lightning without what it imports for others, and no garbage collected meanwhile."""

import gc
from typing import Any
from unittest.mock import patch


def import_lightning() -> None:
    """Imports pytorch_lightning, to be called before anything else does.

    Lightning imports torchmetrics, which imports scipy.signal (for a metric of audio) and matplotlib's pyplot (for the
    plots of its metrics) wherever these are installed. Nothing here uses either, so torchmetrics is told that they are
    not. Should it find another way to ask, it imports them, as it would have.
    """
    from lightning_utilities.core import imports

    unused = {"matplotlib", "scipy"}
    installed, met = imports.package_available, imports.RequirementCache.__bool__

    def package_available(name: str) -> bool:
        return name not in unused and installed(name)

    def requirement_met(requirement: Any) -> bool:
        return requirement.requirement not in unused and met(requirement)

    with (
        patch.object(imports, "package_available", package_available),
        patch.object(imports.RequirementCache, "__bool__", requirement_met),
    ):
        import pytorch_lightning  # noqa: F401


def collect_garbage() -> None:
    """Has the collector work again where the command line stopped it, and leaves alone what is there by now."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
