"""Who may look at whom. A mask is None (all visible), `"causal"`, or boolean with True = may look."""

import mlx.core as mx
from mlx.core import array

from lmx_core.shapes import Bool

Mask = array | str | None
CAUSAL = "causal"


def causal(length: int, offset: int = 0) -> Bool[array, "L S"]:
    """Token `offset + i` sees every token up to itself."""
    return mx.arange(offset + length)[None] <= mx.arange(offset, offset + length)[:, None]


def as_boolean(mask: Mask, length: int, total: int) -> array | None:
    """The mask as an array, or None where all is visible; `"causal"` counts from the end of `total` tokens."""
    return causal(length, total - length) if isinstance(mask, str) else mask
