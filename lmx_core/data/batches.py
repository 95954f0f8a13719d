"""Fixed-length windows of a token stream, shuffled anew each epoch, in an order that a position alone determines."""

import functools

import numpy as np
from numpy.typing import NDArray

from lmx_core.errors import DataError

Tokens = NDArray[np.integer]


class Windows:
    """Windows of `length + 1` tokens: inputs and, one further, their targets.

    Sample i is the same in every process: epoch `i // len(self)`, in an order and from a first token that the seed and
    the epoch draw. A position is all there is to save.
    """

    def __init__(self, tokens: Tokens, length: int, seed: int) -> None:
        if len(tokens) <= length:
            raise DataError(
                f"seq_len={length} needs {length + 1} tokens, the training split has {len(tokens)}. "
                "Shorten train.seq_len or give more text."
            )
        self.tokens, self.length, self.seed = tokens, length, seed
        # One window fewer than fits leaves the epoch's first token room to move by a whole window.
        self.count = max((len(tokens) - 1) // length - 1, 1)

    def __len__(self) -> int:
        return self.count

    def batch(self, position: int, size: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Inputs and targets (size, length) of the samples from `position` on."""
        rows = np.stack([self._window(i) for i in range(position, position + size)])
        return rows[:, :-1], rows[:, 1:]

    def _window(self, sample: int) -> NDArray[np.int32]:
        epoch, i = divmod(sample, self.count)
        first, order = _epoch(self.seed, epoch, self.count, len(self.tokens) - self.count * self.length)
        start = first + int(order[i]) * self.length
        return self.tokens[start : start + self.length + 1].astype(np.int32)


@functools.lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, count: int, slack: int) -> tuple[int, NDArray[np.int64]]:
    random = np.random.default_rng([seed, epoch])
    return int(random.integers(slack)), random.permutation(count)
