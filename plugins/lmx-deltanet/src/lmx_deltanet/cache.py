"""What a recurrent layer remembers."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.core import array

Mark = tuple[int, tuple[array, ...]]


class RecurrentCache:
    """Arrays that every token changes, of the same size however many came. They are replaced, never written to.

    A token cannot be taken back out of them: to return to an earlier one, `checkpoint` there and `restore`.
    """

    def __init__(self) -> None:
        self.offset = 0
        self.arrays: tuple[array, ...] = ()

    def update(self, n: int, *arrays: array) -> None:
        """What is remembered after `n` more tokens."""
        self.offset += n
        self.arrays = arrays

    @property
    def state(self) -> Sequence[array]:
        return [mx.array(self.offset), *self.arrays]

    @state.setter
    def state(self, arrays: Sequence[array]) -> None:
        offset: Any = arrays[0].item()
        self.offset, self.arrays = offset, tuple(arrays[1:])

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.state)

    def is_trimmable(self) -> bool:
        return False

    def trim(self, n: int) -> int:
        """Forgets nothing, and says so: 0."""
        return 0

    def checkpoint(self) -> Mark:
        return self.offset, self.arrays

    def restore(self, mark: Mark) -> None:
        self.offset, self.arrays = mark
