"""Ministral 3."""

from typing import Any

from lmx_core.architectures.llama import TINY
from lmx_core.architectures.mistral import mistral_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_attention, with_sizes

LONG = {"mscale": 1.0, "mscale_all_dim": 1.0}


@with_sizes(
    tiny={
        **TINY,
        "head_dim": 16,
        "rope_scaling": spec("yarn", factor=4.0, original_max_seq_len=64, **LONG),
        "query_growth_every": 64,
    },
    **{
        "3b": {"d_model": 3072, "n_layers": 26, "d_ff": 9216, "tie_embeddings": True},
        "8b": {},
        "14b": {"d_model": 5120, "n_layers": 40, "d_ff": 16_384, "rope_theta": 1e9},
    },
)
@varies(
    mistral_config,
    vocab_size=131_072,
    head_dim=128,
    n_layers=34,
    max_seq_len=262_144,
    rope_theta=1e6,
    rope_scaling=spec("yarn", factor=16.0, original_max_seq_len=16_384, **LONG),
    window=None,
)
def ministral3_config(*, query_growth: float = 0.1, query_growth_every: int = 16_384, **mistral: Any) -> ModelConfig:
    """Ministral 3 (arXiv:2601.08584): LLaMA with YaRN, and queries that grow with the position.

    By `1 + query_growth * ln(1 + floor(position / query_growth_every))`, as in Llama 4.
    """
    return with_attention(mistral_config(**mistral), query_growth=query_growth, query_growth_every=query_growth_every)
