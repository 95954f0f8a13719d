"""Several sources as one."""

from collections.abc import Sequence
from fractions import Fraction

import attrs
import numpy as np

from lmx_core.data.sources.rows import Arrays
from lmx_core.errors import ConfigError, DataError
from lmx_core.protocols import Source

Place = tuple[int, int]
"""A part, and the number of a sample in it."""


@attrs.frozen
class _Split:
    """Divides samples between two subtrees: of the first n, `round(share * n)` go left."""

    share: Fraction
    left: "_Split | int"
    right: "_Split | int"

    def lefts(self, n: int) -> int:
        numerator, denominator = self.share.numerator, self.share.denominator
        return (2 * n * numerator + denominator) // (2 * denominator)


class Mixed:
    """Sources in turn, by weight: of the first n samples about `n * weight`, of weights that sum up to 1, are of each.

    A Huffman tree of the weights divides the samples, and each division is off by half a sample at most. So a sample's
    number alone says what it is, without a state, and no weight drifts. Each source counts its own epochs.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]) -> None:
        if not sources or len(sources) != len(weights) or not all(0 < weight < float("inf") for weight in weights):
            raise ConfigError(
                f"weights {list(weights)} of {len(sources)} sources: each source needs one, a number above 0"
            )
        self.sources = list(sources)
        self.tree = _tree(weights)

    def __len__(self) -> int:
        """As many samples as all parts have."""
        return sum(map(len, self.sources))

    def place(self, sample: int) -> Place:
        """The part that a sample is of, and its number there."""
        node = self.tree
        while isinstance(node, _Split):
            before, after = node.lefts(sample), node.lefts(sample + 1)
            node, sample = (node.left, before) if after > before else (node.right, sample - before)
        return node, sample

    def batch(self, samples: Sequence[int], step: int) -> Arrays:
        places = [self.place(sample) for sample in samples]
        parts = sorted({part for part, _ in places})
        rows = {part: [i for i, (found, _) in enumerate(places) if found == part] for part in parts}
        batches = [self.sources[part].batch([places[i][1] for i in rows[part]], step) for part in parts]
        return joined_rows([{**batch} for batch in batches], [rows[part] for part in parts])


def _tree(weights: Sequence[float]) -> _Split | int:
    nodes: list[tuple[Fraction, int, _Split | int]] = [(Fraction(weight), i, i) for i, weight in enumerate(weights)]
    for i in range(len(nodes) - 1):
        nodes.sort(key=lambda node: node[:2])
        (light, _, right), (heavy, _, left) = nodes[:2]
        both = light + heavy
        share = Fraction(round(heavy / both * 2**53), 2**53)
        nodes[:2] = [(both, len(weights) + i, _Split(share, left, right))]
    return nodes[0][2]


def joined_rows(batches: Sequence[Arrays], places: Sequence[Sequence[int]]) -> Arrays:
    """One batch of the rows of several, at these places. Shorter rows are padded; the padding is not learned, and where
    one has segments it is a segment of its own.
    """
    if len(batches) == 1:
        return {name: _in_place([value], places) for name, value in batches[0].items()}
    width = max(batch["inputs"].shape[1] for batch in batches)
    lengths = {batch["inputs"].shape[1] for batch in batches}
    some = {name for batch in batches for name in batch}
    if lengths != {width}:
        some.add("mask")
    full = [_completed(batch, some, width) for batch in batches]
    for name in some:
        if missing := [i for i, batch in enumerate(full) if name not in batch]:
            raise DataError(
                f"sources that are mixed give batches that do not go together: {len(missing)} of {len(full)} have no "
                f"{name!r}. Give the datasets of a mixture one kind of source."
            )
    return {name: _in_place([batch[name] for batch in full], places) for name in sorted(some)}


def _completed(batch: Arrays, names: set[str], width: int) -> Arrays:
    rows, length = batch["inputs"].shape
    full = {**batch}
    if "mask" in names:
        full.setdefault("mask", np.ones((rows, length), np.bool_))
    if "segments" in names:
        full.setdefault("segments", np.zeros((rows, length), np.int32))
    if length < width:
        for name in ("inputs", "targets", "mask", "segments"):
            if name in full:
                full[name] = np.pad(full[name], [(0, 0), (0, width - length)])
        if "segments" in full:
            full["segments"][:, length:] = full["segments"].max(axis=1, keepdims=True) + 1
    return full


def _in_place(values: Sequence[np.ndarray], places: Sequence[Sequence[int]]) -> np.ndarray:
    joined = np.concatenate(values)
    found = np.empty_like(joined)
    found[[i for some in places for i in some]] = joined
    return found
