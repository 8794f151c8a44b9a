"""Work on many videos in processes, with a bar; a decoder that takes its process down costs one video."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from typing import TypeVar

from tqdm import tqdm

from ..video.children import end_children, end_with_parent

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
    with process_pool(workers) as pool:
        tasks = {pool.submit(function, item): position for position, item in enumerate(items)}
        for task in as_completed(tasks):
            try:
                result = task.result()
            except BrokenProcessPool:   # says nothing about which item it was: those not done are tried one by one
                suspects.append(tasks[task])
            else:
                yield tasks[task], result
    while suspects:   # each pool lives until a process dies
        with process_pool(1) as pool:
            while suspects:
                position = suspects.pop(0)
                try:
                    yield position, pool.submit(function, items[position]).result()
                except BrokenProcessPool:
                    yield position, WorkerDied("its process died (a crash, or no memory left)")
                    break


@contextlib.contextmanager
def process_pool(workers: int, start: str | None = "spawn") -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes end with the block: after an exception or Ctrl-C at once, and not after all that waits.

    start: how processes are made, None: the platform's way. Decoders that were forked hang now and then.
    """
    others = active_children()
    pool = ProcessPoolExecutor(workers, mp_context=get_context(start), initializer=_end_with_parent)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        end_children(spared=others)
        raise
    pool.shutdown()


def _end_with_parent() -> None:
    """A worker that outlives a killed program would write into what the next one makes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)   # Ctrl-C is the program's, which ends its workers
    end_with_parent()

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
