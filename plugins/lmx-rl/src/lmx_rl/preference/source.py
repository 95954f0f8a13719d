"""Batches of pairs, and of completions that were judged."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mlx.core import array
from numpy.typing import NDArray

from lmx_core.data.sources.rows import Arrays, RowSource
from lmx_rl.preference.reference import NAME, Reference
from lmx_rl.preference.rows import Rows


class ReferredSource(RowSource):
    """A source whose batches have what a reference says of them, which a checkpoint keeps; without one it has nothing to
    keep.
    """

    reference: Reference | None

    def on_train_begin(self, trainer: Any) -> None:
        if self.reference:
            self.reference.begin(trainer)

    def saved(self) -> dict[str, array]:
        return self.reference.saved() if self.reference else {}

    def restore(self, arrays: Mapping[str, array], run: Path) -> None:
        if self.reference:
            self.reference.restore(arrays, run)

    def table(self, name: str, rows: Rows, numbers: Sequence[int] | NDArray[np.int64]) -> Arrays:
        """A batch of rows, with what the reference says of them."""
        batch = rows.batch(numbers)
        return {**batch, NAME: self.reference.of(name, numbers, batch)} if self.reference else batch


class PairSource(ReferredSource):
    """A sample is a pair: of P samples a batch has 2 P rows, all chosen, then all rejected, so that no pair is parted.

    Rows 2 i and 2 i + 1 of `table` are pair i.
    """

    def __init__(
        self, name: str, rows: Rows, seed: int = 0, shuffle: bool = True, reference: Reference | None = None
    ) -> None:
        super().__init__(seed, shuffle)
        self.name, self.pairs, self.reference = name, rows, reference
        self.rows = len(rows) // 2

    def read(self, rows: Sequence[int]) -> Arrays:
        firsts = 2 * np.asarray(rows, np.int64)
        return self.table(self.name, self.pairs, np.concatenate([firsts, firsts + 1]))


class JudgedSource(ReferredSource):
    """A sample is a completion, `good` or not; with it comes the completion of another prompt, as `other_inputs` and so on,
    which says how far the policy is from the reference.
    """

    def __init__(
        self,
        names: tuple[str, str],
        rows: Rows,
        others: Rows,
        good: NDArray[np.bool_],
        reference: Reference,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        super().__init__(seed, shuffle)
        self.names, self.judged, self.others, self.good, self.reference = names, rows, others, good, reference
        self.rows = len(rows)

    def read(self, rows: Sequence[int]) -> Arrays:
        numbers = np.asarray(rows, np.int64)
        batch = self.table(self.names[0], self.judged, numbers)
        others = self.table(self.names[1], self.others, numbers)
        return {**batch, **{f"other_{name}": value for name, value in others.items()}, "good": self.good[numbers]}
