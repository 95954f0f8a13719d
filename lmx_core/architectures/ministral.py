"""Ministral."""

from collections.abc import Sequence
from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import Kind, mixed, varies, with_sizes


@with_sizes(tiny={**TINY, "head_dim": 16, "n_layers": 4, "window": 8}, **{"8b": {}})
@varies(
    llama_config,
    vocab_size=131_072,
    head_dim=128,
    n_layers=36,
    d_ff=12_288,
    max_seq_len=32_768,
    rope_theta=1e8,
)
def ministral_config(
    *,
    window: int | None = 32_768,
    pattern: Sequence[Kind] = ("full", "sliding", "sliding", "sliding"),
    **llama: Any,
) -> ModelConfig:
    """Ministral 8B (Mistral AI 2024): LLaMA with a sliding window in three of four layers, the first of them without."""
    return mixed(llama_config(**llama), window, pattern)
