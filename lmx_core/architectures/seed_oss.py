"""Seed-OSS."""

from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_attention, with_sizes


@with_sizes(tiny={**TINY, "head_dim": 16}, **{"36b": {}})
@varies(
    llama_config,
    "attention_bias",
    vocab_size=155_136,
    d_model=5120,
    n_heads=80,
    head_dim=128,
    n_layers=64,
    d_ff=27_648,
    max_seq_len=524_288,
    rope_theta=1e7,
    norm_eps=1e-6,
)
def seed_oss_config(*, qkv_bias: bool = True, o_bias: bool = False, **llama: Any) -> ModelConfig:
    """Seed-OSS (ByteDance Seed 2025): LLaMA with biases of queries, keys and values, and heads wider than the model."""
    return with_attention(llama_config(**llama), qkv_bias=qkv_bias, o_bias=o_bias)
