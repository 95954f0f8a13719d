"""MiniMax-M2."""

from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_attention, with_block, with_sizes
from lmx_ffn_moe.architectures.sparse import FEW, with_experts


@with_sizes(tiny={**TINY, **FEW, "d_ff": 32}, m2={})
@varies(
    llama_config,
    *("attention_bias", "ffn_bias"),
    vocab_size=200_064,
    d_model=3072,
    n_heads=48,
    head_dim=128,
    n_layers=62,
    d_ff=1536,
    max_seq_len=196_608,
    rope_theta=5e6,
    norm_eps=1e-6,
)
def minimax_m2_config(*, rope_fraction: float = 0.5, n_experts: int = 256, top_k: int = 8, **llama: Any) -> ModelConfig:
    """MiniMax-M2 (MiniMax 2025): a rope of half of each head, norms of queries and keys that take all heads as one vector,
    and experts chosen by sigmoids with a correction (arXiv:2412.19437)."""
    config = with_attention(llama_config(**llama), qk_norm="rms_norm", qk_norm_over="all_heads")
    config = with_block(config, position=config.block.position.having(fraction=rope_fraction))
    return with_experts(
        config,
        n_experts=n_experts,
        top_k=top_k,
        router="sigmoid",
        correction_bias=True,
        renormalise=True,
    )
