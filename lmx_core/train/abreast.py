"""Rows of a batch side by side on the cores of a CPU.

On a CPU MLX computes one operation after the other, and all but matrix products on one core. Evaluated on threads of their
own, parts of the rows, each with its products on its own core, keep all of them busy.
"""

import atexit
import ctypes
import itertools
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import cache, partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.randomness import drawing_apart

THREADS = (("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"), ("openblas_get_num_threads", "openblas_set_num_threads"))
"""What tells and sets the threads of a BLAS."""
MOST = 4
"""Parts at most: each is one more graph to compile, and one more set of gradients to hold."""
LARGEST = 2**26
"""Parameters, trained or not, beyond which products take nearly all of the time, and what is every part's own much memory."""
LEAST = 10**9
"""Parameters times numbers in a batch below which threads cost more than they give."""

Batch = Mapping[str, array]


class Worker(Thread):
    """A thread that makes functions and calls them: MLX keeps streams and traces by thread.

    It ends with the process, asleep: MLX lets go of traces at the end of their thread, which Python does not survive when
    it comes late. So at exit it is waited for.
    """

    def __init__(self) -> None:
        super().__init__(name="lmx-rows", daemon=True)
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self.made: dict[int, Callable[[dict[str, array]], Any]] = {}
        """Functions by number, for jobs of this thread alone to look at."""
        self.start()

    def run(self) -> None:
        mx.set_default_device(mx.Device(mx.cpu))  # for which alone there are parts
        while True:
            self._work(*self._jobs.get())

    def _work(self, future: "Future[Any]", job: Callable[[], Any]) -> None:
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)

    def submit(self, job: Callable[[], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        self._jobs.put((future, job))
        return future


class Abreast:
    """A function of a batch, worked out for parts of its rows at the same time; for calls within `sharing_cores`."""

    def __init__(self, make: Callable[[], Callable[[dict[str, array]], Any]], parts: int) -> None:
        """`make` is called in each thread. What it returns must not hold this object, with which it is forgotten."""
        self._number, self._workers = next(_numbers), _workers(parts)
        self._building = Lock()
        for worker in self._workers:
            worker.submit(partial(_make, worker, self._number, make)).result()
        weakref.finalize(self, _forget, self._number, self._workers).atexit = False

    def __call__(self, batch: Batch, seeds: Sequence[int]) -> list[Any]:
        """What it finds of equal parts of the rows, in order and evaluated; each draws from a seed of its own."""
        cut = {name: mx.split(each, len(seeds)) for name, each in batch.items()}
        parts = [{name: pieces[i] for name, pieces in cut.items()} for i in range(len(seeds))]
        mx.eval(parts)  # in the thread in which they were begun
        futures = [
            worker.submit(partial(self._found, worker, *each))
            for worker, *each in zip(self._workers, parts, seeds, strict=True)
        ]
        try:
            wait(futures)
        finally:
            wait(futures)  # after Ctrl-C, too: a thread that is at work when Python ends would take it down
        return [each.result() for each in futures]

    def _found(self, worker: Worker, part: dict[str, array], seed: int) -> Any:
        with self._building, drawing_apart(seed):  # a trace puts tracers into the model
            found = worker.made[self._number](part)
        mx.eval(found)
        return found


_numbers = itertools.count()
_all: list[Worker] = []


def _workers(count: int) -> list[Worker]:
    _all.extend(Worker() for _ in range(count - len(_all)))
    return _all[:count]


@atexit.register
def _settle() -> None:
    for worker in _all:
        worker.submit(lambda: None).result()


def _make(worker: Worker, number: int, make: Callable[[], Callable[[dict[str, array]], Any]]) -> None:
    worker.made[number] = make()


def _forget(number: int, workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.submit(partial(worker.made.pop, number, None))


def parts_of(batch: Batch, parameters: int) -> int:
    """How many equal parts of its rows serve a batch, for a model of so many parameters; 1 is the batch as it is."""
    rows = {each.shape[0] if each.ndim else 0 for each in batch.values()}
    if len(rows) != 1 or 0 in rows or mx.default_device() != mx.Device(mx.cpu) or _threads() is None:
        return 1
    numbers = max(each.size for each in batch.values())
    if parameters > LARGEST or parameters * numbers < LEAST:
        return 1
    (count,) = rows
    return max(n for n in range(1, min(_cores(), MOST) + 1) if count % n == 0)


@contextmanager
def sharing_cores(parts: int) -> Generator[None, None, None]:
    """Within it a matrix product takes its share of the cores, before and after parts are computed, too: threads of a BLAS
    go on looking for work for a while."""
    threads = _threads()
    if parts == 1 or threads is None:
        yield
        return
    _, set_to = threads
    set_to(max(_cores() // parts, 1))
    try:
        yield
    finally:
        set_to(_cores())


@cache
def _cores() -> int:
    """Those that a matrix product took when this was first asked, which its own variables and settings decide."""
    threads = _threads()
    return threads[0]() if threads else 1


@cache
def _threads() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """What tells and what sets the threads of the BLAS that is loaded."""
    process = ctypes.CDLL(None)
    return next(
        ((getattr(process, tell), getattr(process, set_to)) for tell, set_to in THREADS if hasattr(process, set_to)),
        None,
    )
