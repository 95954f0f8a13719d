"""What a recurrent layer remembers."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.components.masks import ALL, Scope
from lmx_core.components.rows import Padded
from lmx_core.shapes import Bool


class RecurrentCache(Padded):
    """Arrays that every token changes, of the same size however many came. They are replaced, never written to.

    A token cannot be taken back out of them: to return to an earlier one, `checkpoint` there and `restore`. Where a batch
    begins with padding, its mixer keeps that out of them: it asks which columns are `tokens`.
    """

    def __init__(self, scope: Scope = ALL) -> None:
        super().__init__()
        self.arrays: tuple[array, ...] = ()

    def update(self, n: int, *arrays: array) -> None:
        """What is remembered after `n` more tokens."""
        self.columns += n
        self.arrays = arrays

    def tokens(self, n: int) -> Bool[array, "B N"] | None:
        """Which of the n columns that come are no padding; None where that holds for all of them."""
        if self.padding is None or self.columns >= max(self.padding):
            return None
        return mx.arange(self.columns, self.columns + n) >= mx.array(self.padding)[:, None]

    @property
    def state(self) -> Sequence[array]:
        return [mx.array([self.columns, *(self.padding or ())]), *self.arrays]

    @state.setter
    def state(self, arrays: Sequence[array]) -> None:
        numbers: Any = arrays[0].tolist()
        self.columns, self.padding, self.arrays = numbers[0], tuple(numbers[1:]) or None, tuple(arrays[1:])

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.state)

    def is_trimmable(self) -> bool:
        return False

    def trim(self, n: int) -> int:
        """Forgets nothing, and says so: 0."""
        return 0

    def checkpoint(self) -> Any:
        return self.columns, self.padding, self.arrays

    def restore(self, mark: Any) -> None:
        self.columns, self.padding, self.arrays = mark

    def _size(self) -> int:
        return self.arrays[0].shape[0] if self.arrays else 1

    def _choose(self, rows: Sequence[int]) -> None:
        index = mx.array(list(rows))
        self.arrays = tuple(part[index] for part in self.arrays)

    def _join(self, other: "RecurrentCache", columns: int) -> None:
        self.arrays = tuple(mx.concatenate([*pair]) for pair in zip(self.arrays, other.arrays, strict=True))
