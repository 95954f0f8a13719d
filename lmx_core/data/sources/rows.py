"""A source of rows: each has a number, and every epoch reads them in an order of its own."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lmx_core.data.documents import Documents
from lmx_core.data.sources.order import Numbers, shuffled
from lmx_core.errors import DataError
from lmx_core.protocols import Source

Arrays = dict[str, NDArray[Any]]
"""A batch, before it is the backend's."""
CHUNK = 1024
"""Rows, or documents, that are looked at at once."""


@runtime_checkable
class Readable(Source, Protocol):
    """A source that also gives its rows by number, whatever the epoch: what a curriculum needs that ranks them."""

    rows: int

    def read(self, rows: Sequence[int]) -> Arrays:
        """The rows with these numbers, from 0 to `rows - 1`, as a batch."""
        ...


class RowSource:
    """Sample i is row `order(i % len(self))` of epoch `i // len(self)`; the seed and the epoch draw the order.

    A subclass sets `rows`, and reads them.
    """

    rows: int

    def __init__(self, seed: int, shuffle: bool) -> None:
        self.seed, self.shuffle = seed, shuffle

    def __len__(self) -> int:
        return self.rows

    def batch(self, samples: Sequence[int], step: int) -> Arrays:
        return self.read(self.numbers(samples).tolist())

    def read(self, rows: Sequence[int]) -> Arrays:
        raise NotImplementedError(f"{type(self).__name__} has no read(rows)")

    def numbers(self, samples: Sequence[int]) -> Numbers:
        """The row of each sample."""
        epochs, places = np.divmod(np.asarray(samples, np.int64), len(self))
        found = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            found[here] = self.ordered(places[here], epoch)
        return found

    def ordered(self, places: Numbers, epoch: int) -> Numbers:
        """The rows at these places of an epoch."""
        return shuffled(places, self.rows, self.seed, epoch) if self.shuffle else places


def with_targets(documents: Documents, longest: int | None = None) -> Numbers:
    """The documents with a target that counts, among their first `longest` if that is given. `DataError` without any."""
    starts, ends = documents.starts, np.asarray(documents.ends, np.int64)
    found = np.flatnonzero(ends - starts >= 2)
    if not len(found):
        raise DataError(
            f"none of {len(documents)} documents has 2 tokens, which make an input and its target. Give longer ones."
        )
    if documents.learn is None:
        return found
    firsts, lasts = starts[found] + 1, ends[found]
    if longest is not None:
        lasts = np.minimum(lasts, firsts + longest)
    learned = [
        _any_of_each(documents.learn, firsts[i : i + CHUNK], lasts[i : i + CHUNK]) for i in range(0, len(found), CHUNK)
    ]
    found = found[np.concatenate(learned)]
    if not len(found):
        raise nothing_to_learn(f"none of {len(documents)} documents", longest)
    return found


def _any_of_each(learn: NDArray[np.bool_], firsts: Numbers, lasts: Numbers) -> NDArray[np.bool_]:
    """Of each span, whether one of its values is true."""
    begin = firsts[0]
    values = np.append(learn[begin : lasts[-1]], False)  # so that the last end is a place, too
    spans = np.stack([firsts - begin, lasts - begin], axis=1).ravel()
    return np.logical_or.reduceat(values, spans)[::2]


def nothing_to_learn(where: str, longest: int | None = None) -> DataError:
    within = "" if longest is None else f" among its first {longest} (train.seq_len)"
    longer = "" if longest is None else "Raise train.seq_len, or "
    do = "see" if longer else "See"
    return DataError(
        f"{where} has a target that is learned{within}: the masks of the dataset leave nothing to train on. "
        f"{longer}{do} to it that its examples mark a completion, or what the assistant says."
    )
