"""The rows of a batch that differ in length, and how many tokens each has seen: what every cache knows.

Rows end together: shorter ones begin with `padding`. `columns` counts the tokens of the longest row.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import mlx.core as mx
from mlx.core import array

from lmx_core.components.masks import ALL, Scope
from lmx_core.errors import ConfigError

R = TypeVar("R", bound="Rows")


class Rows:
    """How many tokens the rows of a batch have seen, and which rows there are. A cache of any kind can start from it."""

    def __init__(self, scope: Scope = ALL) -> None:
        self.columns = 0
        self.padding: tuple[int, ...] | None = None
        """Of each row; None where no row has any."""
        self.length: Sequence[int] | None = None
        """How long each row will be, or all of them, where that was said: rotations that depend on it ask."""

    @property
    def offset(self) -> int | array:
        """Tokens seen: an int, or (B,) where rows differ."""
        return self.columns if self.padding is None else mx.array([self.columns - pad for pad in self.padding])

    def expect(self, length: Sequence[int]) -> None:
        """Rows will be at least so long, one number for all or one for each: for a prompt that is read in parts."""
        self.length = tuple(length)

    def filter(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order; a row may be named more than once."""
        size = len(self.paddings())
        if wrong := [row for row in rows if not 0 <= row < size]:
            raise ConfigError(f"row {wrong[0]} of a batch of {size}; rows count from 0")
        if not rows:
            raise ConfigError("a batch needs at least one row, got none")
        self.length = None
        if self.padding is not None:
            chosen = [self.padding[row] for row in rows]
            common = min(*chosen, self.columns)
            self._shift(common)
            self.padding = padding_of(pad - common for pad in chosen)
        self._choose(rows)

    def extract(self: R, row: int) -> R:
        """One row as a cache of its own."""
        one = self.copy()
        one.filter([row])
        return one

    def extend(self: R, other: R) -> None:
        """Take the rows of another cache in, after one's own; the longest row is padded by nothing."""
        ours, theirs = (
            (type(each), getattr(each, "scope", ALL), getattr(each, "options", None)) for each in (self, other)
        )
        if ours != theirs:
            raise ConfigError(
                f"a cache takes in the rows of its like: {_described(ours)} cannot hold {_described(theirs)}"
            )
        if not (self.columns and other.columns):
            raise ConfigError("an empty cache has no rows yet; give it its first tokens before it is extended")
        self.length = None
        columns = max(self.columns, other.columns)
        padding = [columns - each.columns + pad for each in (self, other) for pad in each.paddings()]
        self._join(other, columns)
        self.columns, self.padding = columns, padding_of(padding)

    @classmethod
    def merge(cls, caches: Sequence[R]) -> R:
        """One batch of the rows of several caches, which stay as they are."""
        if not caches:
            raise ConfigError("a batch needs at least one cache, got none")
        one = caches[0].copy()
        for other in caches[1:]:
            one.extend(other)
        return one

    def copy(self: R) -> R:
        """The same memory, which goes on by itself."""
        return copy.copy(self)

    def paddings(self) -> Sequence[int]:
        """One number a row."""
        return self.padding if self.padding is not None else [0] * self._size()

    def _size(self) -> int:
        """Rows, where none has padding."""
        return 1

    def _choose(self, rows: Sequence[int]) -> None:
        """Keep these rows of the arrays."""

    def _join(self, other: Any, columns: int) -> None:
        """Add the arrays of another cache of this kind, both padded to so many columns."""

    def _shift(self, n: int) -> None:
        """The first n columns are padding in every row, and go."""
        self.columns -= n


def padding_of(pads: Iterable[int]) -> tuple[int, ...] | None:
    """Of each row, None where no row has any."""
    padding = tuple(pads)
    return padding if any(padding) else None


def _described(kind: tuple[Any, ...]) -> str:
    cls, *numbers = kind
    return f"a {cls.__name__}({', '.join(str(each) for each in numbers if each not in (ALL, None))})"


class Padded(Rows):
    """What a cache does that takes a batch whose rows begin with padding."""

    def pad(self, padding: Sequence[int]) -> None:
        """Let each row of the batch that comes begin with so much padding; only while the cache is empty."""
        if self.columns:
            raise ConfigError(f"padding goes before the first token, but the cache has seen {self.columns}")
        if wrong := [pad for pad in padding if pad < 0]:
            raise ConfigError(f"padding is a number of tokens for each row, got {wrong[0]}")
        self.padding = padding_of(padding)


class Trimmable(Padded):
    """What a cache does whose tokens lie in a row: to forget the last ones is to count fewer."""

    def is_trimmable(self) -> bool:
        return True

    def trim(self, n: int) -> int:
        """Forget the last n tokens (at most all of the shortest row); returns how many."""
        n = max(min(n, self.columns - max(self.padding or (0,))), 0)
        while n and not self._reaches(self.columns - n):
            n -= 1
        self.columns -= n
        return n

    def _reaches(self, columns: int) -> bool:
        """Whether it still holds what the token after so many columns looks at."""
        return True


class TokenCount(Trimmable):
    """The memory of a layer whose mixer keeps none: how many tokens came, for the positions of the next ones."""

    def __init__(self, scope: Scope = ALL) -> None:
        super().__init__()
        self._rows = 1

    def count(self, rows: int, n: int) -> None:
        self._rows, self.columns = rows, self.columns + n

    def checkpoint(self) -> Any:
        """A mark to `restore`. Costs nothing."""
        return self.columns, self.padding, self._rows

    def restore(self, mark: Any) -> None:
        self.columns, self.padding, self._rows = mark

    @property
    def state(self) -> Sequence[array]:
        return [mx.array([self._rows, self.columns, *(self.padding or ())])]

    @state.setter
    def state(self, arrays: Sequence[array]) -> None:
        numbers: Any = arrays[0].tolist()
        self._rows, self.columns, self.padding = numbers[0], numbers[1], tuple(numbers[2:]) or None

    @property
    def nbytes(self) -> int:
        return self.state[0].nbytes

    def _size(self) -> int:
        return self._rows

    def _choose(self, rows: Sequence[int]) -> None:
        self._rows = len(rows)

    def _join(self, other: "TokenCount", columns: int) -> None:
        self._rows += other._rows
