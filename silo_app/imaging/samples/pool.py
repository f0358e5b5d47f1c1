"""Spreads independent tasks over processes; results come as they are ready, in no order."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from silo_app.errors import ProcessFailed

T = TypeVar("T")
R = TypeVar("R")


def spread(work: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[R]:
    """Yield `work(task)` for all tasks, from `workers` processes (from this one if that is 1).

    A fork server is used, not fork: the caller may have threads (a progress bar has). Raises `ProcessFailed` if one
    of the processes is killed.
    """
    if workers <= 1 or len(tasks) <= 1:
        yield from map(work, tasks)
        return
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(work, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise ProcessFailed(
                "a process that makes samples was ended, perhaps for want of memory",
                remedy="Try again with fewer processes (--workers 1).",
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
