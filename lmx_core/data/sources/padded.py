"""A document in each row."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np

from lmx_core.config import at_least_one, exact_types
from lmx_core.data.documents import Documents
from lmx_core.data.sources.order import Numbers, shuffled
from lmx_core.data.sources.rows import Arrays, RowSource, with_targets

if TYPE_CHECKING:
    from lmx_core.train.config import TrainConfig

BLOCK = 50
"""Batches whose documents are sorted by length together."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class PaddedOptions:
    """Options of `source="padded"`."""

    multiple: int = attrs.field(default=32, validator=at_least_one)
    """Batches are as long as a multiple of so many tokens: a compiled step is compiled once for each length."""
    bucketed: bool = False
    """Whether the documents of a batch are of like length: those of 50 batches are sorted, for less padding."""
    shuffle: bool = True
    """Documents in an order of its own for each epoch."""


class Padded(RowSource):
    """A document in each row, cut to `seq_len` targets, and padded to the longest of its batch; padding is not learned.

    Documents without a target that counts before the cut are left out. A bucketed epoch leaves out what remains after its
    last whole batch, other documents in each epoch.
    """

    Options = PaddedOptions

    def __init__(self, documents: Documents, config: "TrainConfig", options: PaddedOptions | None = None) -> None:
        options = options or PaddedOptions()
        super().__init__(config.seed, options.shuffle)
        self.tokens, self.learn, self.options = documents.tokens, documents.learn, options
        self.longest, self.batch_size = config.seq_len, config.batch_size
        self._block = functools.lru_cache(maxsize=2)(self._sorted)
        kept = with_targets(documents, self.longest)
        self.rows, self.left_out = len(kept), len(documents) - len(kept)
        self.starts = documents.starts[kept]
        self.lengths = np.minimum(documents.ends[kept] - self.starts - 1, self.longest)
        """Targets of each document."""
        self.row_tokens = float(self.lengths.mean())

    def __len__(self) -> int:
        whole = self.rows // self.batch_size * self.batch_size
        return whole if self.options.bucketed and whole else self.rows

    def ordered(self, places: Numbers, epoch: int) -> Numbers:
        if not self.options.bucketed:
            return super().ordered(places, epoch)
        found = np.empty_like(places)
        blocks = places // (BLOCK * self.batch_size)
        for block in np.unique(blocks).tolist():
            here = blocks == block
            found[here] = self._block(block, epoch)[places[here] - block * BLOCK * self.batch_size]
        return found

    def _sorted(self, block: int, epoch: int) -> Numbers:
        """The rows of a block: batches of like length, in random order."""
        size = BLOCK * self.batch_size
        rows = super().ordered(np.arange(block * size, min((block + 1) * size, len(self))), epoch)
        rows = rows[np.argsort(self.lengths[rows], kind="stable")]
        batches = -(-len(rows) // self.batch_size)
        order = shuffled(range(batches), batches, self.seed, epoch, block)
        return np.concatenate([rows[i * self.batch_size : (i + 1) * self.batch_size] for i in order.tolist()])

    def read(self, rows: Sequence[int]) -> Arrays:
        lengths = self.lengths[np.asarray(rows, np.int64)]
        width = min(-(-int(lengths.max()) // self.options.multiple) * self.options.multiple, self.longest)
        inputs, targets = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), np.int32)
        mask = np.zeros((len(rows), width), np.bool_)
        for i, (start, length) in enumerate(zip(self.starts[rows].tolist(), lengths.tolist(), strict=True)):
            tokens = self.tokens[start : start + length + 1]
            inputs[i, :length], targets[i, :length] = tokens[:-1], tokens[1:]
            mask[i, :length] = True if self.learn is None else self.learn[start + 1 : start + length + 1]
        return {"inputs": inputs, "targets": targets, "mask": mask}
