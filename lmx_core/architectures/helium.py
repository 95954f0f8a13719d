"""Helium."""

from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_attention, with_block, with_sizes


@with_sizes(tiny=TINY, **{"1-preview-2b": {}})
@varies(
    llama_config,
    "attention_bias",
    vocab_size=48_000,
    d_model=2560,
    n_heads=20,
    n_kv_heads=20,
    n_layers=24,
    d_ff=7040,
    rope_theta=100_000.0,
    norm_eps=1e-8,
)
def helium_config(*, qkv_bias: bool = False, **llama: Any) -> ModelConfig:
    """Helium 1, preview (Kyutai 2025): LLaMA with a rope that turns pairs of neighbours."""
    config = with_attention(llama_config(**llama), qkv_bias=qkv_bias)
    return with_block(config, position=config.block.position.having(interleaved=True))
