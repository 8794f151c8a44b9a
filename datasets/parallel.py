"""Work on many videos in processes, with a bar; a decoder that takes its process down costs one video."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDied(ValueError):
    """The process that worked on an item ended without an answer."""


def for_each(function: Callable[[Item], Result], items: Sequence[Item], workers: int,
             title: str, unit: str = "video") -> Iterator[tuple[int, Result | WorkerDied]]:
    """Yield (position, function(item)) as they come; WorkerDied in place of the result where a process died.

    `function` must be picklable and must not raise. With 0 workers everything runs in this process.
    """
    with tqdm(total=len(items), desc=title, unit=unit, mininterval=.5, disable=None) as bar:   # None: a terminal's only
        for position, result in _results(function, items, workers):
            bar.update()
            yield position, result


def _results(function, items, workers):
    if workers == 0:
        yield from ((position, function(item)) for position, item in enumerate(items))
        return
    suspects = []
    with _pool(workers) as pool:
        tasks = {pool.submit(function, item): position for position, item in enumerate(items)}
        for task in as_completed(tasks):
            try:
                result = task.result()
            except BrokenProcessPool:   # says nothing about which item it was: those not done are tried one by one
                suspects.append(tasks[task])
            else:
                yield tasks[task], result
    pool = None
    for position in suspects:
        pool = pool or _pool(1)
        try:
            result = pool.submit(function, items[position]).result()
        except BrokenProcessPool:
            pool, result = None, WorkerDied("its process died (a crash, or no memory left)")
        yield position, result
    if pool:
        pool.shutdown()


def _pool(workers: int) -> ProcessPoolExecutor:
    context = get_context("spawn")   # forked decoders hang now and then
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """A worker that outlives a killed program would write into what the next one makes."""
    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
