"""Texts to tokens in several processes, in order. What the processes import is light, and of it MLX is no part."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from lmx_core.data.documents import Example
from lmx_core.data.reading import tokens_of
from lmx_core.data.tokenizers import load_tokenizer
from lmx_core.errors import DataError
from lmx_core.protocols import Tokenizer

Texts = Sequence[str]
Encode = Callable[[Iterable[Texts]], Iterator[tuple[Texts, list[Example]]]]
"""Groups of texts to these and their tokens, in order."""


@contextmanager
def encoder(tokenizer: Tokenizer, saved: Path, workers: int) -> Generator[Encode, None, None]:
    """Encodes here, or where there are several workers in so many processes, which read the tokenizer from a file."""
    if workers == 1:
        yield lambda groups: ((texts, encoded(tokenizer, texts)) for texts in groups)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (saved,))
    try:
        yield lambda groups: _in_order(pool, groups, 2 * workers)
    except BrokenProcessPool:
        raise DataError(
            "a worker process ended by itself, perhaps for want of memory. What is finished is kept: the same command goes "
            "on; fewer --workers need less."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def encoded(tokenizer: Tokenizer, texts: Texts) -> list[Example]:
    return [Example(tokens_of(tokenizer, text)) for text in texts]


def _in_order(
    pool: ProcessPoolExecutor, groups: Iterable[Texts], at_once: int
) -> Iterator[tuple[Texts, list[Example]]]:
    """No more groups are asked for than the workers will soon need."""
    waiting: deque[tuple[Texts, Future[list[Any]]]] = deque()
    for texts in groups:
        waiting.append((texts, pool.submit(_encode, texts)))
        if len(waiting) >= at_once:
            yield _first(waiting)
    while waiting:
        yield _first(waiting)


def _first(waiting: "deque[tuple[Texts, Future[list[Any]]]]") -> tuple[Texts, list[Example]]:
    texts, future = waiting.popleft()
    tokens, lengths = future.result()
    return texts, [Example(each) for each in np.split(tokens, np.cumsum(lengths)[:-1])]


@attrs.define
class _Worker:
    """What a process keeps between its tasks."""

    saved: Path = Path()
    tokenizer: Any = None


_worker = _Worker()


def _begin(saved: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the first process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker.saved = saved


def _end_with_parent() -> None:
    """A process whose parent is killed waits for tasks for ever, unless it looks."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode(texts: Texts) -> list[Any]:
    if _worker.tokenizer is None:  # here an error reaches the first process, and in `_begin` it would not
        _worker.tokenizer = load_tokenizer(_worker.saved)
    found = [example.tokens for example in encoded(_worker.tokenizer, texts)]
    return [np.concatenate(found), np.array([len(each) for each in found])]
