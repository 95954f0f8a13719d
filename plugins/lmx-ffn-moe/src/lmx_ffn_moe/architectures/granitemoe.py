"""Granite MoE."""

from typing import Any

from lmx_core.architectures.granite import granite_config
from lmx_core.architectures.llama import TINY
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_sizes
from lmx_ffn_moe.architectures.sparse import FEW, with_experts

B3 = {"d_model": 1536, "n_heads": 24, "n_layers": 32, "n_experts": 40}


@with_sizes(tiny={**TINY, **FEW, "d_ff": 32, "attention_scale": 1 / 16}, **{"3.0-1b-a400m": {}, "3.0-3b-a800m": B3})
@varies(
    granite_config,
    "ffn_bias",
    vocab_size=49_155,
    d_model=1024,
    n_heads=16,
    n_layers=24,
    d_ff=512,
    max_seq_len=4096,
    rope_theta=10_000.0,
    norm_eps=1e-6,
    attention_scale=1 / 64,
    logit_multiplier=1 / 6,
)
def granitemoe_config(*, n_experts: int = 32, top_k: int = 8, **granite: Any) -> ModelConfig:
    """Granite 3 MoE (IBM 2024, "Granite 3.0 Language Models"): Granite with small experts, weighted by a softmax over the
    chosen ones."""
    return with_experts(granite_config(**granite), n_experts=n_experts, top_k=top_k, router="topk_softmax")
