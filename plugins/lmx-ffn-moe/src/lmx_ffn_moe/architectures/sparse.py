"""What sparse models have in common."""

from collections.abc import Sequence
from typing import Any, Literal

import attrs

from lmx_core.config import ModelConfig, spec
from lmx_core.errors import ConfigError
from lmx_core.factories import patterned

FFN = Literal["sparse", "dense"]
"""Of a layer, by whether its FFN is a mixture."""
FEW = {"n_experts": 4, "top_k": 2}
"""The experts of a tiny model."""


def with_experts(config: ModelConfig, ffns: Sequence[FFN] = ("sparse",), **options: Any) -> ModelConfig:
    """The model with a mixture in the layers that `ffns` calls sparse, in this order over and over; `options` are those
    of `ffn="moe"`."""
    if not ffns:
        raise ConfigError("ffns says of at least one layer whether it is sparse or dense, got none")
    moe = spec("moe", **options)
    kinds, order = config.blocks or {"": config.block}, config.block_pattern or [""]
    blocks = {_name(kind, "dense"): block for kind, block in kinds.items()}
    blocks |= {_name(kind, "sparse"): attrs.evolve(block, ffn=moe) for kind, block in kinds.items()}
    pattern = [_name(order[i % len(order)], ffns[i % len(ffns)]) for i in range(config.n_layers)]
    return patterned(attrs.evolve(config, blocks=None, block_pattern=None), pattern, **blocks)


def _name(kind: str, ffn: FFN) -> str:
    return f"{kind}_{ffn}" if kind else ffn
