"""Mixtral."""

from typing import Any

from lmx_core.architectures.llama import TINY
from lmx_core.architectures.mistral import mistral_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_sizes
from lmx_ffn_moe.architectures.sparse import FEW, with_experts

B22 = {"d_model": 6144, "n_heads": 48, "n_layers": 56, "d_ff": 16_384, "max_seq_len": 65_536}


@with_sizes(tiny={**TINY, **FEW}, **{"8x7b": {}, "8x22b": B22})
@varies(mistral_config, "attention_bias", "ffn_bias", rope_theta=1e6, window=None)
def mixtral_config(*, n_experts: int = 8, top_k: int = 2, **mistral: Any) -> ModelConfig:
    """Mixtral (arXiv:2401.04088): Mistral with eight FFNs in each layer, of which a token takes the two most probable."""
    return with_experts(mistral_config(**mistral), n_experts=n_experts, top_k=top_k, renormalise=True)
