"""GLM-4."""

from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_attention, with_block, with_sizes


@with_sizes(tiny={**TINY, "head_dim": 16}, **{"4-9b": {}})
@varies(
    llama_config,
    *("attention_bias", "ffn_bias"),
    vocab_size=151_552,
    n_kv_heads=2,
    head_dim=128,
    n_layers=40,
    d_ff=13_696,
    max_seq_len=131_072,
    rope_theta=5e6,
    norm_eps=1.5625e-7,
)
def glm_config(*, qkv_bias: bool = True, rope_fraction: float = 0.5, **llama: Any) -> ModelConfig:
    """GLM-4 (arXiv:2406.12793): LLaMA with biases of queries, keys and values, and a rope of half of each head, which
    turns pairs of neighbours."""
    config = with_attention(llama_config(**llama), qkv_bias=qkv_bias)
    position = config.block.position.having(fraction=rope_fraction, interleaved=True)
    return with_block(config, position=position)
