"""Mistral."""

from typing import Any

import attrs

from lmx_core.architectures.llama import llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_sizes


@with_sizes(
    tiny={**llama_config.sizes["tiny"], "window": 8},  # pyright: ignore[reportFunctionMemberAccess]
    **{"7b": {}},
)
@varies(llama_config, d_ff=14_336, max_seq_len=32_768)
def mistral_config(*, window: int | None = 4096, **llama: Any) -> ModelConfig:
    """Mistral 7B (arXiv:2310.06825): LLaMA with a sliding window."""
    return windowed(llama_config(**llama), window)


def windowed(config: ModelConfig, window: int | None) -> ModelConfig:
    """The model with a sliding window in every layer, or as it is."""
    if window is None:
        return config
    attention = config.block.attention.named("sliding_window", window=window)
    return attrs.evolve(config, block=attrs.evolve(config.block, attention=attention))
