"""Which pieces of documents share a row.

Best-fit decreasing as TRL has it (`pack_dataset`, after arXiv:2404.10830): pieces in order of falling length, each into
the row with the least room that is enough, of several such into the one that has had this room longest.
"""

from collections import deque
from collections.abc import Callable, Mapping

import attrs
import numpy as np
from numpy.typing import NDArray

from lmx_core.data.sources.order import Numbers


@attrs.frozen(eq=False)
class Pieces:
    """Parts of a token array, in the order in which they lie in rows."""

    starts: Numbers
    lengths: Numbers
    goes_on: NDArray[np.bool_]
    """Whether the document has more tokens after the piece."""
    rows: Numbers
    """The row of each, never falling."""


def cut_to_fit(starts: Numbers, lengths: Numbers, room: int) -> Pieces:
    """Best-fit decreasing of documents; what is longer than a row is cut, and the rest is dropped."""
    return _packed(starts, np.minimum(lengths, room), lengths > room, room)


def split_to_fit(starts: Numbers, lengths: Numbers, room: int) -> Pieces:
    """Best-fit decreasing of documents; what is longer than a row becomes several, and no token is lost."""
    parts = -(-lengths // room)
    owners = np.repeat(np.arange(len(lengths)), parts)
    before = room * (np.arange(len(owners)) - np.repeat(np.cumsum(parts) - parts, parts))
    left = lengths[owners] - before
    return _packed(starts[owners] + before, np.minimum(left, room), left > room, room)


def wrap(starts: Numbers, lengths: Numbers, room: int) -> Pieces:
    """One document after another, cut where a row ends."""
    ends = np.cumsum(lengths)
    begins, total = ends - lengths, int(ends[-1])
    cuts = np.union1d(begins, np.arange(0, total, room))
    owners = np.searchsorted(begins, cuts, side="right") - 1
    sizes = np.diff(cuts, append=total)
    return Pieces(starts[owners] + cuts - begins[owners], sizes, cuts + sizes < ends[owners], cuts // room)


STRATEGIES: Mapping[str, Callable[[Numbers, Numbers, int], Pieces]] = {
    "bfd": cut_to_fit,
    "bfd_split": split_to_fit,
    "wrapped": wrap,
}
CUTS = frozenset({"bfd"})
"""Those that drop tokens: of a document all that is beyond the length of a row."""


def _packed(starts: Numbers, lengths: Numbers, goes_on: NDArray[np.bool_], room: int) -> Pieces:
    order = np.argsort(-lengths, kind="stable")
    rows = best_fit(lengths[order], room)
    by_row = np.argsort(rows, kind="stable")
    order = order[by_row]
    return Pieces(starts[order], lengths[order], goes_on[order], rows[by_row])


def best_fit(lengths: Numbers, room: int) -> Numbers:
    """The row of each piece, of lengths that never rise; O(n) beside one search per length and kind of row met.

    Pieces of one length are placed together: a row takes as many of them as fit before the next row is taken, for what is
    left of it is then the least room that is enough.
    """
    sizes, counts = np.unique(lengths, return_counts=True)
    rows = np.empty(len(lengths), np.int64)
    waiting: list[deque[Numbers]] = [deque() for _ in range(room + 1)]
    spaces = 0  # bit r: rows wait that have room r
    done = opened = 0
    for size, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while count:
            enough = spaces >> size
            space = size + (enough & -enough).bit_length() - 1 if enough else room
            each = space // size
            needed = -(-count // each)
            if enough:
                taken, rest = np.split(waiting[space].popleft(), [needed])
                if len(rest):
                    waiting[space].appendleft(rest)
                if not waiting[space]:
                    spaces ^= 1 << space
            else:
                taken = np.arange(opened, opened + needed)
                opened += needed
            placed = min(count, each * len(taken))
            rows[done : done + placed] = np.repeat(taken, each)[:placed]
            last = placed - each * (len(taken) - 1)
            for some, left in ((taken[:-1], space - each * size), (taken[-1:], space - last * size)):
                if left and len(some):
                    waiting[left].append(some)
                    spaces |= 1 << left
            done, count = done + placed, count - placed
    return rows
