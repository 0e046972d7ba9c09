"""Where a run speaks."""

import subprocess
import sys
from pathlib import Path

_SPEAKS = """
import pathlib, sys
from attnlab.terminal import Terminal
terminal = Terminal()
for _ in range(5000):
    terminal.print("a line that somebody may read or not")
pathlib.Path(sys.argv[1]).touch()
"""


def test_a_run_goes_on_when_nobody_reads_it(tmp_path: Path) -> None:
    done = tmp_path / "done"
    speaking = subprocess.Popen([sys.executable, "-c", _SPEAKS, done], stdout=subprocess.PIPE)
    assert speaking.stdout is not None
    speaking.stdout.readline()
    speaking.stdout.close()
    assert speaking.wait(60) == 0
    assert done.exists()
