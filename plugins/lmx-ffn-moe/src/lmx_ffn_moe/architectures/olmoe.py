"""OLMoE."""

from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_attention, with_sizes
from lmx_ffn_moe.architectures.sparse import FEW, with_experts


@with_sizes(tiny={**TINY, **FEW, "d_ff": 32}, **{"1b-7b": {}})
@varies(llama_config, "ffn_bias", vocab_size=50_304, d_model=2048, n_heads=16, n_kv_heads=16, n_layers=16, d_ff=1024)
def olmoe_config(
    *, clip: float | None = None, n_experts: int = 64, top_k: int = 8, renormalise: bool = False, **llama: Any
) -> ModelConfig:
    """OLMoE (arXiv:2409.02060): LLaMA with 64 small experts, and norms of queries and keys that take all heads as one
    vector. Queries, keys and values may be clamped to `clip`."""
    config = with_attention(llama_config(**llama), qk_norm="rms_norm", qk_norm_over="all_heads", clip=clip)
    return with_experts(config, n_experts=n_experts, top_k=top_k, renormalise=renormalise)
