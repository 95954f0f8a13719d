"""Kimi Linear."""

from collections.abc import Sequence
from typing import Any

from lmx_core.architectures.llama import TINY as LLAMA_TINY
from lmx_core.architectures.llama import llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_block, with_sizes
from lmx_deltanet.architectures.hybrid import FFN, ONE_TO_ONE, THREE_TO_ONE, Mixer, hybrid

SMALL = {key: each for key, each in LLAMA_TINY.items() if key != "n_kv_heads"}
LATENT = {"kv_lora_rank": 32, "nope_head_dim": 16, "rope_head_dim": 8, "v_head_dim": 16}
EXPERTS = {"n_experts": 4, "top_k": 2, "expert_d_ff": 32}
PATTERN: tuple[Mixer, ...] = (*(6 * THREE_TO_ONE), "linear", "linear", "full")


@with_sizes(
    tiny={**SMALL, **LATENT, **EXPERTS, "pattern": ONE_TO_ONE, "n_linear_heads": 4, "linear_head_dim": 16},
    **{"48b-a3b": {}},
)
@varies(
    llama_config,
    *("n_kv_heads", "head_dim", "ffn_bias", "rope_theta", "rope_scaling"),
    vocab_size=163_840,
    d_model=2304,
    n_layers=27,
    d_ff=9216,
    max_seq_len=1_048_576,
)
def kimi_linear_config(
    *,
    n_heads: int = 32,
    pattern: Sequence[Mixer] = PATTERN,
    n_linear_heads: int = 32,
    linear_head_dim: int = 128,
    conv_size: int = 4,
    kv_lora_rank: int = 512,
    q_lora_rank: int | None = None,
    nope_head_dim: int = 128,
    rope_head_dim: int = 64,
    v_head_dim: int = 128,
    attention_bias: bool = False,
    n_dense_layers: int = 1,
    n_experts: int | None = 256,
    top_k: int = 8,
    expert_d_ff: int = 1024,
    n_shared_experts: int = 1,
    renormalise: bool = True,
    routed_scaling: float = 2.446,
    n_groups: int = 1,
    top_groups: int = 1,
    **llama: Any,
) -> ModelConfig:
    """Kimi Linear (arXiv:2510.26692): Kimi delta attention, and in one of four layers latent attention without a position.

    Latent attention is `attention = "mla"` of lmx-attn-mla, experts are `ffn = "moe"` of lmx-ffn-moe; `n_experts=None`
    gives every layer the dense FFN. `attention_bias` is that of latent attention.
    """
    mla = spec(
        "mla",
        kv_lora_rank=kv_lora_rank,
        q_lora_rank=q_lora_rank,
        nope_head_dim=nope_head_dim,
        rope_head_dim=rope_head_dim,
        v_head_dim=v_head_dim,
    )
    if attention_bias:
        mla = mla.having(latent_bias=True, o_bias=True)
    config = llama_config(n_heads=n_heads, n_kv_heads=n_heads, **llama)
    config = with_block(config, attention=mla, position="none")
    kda = spec(
        "kda",
        n_key_heads=n_linear_heads,
        n_value_heads=n_linear_heads,
        key_head_dim=linear_head_dim,
        value_head_dim=linear_head_dim,
        conv_size=conv_size,
    )
    if n_experts is None:
        return hybrid(config, pattern, kda)
    moe = spec(
        "moe",
        n_experts=n_experts,
        top_k=top_k,
        d_ff=expert_d_ff,
        router="sigmoid",
        renormalise=renormalise,
        routed_scaling=routed_scaling,
        n_groups=n_groups,
        top_groups=top_groups,
        group_score="top2",
        correction_bias=True,
        n_shared_experts=n_shared_experts,
    )
    ffns: list[FFN] = ["dense" if i < n_dense_layers else "sparse" for i in range(config.n_layers)]
    return hybrid(config, pattern, kda, ffns, moe)
