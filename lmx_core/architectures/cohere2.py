"""Command R7B and Command A."""

from collections.abc import Sequence
from typing import Any

import attrs

from lmx_core.architectures.cohere import cohere_config
from lmx_core.architectures.llama import TINY
from lmx_core.config import ModelConfig
from lmx_core.factories import Kind, patterned, varies, windowed, with_sizes

A = {"d_model": 12_288, "n_heads": 96, "n_layers": 64, "d_ff": 36_864, "max_seq_len": 131_072}


@with_sizes(
    tiny={**TINY, "n_layers": 4, "window": 8},
    **{"command-r7b": {}, "command-a-111b": A},
)
@varies(
    cohere_config,
    "qk_norm",
    d_model=4096,
    n_heads=32,
    n_kv_heads=8,
    n_layers=32,
    d_ff=14_336,
    max_seq_len=132_096,
    rope_theta=50_000.0,
    logit_multiplier=1 / 4,
)
def cohere2_config(
    *,
    window: int | None = 4096,
    pattern: Sequence[Kind] = ("sliding", "sliding", "sliding", "full"),
    **cohere: Any,
) -> ModelConfig:
    """Command A (arXiv:2504.00698) and Command R7B: Command R with three layers that have a window and rope to one that
    has neither (arXiv:2501.18795)."""
    config = cohere_config(**cohere)
    full = attrs.evolve(config.block, position="none")
    return patterned(config, pattern, full=full, sliding=windowed(config, window).block)
