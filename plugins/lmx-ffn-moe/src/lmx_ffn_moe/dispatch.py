"""Rows in the order of their experts, so that each matrix is read once.

Besides core's axis letters: `T` tokens, `C` choices of each, `N` experts, `G` groups of `M` rows that share an expert.
"""

import attrs
import mlx.core as mx
from mlx.core import array

from lmx_core.shapes import Float, Int

FEW = 32
"""Choices up to which sorting them costs more than it saves."""
LARGEST = 8
"""Rows of a group on a CPU, where a matrix product of several rows is far faster than so many of one row."""


@attrs.frozen(kw_only=True, eq=False)
class Dispatch:
    """Which expert each group of rows goes to, and where the rows come from."""

    experts: Int[array, "G"]
    rows: int
    """Of a group."""
    tokens: tuple[int, int]
    """T and C."""
    source: Int[array, "R"] | None = None
    """The choice, counted from the first token's first, that each row stands for; None where they are in their order."""
    place: Int[array, "R2"] | None = None
    """The row of each choice."""

    @property
    def ascending(self) -> bool:
        """Whether experts follow each other by their numbers."""
        return self.source is not None

    def spread(self, x: Float[array, "T C2 D"]) -> Float[array, "G M D"]:
        """A row for each choice."""
        n, choices = self.tokens
        if self.source is None:
            return mx.broadcast_to(x, (n, choices, x.shape[-1])).reshape(n * choices, 1, x.shape[-1])
        source = self.source if x.shape[1] > 1 else self.source // choices
        return x.flatten(0, 1)[source].reshape(-1, self.rows, x.shape[-1])

    def collect(self, y: Float[array, "G M D"]) -> Float[array, "T C D"]:
        """Rows as the choices that they stand for."""
        y = y.flatten(0, 1)
        return (y if self.place is None else y[self.place]).reshape(*self.tokens, y.shape[-1])


def dispatch(chosen: Int[array, "T C"], n_experts: int) -> Dispatch:
    """Groups of rows for these choices. On a CPU each expert's rows are filled up to whole groups, with rows that nobody
    reads; so many groups are made as suffice however the choices fall."""
    flat, (n, choices) = chosen.flatten(), chosen.shape
    if flat.size <= FEW:
        return Dispatch(experts=flat, rows=1, tokens=(n, choices))
    order = mx.argsort(flat)
    experts = flat[order]
    rows = _rows(flat.size, n_experts)
    if rows == 1:
        return Dispatch(experts=experts, rows=1, tokens=(n, choices), source=order, place=mx.argsort(order))
    counts = load(flat, n_experts)
    filled = (counts + rows - 1) // rows * rows
    ends = mx.cumsum(filled)
    first = (ends - filled) - (mx.cumsum(counts) - counts)  # by how much filling up moves an expert's rows
    place = first[experts] + mx.arange(flat.size)
    groups = (flat.size + n_experts * (rows - 1)) // rows
    starts = rows * mx.arange(groups)
    return Dispatch(
        experts=mx.minimum((starts[:, None] >= ends).sum(axis=-1), n_experts - 1),
        rows=rows,
        tokens=(n, choices),
        source=mx.zeros((groups * rows,), order.dtype).at[place].add(order),
        place=mx.zeros_like(place).at[order].add(place),
    )


def load(chosen: Int[array, "R"], n_experts: int) -> Int[array, "N"]:
    """How many of the choices each expert got."""
    return mx.zeros((n_experts,), mx.int32).at[chosen].add(1)


def _rows(choices: int, n_experts: int) -> int:
    """Of a group: at most a quarter of what an expert gets, so that filling up adds little."""
    if mx.default_device() != mx.Device(mx.cpu):
        return 1
    rows = 1
    while rows < LARGEST and 8 * rows * n_experts <= choices:
        rows *= 2
    return rows
