"""DBRX."""

from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_attention, with_block, with_sizes
from lmx_ffn_moe.architectures.sparse import FEW, with_experts


@with_sizes(tiny={**TINY, **FEW, "d_ff": 32}, **{"132b": {}})
@varies(
    llama_config,
    *("attention_bias", "ffn_bias"),
    vocab_size=100_352,
    d_model=6144,
    n_heads=48,
    n_layers=40,
    d_ff=10_752,
    max_seq_len=32_768,
    rope_theta=500_000.0,
)
def dbrx_config(
    *, clip: float | None = 8.0, n_experts: int = 16, top_k: int = 4, renormalise: bool = True, **llama: Any
) -> ModelConfig:
    """DBRX (Databricks 2024, "Introducing DBRX"): LLaMA with layer norms that have no bias, clamped queries, keys and
    values, and sixteen experts."""
    config = with_block(with_attention(llama_config(**llama), clip=clip), norm="layer_norm")
    return with_experts(config, n_experts=n_experts, top_k=top_k, renormalise=renormalise)
