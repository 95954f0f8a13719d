"""GLM-4.5."""

from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_attention, with_block, with_sizes
from lmx_ffn_moe.architectures.sparse import FEW, with_experts

LARGE = {
    "d_model": 5120,
    "n_layers": 92,
    "d_ff": 12_288,
    "qk_norm": True,
    "n_dense_layers": 3,
    "n_experts": 160,
    "expert_d_ff": 1536,
    "routed_scaling": 2.5,
}


@with_sizes(tiny={**TINY, **FEW, "head_dim": 16, "expert_d_ff": 32}, **{"4.5": LARGE, "4.5-air": {}})
@varies(
    llama_config,
    *("attention_bias", "ffn_bias"),
    vocab_size=151_552,
    n_heads=96,
    head_dim=128,
    n_layers=46,
    d_ff=10_944,
    max_seq_len=131_072,
    rope_theta=1e6,
)
def glm4_moe_config(
    *,
    qkv_bias: bool = True,
    qk_norm: bool = False,
    rope_fraction: float = 0.5,
    n_dense_layers: int = 1,
    n_experts: int = 128,
    top_k: int = 8,
    expert_d_ff: int = 1408,
    n_shared_experts: int = 1,
    n_groups: int = 1,
    top_groups: int = 1,
    renormalise: bool = True,
    routed_scaling: float = 1.0,
    **llama: Any,
) -> ModelConfig:
    """GLM-4.5 (arXiv:2508.06471): biases of queries, keys and values, a rope of half of each head, and DeepSeek-V3's
    mixture (arXiv:2412.19437) in all but the first layers."""
    norm = "rms_norm" if qk_norm else None
    config = with_attention(llama_config(**llama), qkv_bias=qkv_bias, qk_norm=norm)
    config = with_block(config, position=config.block.position.having(fraction=rope_fraction))
    return with_experts(
        config,
        ["dense" if i < n_dense_layers else "sparse" for i in range(config.n_layers)],
        n_experts=n_experts,
        top_k=top_k,
        d_ff=expert_d_ff,
        router="sigmoid",
        correction_bias=True,
        n_groups=n_groups,
        top_groups=top_groups,
        group_score="top2",
        renormalise=renormalise,
        routed_scaling=routed_scaling,
        n_shared_experts=n_shared_experts,
    )
