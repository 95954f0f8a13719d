"""gpt-oss."""

from collections.abc import Sequence
from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import Kind, mixed, varies, with_attention, with_sizes
from lmx_ffn_moe.architectures.sparse import FEW, with_experts

YARN = spec("yarn", factor=32.0, original_max_seq_len=4096, truncate=False)
B120 = {"n_layers": 36, "n_experts": 128}


@with_sizes(
    tiny={**TINY, **FEW, "head_dim": 16, "d_ff": 32, "rope_scaling": None, "window": 8},
    **{"20b": {}, "120b": B120},
)
@varies(
    llama_config,
    "ffn_bias",
    vocab_size=201_088,
    d_model=2880,
    n_heads=64,
    head_dim=64,
    n_layers=24,
    d_ff=2880,
    max_seq_len=131_072,
    rope_theta=150_000.0,
    rope_scaling=YARN,
    attention_bias=True,
)
def gpt_oss_config(
    *,
    window: int | None = 128,
    pattern: Sequence[Kind] = ("sliding", "full"),
    n_experts: int = 32,
    top_k: int = 4,
    clamp: float | None = 7.0,
    **llama: Any,
) -> ModelConfig:
    """gpt-oss (arXiv:2508.10925): windows in every other layer, a sink in every head, biases everywhere.

    Experts are `down((up(x) + 1) * gate * sigmoid(1.702 gate))`, with `gate = gate(x)` of at most `clamp` and `up(x)`
    between plus and minus it; their weights are a softmax over the chosen ones.
    """
    config = mixed(with_attention(llama_config(**llama), sinks=True), window, pattern)
    return with_experts(
        config,
        n_experts=n_experts,
        top_k=top_k,
        router="topk_softmax",
        router_bias=True,
        activation="quick_gelu",
        bias=True,
        clamp=clamp,
        up_shift=1.0,
    )
