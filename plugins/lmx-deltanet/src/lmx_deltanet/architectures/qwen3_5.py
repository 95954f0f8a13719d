"""Qwen 3.5."""

from typing import Any

from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_sizes
from lmx_deltanet.architectures.qwen3_next import TINY, qwen3_next_config

A3B = {"d_model": 2048, "n_kv_heads": 2, "n_layers": 40, "n_experts": 256}


@with_sizes(tiny=TINY, **{"9b": {}, "35b-a3b": A3B})
@varies(
    qwen3_next_config,
    vocab_size=248_320,
    d_model=4096,
    n_kv_heads=4,
    n_layers=32,
    d_ff=12_288,
    n_experts=None,
    top_k=8,
)
def qwen3_5_config(**qwen3_next: Any) -> ModelConfig:
    """The text part of Qwen 3.5 (Qwen 2026): Qwen3-Next, with experts or without."""
    return qwen3_next_config(**qwen3_next)
