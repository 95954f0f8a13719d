"""Llama 4."""

from collections.abc import Sequence
from typing import Any, Literal

import attrs

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import patterned, varies, with_attention, with_sizes
from lmx_ffn_moe.architectures.sparse import FFN, with_experts

SCOUT = spec("llama3", factor=16.0, low_freq_factor=1.0, high_freq_factor=1.0)
MAVERICK = {"n_experts": 128, "ffns": ("dense", "sparse"), "qk_norm": False, "max_seq_len": 1_048_576}


@with_sizes(
    tiny={**TINY, "n_layers": 4, "chunk_size": 16, "n_experts": 4, "expert_d_ff": 32, "ffns": ("dense", "sparse")},
    **{"scout-17b-16e": {"max_seq_len": 10_485_760, "rope_scaling": SCOUT}, "maverick-17b-128e": MAVERICK},
)
@varies(
    llama_config,
    "ffn_bias",
    vocab_size=202_048,
    d_model=5120,
    n_heads=40,
    head_dim=128,
    n_layers=48,
    d_ff=16_384,
    max_seq_len=131_072,
    rope_theta=500_000.0,
)
def llama4_config(
    *,
    chunk_size: int = 8192,
    pattern: Sequence[Literal["rope", "nope"]] = ("rope", "rope", "rope", "nope"),
    qk_norm: bool = True,
    query_growth: float = 0.1,
    query_growth_every: int = 8192,
    ffns: Sequence[FFN] = ("sparse",),
    n_experts: int = 16,
    top_k: int = 1,
    expert_d_ff: int = 8192,
    **llama: Any,
) -> ModelConfig:
    """The language model of Llama 4 (Meta 2025): chunks with a rope of neighbours, and every fourth layer without position
    over all of the text, in which queries far on are made larger (arXiv:2501.19399).

    Experts work on `sigmoid(logit) * x`, beside a shared one. `d_ff` is the width of the layers that `ffns` calls dense.
    """
    config = llama_config(**llama)
    position = config.block.position.having(interleaved=True)
    chunked = config.block.attention.named("chunked", chunk_size=chunk_size)
    if qk_norm:
        chunked = chunked.having(qk_norm=spec("rms_norm", weight=False), qk_norm_after_position=True)
    growth = {"query_growth": query_growth, "query_growth_every": query_growth_every, "query_growth_shift": 1}
    grown = with_attention(config, **growth) if query_growth else config
    rope = attrs.evolve(config.block, attention=chunked, position=position)
    nope = attrs.evolve(grown.block, position="none")
    return with_experts(
        patterned(config, pattern, rope=rope, nope=nope),
        ffns,
        n_experts=n_experts,
        top_k=top_k,
        d_ff=expert_d_ff,
        router="sigmoid",
        renormalise=False,
        weigh="input",
        n_shared_experts=1,
    )
