"""Lightning without scipy.signal and pyplot, and both as good as ever afterwards; the collector too."""

import gc
import subprocess
import sys

from attnlab.experiment.lean import collect_garbage

_SCRIPT = """
import sys
from attnlab.experiment.lean import import_lightning
import_lightning()
import attnlab.experiment.training
print(sorted({"scipy.signal", "matplotlib.pyplot"} & sys.modules.keys()))
import lightning_utilities.core.imports as imports
print(imports.package_available("scipy"), bool(imports.RequirementCache("matplotlib")))
import matplotlib.pyplot, scipy.signal
print(len(scipy.signal.windows.hann(5)))
"""


def test_what_nothing_uses_is_not_imported_and_can_be_afterwards():
    ran = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["[]", "True True", "5"]


def test_garbage_is_collected_again_once_the_start_is_over():
    frozen = gc.get_freeze_count()
    collect_garbage()
    assert gc.get_freeze_count() == frozen  # it was never stopped
    gc.disable()
    try:
        collect_garbage()
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.enable()
