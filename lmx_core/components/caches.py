"""What a layer remembers between calls."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.shapes import Float

STEP = 256
"""Tokens by which a buffer grows, so that appending one token copies nothing most of the time."""


class _Counted:
    """What a cache does whose tokens lie in a row: to forget the last ones is to count fewer."""

    offset: int = 0

    def is_trimmable(self) -> bool:
        return True

    def trim(self, n: int) -> int:
        """Forget the last n tokens (at most all); returns how many."""
        n = min(n, self.offset)
        self.offset -= n
        return n

    def checkpoint(self) -> int:
        """A mark to `restore`, good until something before it is trimmed away. Costs nothing."""
        return self.offset

    def restore(self, mark: int) -> None:
        self.offset = mark


class KVCache(_Counted):
    """All keys and values so far, `2 * n_kv_heads * head_dim` numbers a token.

    It quacks like mlx-lm's cache of the same name, so that each library's tools drive the other's models.
    """

    def __init__(self) -> None:
        self.keys: array | None = None
        self.values: array | None = None

    def update_and_fetch(
        self, keys: Float[array, "B K L E"], values: Float[array, "B K L E2"]
    ) -> tuple[Float[array, "B K S E"], Float[array, "B K S E2"]]:
        """Append L tokens; all S = offset + L of them."""
        start, self.offset = self.offset, self.offset + keys.shape[2]
        self.keys = _with_room(self.keys, keys, start, self.offset)
        self.values = _with_room(self.values, values, start, self.offset)
        self.keys[..., start : self.offset, :] = keys
        self.values[..., start : self.offset, :] = values
        return self.keys[..., : self.offset, :], self.values[..., : self.offset, :]

    @property
    def state(self) -> Sequence[array]:
        if self.keys is None or self.values is None:
            return []
        return [self.keys[..., : self.offset, :], self.values[..., : self.offset, :]]

    @state.setter
    def state(self, arrays: Sequence[array]) -> None:
        # Copies: buffers are written in place, and another cache may be given the same arrays.
        self.keys, self.values = (mx.array(arrays[0]), mx.array(arrays[1])) if arrays else (None, None)
        self.offset = 0 if self.keys is None else self.keys.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, their unused room included."""
        return sum(buffer.nbytes for buffer in (self.keys, self.values) if buffer is not None)


class TokenCount(_Counted):
    """The memory of a layer whose mixer keeps none: how many tokens came, for the positions of the next ones."""

    @property
    def state(self) -> Sequence[array]:
        return [mx.array(self.offset)]

    @state.setter
    def state(self, arrays: Sequence[array]) -> None:
        offset: Any = arrays[0].item()
        self.offset = offset

    @property
    def nbytes(self) -> int:
        return self.state[0].nbytes


def _with_room(buffer: array | None, new: array, start: int, end: int) -> array:
    """The buffer, or a longer one with the first `start` tokens in it, when `end` tokens do not fit."""
    if buffer is not None and end <= buffer.shape[2]:
        return buffer
    batch, heads, _, width = new.shape
    room = mx.zeros((batch, heads, -(-end // STEP) * STEP, width), new.dtype)
    if buffer is not None:
        room[..., :start, :] = buffer[..., :start, :]
    return room
