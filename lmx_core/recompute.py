"""Gradient checkpointing."""

from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.block import ConfigurableBlock
from lmx_core.components.masks import Mask
from lmx_core.errors import ConfigError
from lmx_core.objective import put_reports, take_reports


def recomputed(block: ConfigurableBlock, x: array, mask: Mask) -> array:
    """`block(x, mask)[0]`, of which only `x` is kept for the gradient: the rest is computed again (arXiv:1604.06174).

    What modules report leaves as outputs do, so that a loss among it keeps its gradient. A block with dropout is refused:
    MLX cannot be made to draw the same numbers twice.
    """
    if block.config.dropout:
        raise ConfigError("recompute_every computes blocks twice, and dropout would drop others. Set dropout = 0.")
    names: list[str] = []

    def inner(parameters: Any, x: array) -> list[array]:
        block.update(parameters)
        y, _ = block(x, mask, None)
        reports = take_reports(block)
        names[:] = reports
        return [y, *reports.values()]

    before = block.parameters()
    y, *values = mx.checkpoint(inner)(before, x)
    block.update(before)
    put_reports(block, dict(zip(names, values, strict=True)))
    return y
