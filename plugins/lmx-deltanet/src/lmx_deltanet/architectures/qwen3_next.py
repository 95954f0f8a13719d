"""Qwen3-Next."""

from collections.abc import Sequence
from typing import Any

from lmx_core.architectures.llama import TINY as LLAMA_TINY
from lmx_core.architectures.llama import llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_attention, with_block, with_sizes
from lmx_deltanet.architectures.hybrid import FFN, ONE_TO_ONE, THREE_TO_ONE, Mixer, hybrid

HEADS = {"n_key_heads": 2, "n_value_heads": 4, "key_head_dim": 16, "value_head_dim": 16}
TINY = {**LLAMA_TINY, **HEADS, "pattern": ONE_TO_ONE, "head_dim": 16}


@with_sizes(tiny={**TINY, "n_experts": None}, **{"80b-a3b": {}})
@varies(
    llama_config,
    "ffn_bias",
    vocab_size=151_936,
    d_model=2048,
    n_heads=16,
    n_kv_heads=2,
    head_dim=256,
    n_layers=48,
    d_ff=5120,
    max_seq_len=262_144,
    rope_theta=1e7,
    norm_eps=1e-6,
)
def qwen3_next_config(
    *,
    pattern: Sequence[Mixer] = THREE_TO_ONE,
    n_key_heads: int = 16,
    n_value_heads: int = 32,
    key_head_dim: int = 128,
    value_head_dim: int = 128,
    conv_size: int = 4,
    rope_fraction: float = 0.25,
    ffns: Sequence[FFN] = ("sparse",),
    n_experts: int | None = 512,
    top_k: int = 10,
    expert_d_ff: int = 512,
    shared_d_ff: int = 512,
    renormalise: bool = True,
    **llama: Any,
) -> ModelConfig:
    """Qwen3-Next (Qwen 2025, "Towards Ultimate Training & Inference Efficiency"): gated DeltaNet, and in one of four layers
    attention with a gate, a norm of queries and keys, and a rope for a part of each head.

    Experts, with a shared one behind a gate, are `ffn = "moe"` of lmx-ffn-moe; `n_experts=None` gives every layer the
    dense FFN. The module that predicts further tokens is no part of it.
    """
    norm = spec("rms_norm", unit_offset=True)
    config = with_attention(llama_config(**llama), qk_norm=norm, output_gate=True)
    config = with_block(config, norm=norm, position=config.block.position.having(fraction=rope_fraction))
    delta = spec(
        "gated_deltanet",
        n_key_heads=n_key_heads,
        n_value_heads=n_value_heads,
        key_head_dim=key_head_dim,
        value_head_dim=value_head_dim,
        conv_size=conv_size,
    )
    if n_experts is None:
        return hybrid(config, pattern, delta)
    moe = spec(
        "moe",
        n_experts=n_experts,
        top_k=top_k,
        d_ff=expert_d_ff,
        renormalise=renormalise,
        n_shared_experts=1,
        shared_d_ff=shared_d_ff,
        shared_gate=True,
    )
    return hybrid(config, pattern, delta, ffns, moe)
