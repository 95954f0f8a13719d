"""Fixed-length windows of a token stream."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np
from numpy.typing import NDArray

from lmx_core.config import exact_types
from lmx_core.data.documents import Documents
from lmx_core.data.sources.rows import CHUNK, Arrays, nothing_to_learn
from lmx_core.errors import DataError

if TYPE_CHECKING:
    from lmx_core.train.config import TrainConfig


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class WindowsOptions:
    """Options of `source="windows"`."""

    shuffle: bool = True
    """Each epoch in an order and from a first token of its own; otherwise from the first token on, one after another."""


class Windows:
    """Windows of `seq_len + 1` tokens: inputs and, one further, their targets; where documents end does not matter.

    Sample i is of epoch `i // len(self)`, in an order and from a first token that the seed and the epoch draw.
    """

    Options = WindowsOptions

    def __init__(self, documents: Documents, config: "TrainConfig", options: WindowsOptions | None = None) -> None:
        options = options or WindowsOptions()
        tokens, length = documents.tokens, config.seq_len
        if len(tokens) <= length:
            raise DataError(
                f"seq_len={length} needs {length + 1} tokens, the training split has {len(tokens)}. "
                "Shorten train.seq_len or give more text."
            )
        self.tokens, self.learn, self.length, self.seed = tokens, documents.learn, length, config.seed
        self.shuffle = options.shuffle
        self.rows, self.row_tokens = (len(tokens) - 1) // length, float(length)
        # One window fewer than fits leaves the epoch's first token room to move by a whole window.
        self.count = max(self.rows - 1, 1) if options.shuffle else self.rows
        self._epoch = functools.lru_cache(maxsize=2)(self._drawn)
        if self.learn is not None and not any(
            self.learn[i : i + CHUNK * length].any() for i in range(1, len(tokens), CHUNK * length)
        ):
            raise nothing_to_learn(f"none of {len(tokens)} tokens")

    def __len__(self) -> int:
        return self.count

    def batch(self, samples: Sequence[int], step: int) -> Arrays:
        return self._cut([self._start(sample) for sample in samples])

    def read(self, rows: Sequence[int]) -> Arrays:
        """Windows by number, from the first token on."""
        return self._cut([row * self.length for row in rows])

    def _start(self, sample: int) -> int:
        epoch, i = divmod(sample, self.count)
        if not self.shuffle:
            return i * self.length
        first, order = self._epoch(epoch)
        return first + int(order[i]) * self.length

    def _cut(self, starts: Sequence[int]) -> Arrays:
        wide = np.empty((len(starts), self.length + 1), np.int32)
        for row, start in zip(wide, starts, strict=True):
            row[:] = self.tokens[start : start + self.length + 1]
        batch: Arrays = {"inputs": wide[:, :-1], "targets": wide[:, 1:]}
        if self.learn is not None:
            batch["mask"] = np.stack([self.learn[start + 1 : start + 1 + self.length] for start in starts])
        return batch

    def _drawn(self, epoch: int) -> tuple[int, NDArray[np.int64]]:
        """Its first token, and the order of its windows."""
        random = np.random.default_rng([self.seed, epoch])
        return int(random.integers(len(self.tokens) - self.count * self.length)), random.permutation(self.count)
