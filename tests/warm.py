"""Commands of train.py and of scripts/ in processes that have their imports behind them.

Importing torch and Lightning takes longer than most tests of a command line. Here one process has done it and forks for
each command: the child has the command's own arguments, directory, environment, input and output, runs the script from
its first line, and ends as any process does. Where there is no fork that torch survives, or the environment may change
what an import does, the command gets a process from nothing.
"""

import contextlib
import gc
import json
import os
import runpy
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

# variables that no import looks at, or that are as they were
_READ_LATE = {"NO_COLOR", "COLUMNS", "OMP_NUM_THREADS", "PATH"}

_TIMEOUT = 300  # seconds that a command may take


def run(
    command: Sequence[object], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Runs [script, argument, ...] with this Python and captures what it writes.

    Args:
        command: the path of a script and its arguments.
        cwd: where it runs.
        env: its environment.
        given: its input.
    """
    words, variables = [str(word) for word in command], dict(os.environ if env is None else env)
    changed = {name for name in variables.keys() | os.environ.keys() if variables.get(name) != os.environ.get(name)}
    if sys.platform != "linux" or changed - _READ_LATE:
        return subprocess.run(
            [sys.executable, *words], cwd=cwd, env=variables, input=given, capture_output=True, check=False,
            timeout=_TIMEOUT,
        )  # fmt: skip
    with contextlib.ExitStack() as stack:
        files: list[IO[bytes]] = [stack.enter_context(tempfile.NamedTemporaryFile()) for _ in range(3)]
        files[0].write(given)
        files[0].flush()
        code = _Forked(words, cwd, variables, [file.name for file in files]).wait(_TIMEOUT)
        return subprocess.CompletedProcess([sys.executable, *words], code, files[1].read(), files[2].read())


def start(
    command: Sequence[object], *, cwd: Path | None = None, said: str | Path = os.devnull
) -> "_Forked | subprocess.Popen[bytes]":
    """Starts [script, argument, ...] with this Python and leaves it to itself; what it writes goes to the file `said`.

    Wait for it before the next command.
    """
    words = [str(word) for word in command]
    with open(said, "wb") as out:
        if sys.platform != "linux":
            nowhere = subprocess.DEVNULL
            return subprocess.Popen([sys.executable, *words], cwd=cwd, stdin=nowhere, stdout=out, stderr=out)
    return _Forked(words, cwd, os.environ, [os.devnull, str(said), str(said)])


class _Forked:
    """A command in a child of the process that has its imports behind it, with as much of Popen as tests need."""

    def __init__(self, words: Sequence[str], cwd: Path | None, env: Mapping[str, str], files: Sequence[str]) -> None:
        self._words, self._parent = list(words), _parent()
        self._code: int | None = None
        request = {"words": self._words, "cwd": str(cwd or Path.cwd()), "env": dict(env), "files": list(files)}
        assert self._parent.stdin is not None
        self._parent.stdin.write(json.dumps(request).encode() + b"\n")
        self.pid = self._answer(_TIMEOUT)

    def poll(self) -> int | None:
        """The exit code; None while it lives."""
        if self._code is None and self._has_answer(0):
            self._code = self._answer(0)
        return self._code

    def wait(self, timeout: float) -> int:
        if self._code is None:
            self._code = self._answer(timeout)
        return self._code

    def _has_answer(self, timeout: float) -> bool:
        return bool(select.select([self._parent.stdout], [], [], timeout)[0])

    def _answer(self, timeout: float) -> int:
        if not self._has_answer(timeout):
            self._parent.kill()
            _parent.cache_clear()  # what this one answers late is no answer to the next command
            raise subprocess.TimeoutExpired(self._words, timeout)
        assert self._parent.stdout is not None
        return int(self._parent.stdout.readline())


def run_text(
    command: Sequence[object], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The same, with text for bytes."""
    ended = run(command, cwd=cwd, env=env)
    return subprocess.CompletedProcess(ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode())


@cache
def _parent() -> "subprocess.Popen[bytes]":
    """The process that forks; it ends when this one closes its input. Unbuffered, so that an answer which was not read
    is one that `select` sees."""
    return subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)


def _serve() -> None:
    """Forks for each request, and answers with the child's number and, when it has ended, with its exit code; returns
    in a child, as the script that it is to run."""
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    from attnlab.experiment.lean import import_lightning

    import_lightning()
    import datasets  # noqa: F401
    import hydra.main  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import sacrebleu  # noqa: F401
    import tokenizers  # noqa: F401
    import wandb  # noqa: F401

    import attnlab.experiment.training  # noqa: F401

    # children share what is imported until they write to it, as the collector would when it counts, at the latest when
    # they end
    gc.collect()
    gc.freeze()
    for line in requests:
        request = json.loads(line)
        child = os.fork()
        if child:
            print(child, file=answers, flush=True)
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
            continue
        requests.close()
        answers.close()
        _become(**request)
        return


def _become(words: Sequence[str], cwd: str, env: Mapping[str, str], files: Sequence[str]) -> None:
    """Gives this process the arguments, directory, environment and files of a command."""
    for number, name in enumerate(files):
        descriptor = os.open(name, os.O_RDWR | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
        for number, mode in enumerate(("r", "w", "w"))
    )
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv[:] = words
    sys.path[0] = str(Path(words[0]).resolve().parent)


if __name__ == "__main__":
    _serve()
    if sys.argv[0] != __file__:
        runpy.run_path(sys.argv[0], run_name="__main__")
