"""DeepSeek-V3."""

from typing import Any

from lmx_attn_mla.architectures.deepseek import FINE, TINY, deepseek_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_sizes

KIMI = {"vocab_size": 163_840, "rope_theta": 50_000.0, "n_dense_layers": 1, "n_groups": 1, "top_groups": 1}
K2_YARN = spec("yarn", factor=32.0, original_max_seq_len=4096, beta_fast=1.0, mscale=1.0, mscale_all_dim=1.0)
K2_EXPERTS = {"n_experts": 384, "routed_scaling": 2.827}
MOONLIGHT = {"d_model": 2048, "n_heads": 16, "n_layers": 27, "d_ff": 11_264, "q_lora_rank": None, "norm_eps": 1e-5}
MOONLIGHT_EXPERTS = {**FINE, "top_k": 6, "n_shared_experts": 2, "routed_scaling": 2.446}


@with_sizes(
    tiny=TINY,
    **{
        "671b": {},
        "kimi-k2-1t": {**KIMI, **K2_EXPERTS, "n_heads": 64, "max_seq_len": 131_072, "rope_scaling": K2_YARN},
        "moonlight-16b": {**KIMI, **MOONLIGHT, **MOONLIGHT_EXPERTS, "max_seq_len": 8192, "rope_scaling": None},
    },
)
@varies(
    deepseek_config,
    vocab_size=129_280,
    d_model=7168,
    n_layers=61,
    d_ff=18_432,
    rope_scaling=spec("yarn", factor=40.0, original_max_seq_len=4096, mscale=1.0, mscale_all_dim=1.0),
    n_dense_layers=3,
    n_experts=256,
    top_k=8,
    expert_d_ff=2048,
    n_shared_experts=1,
    router="sigmoid",
    renormalise=True,
    routed_scaling=2.5,
    top_groups=4,
    group_score="top2",
    correction_bias=True,
)
def deepseek_v3_config(**deepseek: Any) -> ModelConfig:
    """DeepSeek-V3 (arXiv:2412.19437): DeepSeek-V2 whose experts are chosen by sigmoids, balanced by a bias without a loss.

    Kimi K2 (arXiv:2507.20534) and Moonlight (arXiv:2502.16982) are of this architecture. The modules that predict further
    tokens are no part of it.
    """
    return deepseek_config(**deepseek)
