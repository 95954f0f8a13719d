"""Keys and values that a layer remembers between calls, for one sequence or for a batch of them that differ in length."""

import copy
from collections.abc import Sequence
from typing import Any

import attrs
import mlx.core as mx
from mlx.core import array

from lmx_core.components.masks import ALL, Scope
from lmx_core.components.rows import Trimmable, padding_of
from lmx_core.shapes import Float

STEP = 256
"""Tokens by which a long buffer grows, so that appending one token copies nothing most of the time."""
SHORT = (16, 64)
"""Tokens by which a buffer grows that holds at most four times as many: many rows with short answers would be mostly room."""

Parts = tuple[array, ...]
"""Arrays (B, K, T, ...) that stand for keys or for values together: one, or three of a quantised tensor."""


@attrs.define
class _Buffer:
    """Keys and values of the columns from `start` on, with room for more. A mark holds it: who goes on after a mark leaves
    what it has seen.
    """

    parts: Parts = ()
    start: int = 0
    whole: int = 0
    """From this column on every row has all its tokens; those before it are gone in some row."""
    room: int = 0
    kept: Parts = ()
    """The first columns, once the buffer no longer starts with them."""

    def cut(self, start: int, end: int) -> Parts:
        return tuple(part[:, :, start - self.start : end - self.start] for part in self.parts)


def _with_room(columns: int) -> int:
    step = next((short for short in SHORT if columns <= 4 * short), STEP)
    return -(-columns // step) * step


class KVCache(Trimmable):
    """All keys and values that its layer can still look at: `2 * n_kv_heads * head_dim` numbers a token.

    Tokens lie in their order. Where a scope ends a token's use, the buffer moves on now and then: a window of w tokens,
    read in pieces of at most n, takes up to `w + n + 2 STEP` of them. It quacks like mlx-lm's cache of the same name, so
    that each library's tools drive the other's models.
    """

    def __init__(self, scope: Scope = ALL) -> None:
        super().__init__()
        self.scope = scope
        self.fetched = (0, 0)
        """Of the keys returned last: how many first columns, and from which column on all of them."""
        self._buffer = _Buffer()

    def update_and_fetch(
        self, keys: Float[array, "B K L E"], values: Float[array, "B K L E2"]
    ) -> tuple[Float[array, "B K S E"], Float[array, "B K S E2"]]:
        """Append L tokens; those of all so far that one of them can look at."""
        before, self.columns = self.columns, self.columns + keys.shape[2]
        first = self._first(before)
        new = (*self.encode(keys), *self.encode(values))
        if not self._buffer.parts or self.columns - self._buffer.start > self._buffer.room:
            self._buffer = self._moved(new, before, first)
        buffer = self._buffer
        for part, piece in zip(buffer.parts, new, strict=True):
            part[:, :, before - buffer.start : self.columns - buffer.start] = piece
        found = self._fetched(first)
        half = len(found) // 2
        return self.decode(found[:half], keys.shape[-1]), self.decode(found[half:], values.shape[-1])

    def encode(self, x: Float[array, "B K L E"]) -> Parts:
        """How a tensor is held."""
        return (x,)

    def decode(self, parts: Parts, width: int) -> Float[array, "B K S E"]:
        return parts[0]

    def _first(self, columns: int) -> int:
        """The first column that a token after so many can look at, in any row; kept ones aside."""
        first = min(self.scope.first(max(columns - pad, 0)) + pad for pad in self.padding or (0,))
        first = min(first, columns)  # a row may be padding so far
        return 0 if first <= self._keep() else first

    def _keep(self) -> int:
        """The columns in which the kept tokens of all rows lie."""
        return self.scope.keep and self.scope.keep + max(self.padding or (0,))

    def _fetched(self, first: int) -> Parts:
        buffer, keep = self._buffer, self._keep() if first else 0
        self.fetched = keep, first
        recent = buffer.cut(first, self.columns)
        if not keep:
            return recent
        oldest = buffer.cut(0, keep) if buffer.start == 0 else [part[:, :, :keep] for part in buffer.kept]
        return tuple(mx.concatenate([*pair], axis=2) for pair in zip(oldest, recent, strict=True))

    def _moved(self, like: Parts, before: int, first: int) -> _Buffer:
        """A buffer with room for all tokens so far, without those that no one will look at."""
        old = self._buffer
        bounded = self.scope.window is not None or self.scope.chunk is not None
        room = _with_room(self.columns - first) + (STEP if bounded and first else 0)
        parts = tuple(mx.zeros((*part.shape[:2], room, *part.shape[3:]), part.dtype) for part in like)
        if old.parts:
            for part, piece in zip(parts, old.cut(first, before), strict=True):
                part[:, :, : before - first] = piece
        kept: Parts = ()
        if first and (keep := self._keep()):
            kept = old.kept if old.start else tuple(mx.array(part) for part in old.cut(0, keep))
        return _Buffer(parts, first, max(first, old.whole), room, kept)

    def is_trimmable(self) -> bool:
        """Whether all tokens can be taken back: not once some are gone for good."""
        return self._buffer.whole == 0

    def _reaches(self, columns: int) -> bool:
        return self._buffer.whole == 0 or self._first(columns) >= self._buffer.whole

    def checkpoint(self) -> Any:
        """A mark to `restore`, good until one goes back before it. Costs nothing until then."""
        return self._buffer, self.columns, self.padding

    def restore(self, mark: Any) -> None:
        self._buffer, self.columns, self.padding = mark

    @property
    def state(self) -> Sequence[array]:
        """Keys, values, kept keys and values; and numbers: where the buffer starts, where it is whole, columns, padding."""
        buffer = self._buffer
        numbers = mx.array([buffer.start, buffer.whole, self.columns, *(self.padding or ())])
        return [*(buffer.cut(buffer.start, self.columns) if buffer.parts else ()), *buffer.kept, numbers]

    @state.setter
    def state(self, arrays: Sequence[array]) -> None:
        *tensors, last = arrays
        numbers: Any = last.tolist()
        start, whole, self.columns, *padding = numbers
        self.padding = padding_of(padding)
        # Copies: buffers are written in place, and another cache may be given the same arrays.
        parts = tuple(mx.array(each) for each in tensors)
        here = len(parts) // 2 if start and self.scope.keep else len(parts)
        self._buffer = _Buffer(parts[:here], start, whole, parts[0].shape[2] if parts else 0, parts[here:])

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, their unused room included."""
        return sum(part.nbytes for part in (*self._buffer.parts, *self._buffer.kept))

    def copy(self) -> "KVCache":
        other = copy.copy(self)
        old = self._buffer
        other._buffer = attrs.evolve(old, parts=tuple(mx.array(part) for part in old.parts))
        return other

    def _size(self) -> int:
        return self._buffer.parts[0].shape[0] if self._buffer.parts else 1

    def _choose(self, rows: Sequence[int]) -> None:
        index, old = mx.array(list(rows)), self._buffer
        parts, kept = (tuple(part[index] for part in several) for several in (old.parts, old.kept))
        self._buffer = attrs.evolve(old, parts=parts, kept=kept)

    def _shift(self, n: int) -> None:
        super()._shift(n)
        old = self._buffer
        gone = max(n - old.start, 0)  # columns of padding that are in the buffer itself
        parts = tuple(part[:, :, gone:] for part in old.parts)
        kept = tuple(part[:, :, n:] for part in old.kept)
        start, whole = max(old.start - n, 0), max(old.whole - n, 0)
        self._buffer = _Buffer(parts, start, whole, old.room - gone, kept)

    def _join(self, other: "KVCache", columns: int) -> None:
        both = [cache for cache in (self, other) if cache._buffer.parts]
        if not both:
            return
        start = min(columns - cache.columns + cache._held_from() for cache in both)
        filled = [cache._filled(start, columns) for cache in both]
        parts = tuple(mx.concatenate([*pair], axis=0) for pair in zip(*filled, strict=True))
        whole = max(cache._buffer.whole and cache._buffer.whole + columns - cache.columns for cache in both)
        self._buffer = _Buffer(parts, start, whole, columns - start)

    def _held_from(self) -> int:
        return 0 if self._buffer.kept else self._buffer.start

    def _filled(self, start: int, columns: int) -> Parts:
        """Its tokens at the end of so many columns, from `start` on; zeros where there are none."""
        buffer, shift = self._buffer, columns - self.columns
        filled: list[array] = []
        for i, part in enumerate(buffer.parts):
            whole = mx.zeros((*part.shape[:2], columns - start, *part.shape[3:]), part.dtype)
            held = part[:, :, : self.columns - buffer.start]
            whole[:, :, columns - start - held.shape[2] :] = held
            if buffer.kept:
                whole[:, :, shift - start : shift - start + buffer.kept[i].shape[2]] = buffer.kept[i]
            filled.append(whole)
        return tuple(filled)
