"""Many pictures drawn at once, while the next galleries are made."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import islice
from typing import TypeVar

import torch

from .errors import DeconvnetError
from .processes import slow_bar
from .stopping import wait_for_the_parent

FEW = 16   # that are drawn before processes are begun, which takes as long
AHEAD = 32  # that wait at most, for they are held in memory, unless more are drawn at once

Item = TypeVar("Item")
Drawn = TypeVar("Drawn")


def drawn(draw: Callable[[Item], Drawn], items: Iterable[Item], processes: bool = False) -> Generator[Drawn]:
    """What ``draw`` makes of each item, in order, by as many threads as torch has, or by so many processes.

    Threads do for PNG and WebP, which are encoded while Python goes on; matplotlib, as for PDF, needs processes. What
    goes to these and comes back must survive being pickled, and the first few are drawn here. Whatever ``draw`` raises
    comes from here, too; a process that dies is a DeconvnetError. When this is closed, what has not begun is left.
    """
    items, count = iter(items), torch.get_num_threads()
    if processes:
        yield from map(draw, islice(items, FEW))
    if count == 1:
        yield from map(draw, items)
        return
    pool = ProcessPoolExecutor(count, initializer=wait_for_the_parent) if processes else ThreadPoolExecutor(count)
    try:
        yield from _in_order(draw, items, pool, max(AHEAD, count))
    except BrokenProcessPool as error:
        raise DeconvnetError("A process that drew pictures has died, perhaps for want of memory. The environment "
                             "variable OMP_NUM_THREADS=1 makes one process do everything") from error
    finally:
        pool.shutdown(cancel_futures=True)


def counted(made: Iterable[Drawn], total: int, title: str) -> Generator[Drawn]:
    """What is drawn, of so many units, behind a progress bar if that is slow.

    The bar begins with the first of them: until that is there, another one shows how the images are gone through.
    """
    with ExitStack() as stack:
        bar = None
        for one in made:
            bar = bar or stack.enter_context(slow_bar(total=total, desc=title, unit=" units"))
            bar.update()
            yield one


def _in_order(draw: Callable[[Item], Drawn], items: Iterable[Item], pool: Executor, most: int) -> Generator[Drawn]:
    """The same by a pool, of which at most so many wait."""
    waiting: deque[Future[Drawn]] = deque()
    for item in items:
        waiting.append(pool.submit(draw, item))
        while waiting and (waiting[0].done() or len(waiting) > most):  # what fails is told soon
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
