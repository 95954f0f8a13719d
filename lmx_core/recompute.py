"""Gradient checkpointing."""

from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.block import ConfigurableBlock
from lmx_core.components.masks import Mask
from lmx_core.components.segments import Segments
from lmx_core.errors import ConfigError
from lmx_core.objective import put_reports, take_reports

TWICE = "a block that is computed twice would not drop the same numbers both times"


def recomputed(block: ConfigurableBlock, x: array, mask: Mask, segments: Segments | None = None) -> array:
    """`block(x, mask, segments)[0]`, keeping only `x` for the gradient: the rest is computed again (arXiv:1604.06174).

    What modules report leaves as outputs do, so that a loss among it keeps its gradient. A block with dropout is refused:
    MLX cannot be made to draw the same numbers twice.
    """
    if block.config.dropout:
        raise ConfigError(f"recompute_every needs dropout = 0, got {block.config.dropout}: {TWICE}")
    names: list[str] = []

    trained = [each for each in (block, block.placement) if isinstance(each, nn.Module)]

    def inner(parameters: Any, x: array) -> list[array]:
        for module, own in zip(trained, parameters, strict=True):
            module.update(own)
        y, _ = block(x, mask, segments)
        reports = take_reports(block)
        names[:] = reports
        return [y, *reports.values()]

    before = [module.trainable_parameters() for module in trained]
    y, *values = mx.checkpoint(inner)(before, x)
    for module, own in zip(trained, before, strict=True):
        module.update(own)
    put_reports(block, dict(zip(names, values, strict=True)))
    return y
