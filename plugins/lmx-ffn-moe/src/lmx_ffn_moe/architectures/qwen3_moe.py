"""Qwen 3 MoE."""

from collections.abc import Sequence
from typing import Any

from lmx_core.architectures.llama import TINY
from lmx_core.architectures.qwen3 import qwen3_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_sizes
from lmx_ffn_moe.architectures.sparse import FEW, FFN, with_experts

B235 = {"d_model": 4096, "n_heads": 64, "n_layers": 94, "d_ff": 12_288, "expert_d_ff": 1536}
CODER = {
    "d_model": 6144,
    "n_heads": 96,
    "n_kv_heads": 8,
    "n_layers": 62,
    "d_ff": 8192,
    "max_seq_len": 262_144,
    "rope_theta": 1e7,
    "n_experts": 160,
    "expert_d_ff": 2560,
}


@with_sizes(
    tiny={**TINY, **FEW, "head_dim": 16, "expert_d_ff": 32},
    **{"30b-a3b": {}, "235b-a22b": B235, "coder-480b-a35b": CODER},
)
@varies(qwen3_config, d_model=2048, n_kv_heads=4, n_layers=48, d_ff=6144)
def qwen3_moe_config(
    *,
    ffns: Sequence[FFN] = ("sparse",),
    n_experts: int = 128,
    top_k: int = 8,
    expert_d_ff: int = 768,
    renormalise: bool = True,
    **qwen3: Any,
) -> ModelConfig:
    """Qwen 3 MoE (arXiv:2505.09388): Qwen 3 with many small experts and no shared one.

    `d_ff` is the width of the layers that `ffns` calls dense.
    """
    config = qwen3_config(**qwen3)
    return with_experts(config, ffns, n_experts=n_experts, top_k=top_k, d_ff=expert_d_ff, renormalise=renormalise)
