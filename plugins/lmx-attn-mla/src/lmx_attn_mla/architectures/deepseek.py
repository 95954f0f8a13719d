"""DeepSeek-V2."""

from typing import Any, Literal

import attrs

from lmx_attn_mla.architectures.latent import with_mla
from lmx_core.architectures.llama import TINY as LLAMA_TINY
from lmx_core.architectures.llama import llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import patterned, varies, with_block, with_sizes

HEADS = {"kv_lora_rank": 32, "q_lora_rank": 48, "nope_head_dim": 16, "rope_head_dim": 8, "v_head_dim": 16}
FEW = {"n_experts": 8, "top_k": 2, "expert_d_ff": 32, "n_groups": 4, "top_groups": 2, "routed_scaling": 1.0}
SMALL = {key: each for key, each in LLAMA_TINY.items() if key != "n_kv_heads"}
TINY = {**SMALL, **HEADS, **FEW, "n_shared_experts": 1, "n_dense_layers": 1, "rope_scaling": None}
FINE = {"n_experts": 64, "expert_d_ff": 1408, "n_groups": 1, "top_groups": 1, "routed_scaling": 1.0}
LITE = {**FINE, "d_model": 2048, "n_heads": 16, "n_layers": 27, "d_ff": 10_944, "q_lora_rank": None}


@with_sizes(tiny=TINY, **{"236b": {}, "lite-16b": LITE})
@varies(
    llama_config,
    *("n_kv_heads", "head_dim", "ffn_bias"),
    vocab_size=102_400,
    d_model=5120,
    n_layers=60,
    d_ff=12_288,
    max_seq_len=163_840,
    rope_scaling=spec("yarn", factor=40.0, original_max_seq_len=4096, mscale=0.707, mscale_all_dim=0.707),
    norm_eps=1e-6,
)
def deepseek_config(
    *,
    n_heads: int = 128,
    kv_lora_rank: int = 512,
    q_lora_rank: int | None = 1536,
    nope_head_dim: int = 128,
    rope_head_dim: int = 64,
    v_head_dim: int = 128,
    rope_interleaved: bool = True,
    attention_bias: bool = False,
    n_dense_layers: int = 1,
    n_experts: int | None = 160,
    top_k: int = 6,
    expert_d_ff: int = 1536,
    n_shared_experts: int = 2,
    router: Literal["softmax", "topk_softmax", "sigmoid"] = "softmax",
    renormalise: bool = False,
    routed_scaling: float = 16.0,
    n_groups: int = 8,
    top_groups: int = 3,
    group_score: Literal["max", "top2"] = "max",
    correction_bias: bool = False,
    **llama: Any,
) -> ModelConfig:
    """DeepSeek-V2 (arXiv:2405.04434): LLaMA with latent attention, and routed experts from layer `n_dense_layers` on.

    Experts are `ffn = "moe"` of lmx-ffn-moe; `n_experts=None` gives every layer the dense FFN. `attention_bias` is that of
    the maps to the latents and of the output.
    """
    config = with_mla(
        llama_config(n_heads=n_heads, n_kv_heads=n_heads, head_dim=rope_head_dim, **llama),
        kv_lora_rank=kv_lora_rank,
        q_lora_rank=q_lora_rank,
        nope_head_dim=nope_head_dim,
        v_head_dim=v_head_dim,
        attention_bias=attention_bias,
    )
    config = with_block(config, position=config.block.position.having(interleaved=rope_interleaved))
    if n_experts is None:
        return config
    moe = spec(
        "moe",
        n_experts=n_experts,
        top_k=top_k,
        d_ff=expert_d_ff,
        n_shared_experts=n_shared_experts,
        router=router,
        renormalise=renormalise,
        routed_scaling=routed_scaling,
        n_groups=n_groups,
        top_groups=top_groups,
        group_score=group_score,
        correction_bias=correction_bias,
    )
    pattern = ["dense" if i < n_dense_layers else "sparse" for i in range(config.n_layers)]
    return patterned(config, pattern, dense=config.block, sparse=attrs.evolve(config.block, ffn=moe))
