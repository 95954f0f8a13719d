"""Qwen 2 MoE."""

from collections.abc import Sequence
from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import Kind, mixed, varies, with_attention, with_sizes
from lmx_ffn_moe.architectures.sparse import FEW, FFN, with_experts

B57 = {
    "d_model": 3584,
    "n_heads": 28,
    "n_kv_heads": 4,
    "n_layers": 28,
    "d_ff": 18_944,
    "max_seq_len": 131_072,
    "n_experts": 64,
    "top_k": 8,
    "expert_d_ff": 2560,
    "shared_d_ff": 20_480,
}


@with_sizes(
    tiny={**TINY, **FEW, "expert_d_ff": 32, "shared_d_ff": 48, "ffns": ("sparse", "dense")},
    **{"1.5-a2.7b": {}, "2-57b-a14b": B57},
)
@varies(
    llama_config,
    *("attention_bias", "ffn_bias"),
    vocab_size=151_936,
    d_model=2048,
    n_heads=16,
    n_kv_heads=16,
    n_layers=24,
    d_ff=5632,
    max_seq_len=8192,
    rope_theta=1e6,
    norm_eps=1e-6,
)
def qwen2_moe_config(
    *,
    qkv_bias: bool = True,
    window: int | None = None,
    pattern: Sequence[Kind] = ("sliding",),
    ffns: Sequence[FFN] = ("sparse",),
    n_experts: int = 60,
    top_k: int = 4,
    expert_d_ff: int = 1408,
    renormalise: bool = False,
    shared_d_ff: int = 5632,
    **llama: Any,
) -> ModelConfig:
    """Qwen 1.5 MoE (Qwen 2024, "Matching 7B Model Performance with 1/3 Activated Parameters") and Qwen 2's
    (arXiv:2407.10671): Qwen 2 with many small experts, and a shared one behind a gate.

    `d_ff` is the width of the layers that `ffns` calls dense. With a `window`, those that `pattern` calls sliding have it.
    """
    config = with_attention(llama_config(**llama), qkv_bias=qkv_bias)
    return with_experts(
        mixed(config, window, pattern),
        ffns,
        n_experts=n_experts,
        top_k=top_k,
        d_ff=expert_d_ff,
        renormalise=renormalise,
        n_shared_experts=1,
        shared_d_ff=shared_d_ff,
        shared_gate=True,
    )
