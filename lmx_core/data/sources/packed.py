"""Documents that share rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from lmx_core.config import exact_types
from lmx_core.data.documents import Documents
from lmx_core.data.sources.order import Numbers
from lmx_core.data.sources.packing import CUTS, STRATEGIES
from lmx_core.data.sources.rows import Arrays, RowSource, with_targets

if TYPE_CHECKING:
    from lmx_core.train.config import TrainConfig


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class PackedOptions:
    """Options of `source="packed"`."""

    strategy: Literal["bfd", "bfd_split", "wrapped"] = "bfd_split"
    """`bfd`: documents that fit are packed by best-fit decreasing, longer ones are cut and their rest is dropped;
    `bfd_split`: the rest is packed like a document of its own; `wrapped`: one after another, cut where a row ends."""
    boundaries: bool = True
    """Whether documents of a row are kept apart: none sees another, positions begin anew in each."""
    shuffle: bool = True
    """Rows in an order of its own for each epoch. Which documents share a row is the same in all of them."""


class Packed(RowSource):
    """Rows of `seq_len` tokens with several documents in each (arXiv:2404.10830).

    The target of a token is the next one of its document, also where that one lies in another row or was dropped. The last
    token of a document has none; without boundaries it is the first one of the next document in its row. Documents without
    a target that counts are left out, unless they are context to those after them, as without boundaries. What is left of
    a row is a segment of its own, and nothing is learned there.
    """

    Options = PackedOptions

    def __init__(self, documents: Documents, config: "TrainConfig", options: PackedOptions | None = None) -> None:
        options = options or PackedOptions()
        super().__init__(config.seed, options.shuffle)
        self.tokens, self.learn, self.length = documents.tokens, documents.learn, config.seq_len
        self.boundaries = options.boundaries
        kept = self._kept(documents, options)
        self.left_out = len(documents) - len(kept)
        starts = documents.starts
        lengths = documents.ends - starts
        self.pieces = STRATEGIES[options.strategy](starts[kept], lengths[kept], self.length)
        self.rows = int(self.pieces.rows[-1]) + 1
        self.row_tokens = float(self.pieces.lengths.sum() / self.rows)
        self.firsts = np.searchsorted(self.pieces.rows, np.arange(self.rows + 1))
        """Row i has the pieces from `firsts[i]` to `firsts[i + 1]`."""

    def _kept(self, documents: Documents, options: PackedOptions) -> Numbers:
        useful = with_targets(documents, self.length if options.strategy in CUTS else None)
        return useful if options.boundaries else np.arange(len(documents))

    def read(self, rows: Sequence[int]) -> Arrays:
        # Of each piece of these rows: the row that it is in, as which one, and where it begins there,
        numbers = np.asarray(rows, np.int64)
        counts = self.firsts[numbers + 1] - self.firsts[numbers]
        held_by, nth = _counted(counts)
        pieces = self.firsts[numbers][held_by] + nth
        lengths = self.pieces.lengths[pieces]
        begins = np.cumsum(lengths) - lengths
        columns = begins - begins[np.cumsum(counts) - counts][held_by]
        # and of each token: its piece, where it stands in the documents, and where in the batch.
        part_of, inside = _counted(lengths)
        at = self.pieces.starts[pieces][part_of] + inside
        following, known = self._following(at, pieces, begins + lengths - 1, nth + 1 < counts[held_by])
        places = (held_by * self.length + columns)[part_of] + inside
        shape = (len(numbers), self.length)
        batch = {
            "inputs": _placed(self.tokens[at], places, np.zeros(shape, np.int32)),
            "targets": _placed(self.tokens[following] * known, places, np.zeros(shape, np.int32)),
            "mask": _placed(
                known if self.learn is None else known & self.learn[following], places, np.zeros(shape, np.bool_)
            ),
        }
        if self.boundaries:
            padding = np.broadcast_to(counts[:, None], shape).astype(np.int32)
            batch["segments"] = _placed(nth[part_of], places, padding)
        return batch

    def _following(
        self, at: Numbers, pieces: Numbers, lasts: Numbers, more: NDArray[np.bool_]
    ) -> tuple[Numbers, NDArray[np.bool_]]:
        """Where the target of each token stands, and whether it has one. `lasts` are the last tokens of the pieces, and
        `more` says whether the row has another piece after one.
        """
        following, known = at + 1, np.ones(len(at), np.bool_)
        known[lasts] = self.pieces.goes_on[pieces]
        if not self.boundaries:
            joined = np.flatnonzero(more)
            following[lasts[joined]], known[lasts[joined]] = self.pieces.starts[pieces[joined + 1]], True
        following[~known] = 0  # the very last token has none after it
        return following, known


def _placed(values: NDArray[Any], places: Numbers, into: NDArray[Any]) -> NDArray[Any]:
    into.reshape(-1)[places] = values
    return into


def _counted(counts: Numbers) -> tuple[Numbers, Numbers]:
    """For members of groups of these sizes: the group of each, and which of its group it is."""
    groups = np.repeat(np.arange(len(counts)), counts)
    return groups, np.arange(len(groups)) - (np.cumsum(counts) - counts)[groups]
