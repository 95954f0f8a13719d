"""Rows of a batch side by side on the cores of a CPU.

On a CPU MLX computes one operation after the other, and all but matrix products on one core. Streams are threads of their
own: parts of the rows, each with its products on its own core, keep all of them busy.
"""

import ctypes
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cache, reduce
from typing import Any

import mlx.core as mx
from mlx.core import array

SETTERS = ("MKL_Set_Num_Threads", "openblas_set_num_threads")
MOST = 4
"""Parts at most: each is one more graph to compile, and one more set of gradients to hold."""


def parts_of(batch: Mapping[str, array]) -> int:
    """How many parts serve a batch; 1 where its arrays have no rows in common."""
    rows = {each.shape[0] if each.ndim else 0 for each in batch.values()}
    return parts_for(*rows) if len(rows) == 1 and 0 not in rows else 1


def parts_for(rows: int) -> int:
    """How many parts of equal size serve a batch of so many rows; 1 is the batch as it is."""
    if mx.default_device() != mx.Device(mx.cpu) or _setter() is None:
        return 1
    return max(n for n in range(1, min(_cores(), rows, MOST) + 1) if rows % n == 0)


def abreast(
    function: Callable[[dict[str, array]], Any],
    batch: Mapping[str, array],
    parts: int,
    added: Callable[[Any, Any], Any],
) -> Any:
    """`function` of each part of a batch in a stream of its own, and all of it `added` up.

    Evaluate it in `one_core_each`, or products of every part want all cores.
    """
    cut = {name: mx.split(each, parts) for name, each in batch.items()}
    found: list[Any] = []
    for i in range(parts):
        with mx.stream(_stream(i)):
            found.append(function({name: pieces[i] for name, pieces in cut.items()}))
    return reduce(added, found)


@contextmanager
def one_core_each(parts: int) -> Generator[None, None, None]:
    """Within it a matrix product takes its share of the cores."""
    setter = _setter()
    if setter is None or parts == 1:
        yield
        return
    setter(max(_cores() // parts, 1))
    try:
        yield
    finally:
        setter(_cores())


@cache
def _stream(i: int) -> Any:
    return mx.new_stream(mx.Device(mx.cpu))


@cache
def _cores() -> int:
    """Those that this process may use, or fewer where its products are told to use fewer."""
    wish = os.environ.get("MKL_NUM_THREADS") or os.environ.get("OPENBLAS_NUM_THREADS") or ""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(found, int(wish)) if wish.isdigit() and int(wish) > 0 else found


@cache
def _setter() -> Callable[[int], Any] | None:
    """What sets the threads of the BLAS that is loaded."""
    process = ctypes.CDLL(None)
    return next((getattr(process, name) for name in SETTERS if hasattr(process, name)), None)
