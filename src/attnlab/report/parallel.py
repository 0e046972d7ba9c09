"""Independent pieces of work on several processors."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")

WORTH_IT = 4000  # outputs to score, from which on several processes are faster than one


def side_by_side(function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], outputs: int) -> list[Result]:
    """The function of each job's arguments, in their order; in several processes where so many outputs are worth it."""
    workers = min(len(jobs), os.cpu_count() or 1)
    if workers < 2 or outputs < WORTH_IT:
        return [function(*job) for job in jobs]
    with ProcessPoolExecutor(workers) as pool:
        return [future.result() for future in [pool.submit(function, *job) for job in jobs]]
