"""OLMo 3."""

from collections.abc import Sequence
from typing import Any

from lmx_core.architectures.llama import TINY
from lmx_core.architectures.olmo2 import B32, olmo2_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import Kind, mixed, varies, with_sizes


@with_sizes(
    tiny={
        **TINY,
        "n_layers": 4,
        "rope_scaling": spec("yarn", factor=4.0, original_max_seq_len=64),
        "window": 8,
    },
    **{"7b": {}, "32b": B32},
)
@varies(
    olmo2_config,
    vocab_size=100_278,
    max_seq_len=65_536,
    rope_scaling=spec("yarn", factor=8.0, original_max_seq_len=8192),
)
def olmo3_config(
    *,
    window: int | None = 4096,
    pattern: Sequence[Kind] = ("sliding", "sliding", "sliding", "full"),
    local_rope_theta: float = 500_000.0,
    **olmo2: Any,
) -> ModelConfig:
    """OLMo 3 (arXiv:2512.13961): OLMo 2 with a sliding window in three of four layers, whose rope is not scaled.

    `rope_theta` and `rope_scaling` are those of the others.
    """
    return mixed(olmo2_config(**olmo2), window, pattern, position="rope", rope_theta=local_rope_theta)
