"""Apertus."""

from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_attention, with_block, with_sizes

B70 = {"d_model": 8192, "n_heads": 64, "n_layers": 80, "d_ff": 43_008}


@with_sizes(
    tiny={**TINY, "rope_scaling": spec("llama3", factor=4.0, original_max_seq_len=64)},
    **{"8b": {}, "70b": B70},
)
@varies(
    llama_config,
    "ffn_bias",
    vocab_size=131_072,
    d_ff=21_504,
    max_seq_len=65_536,
    rope_theta=12e6,
    rope_scaling=spec("llama3", factor=8.0),
)
def apertus_config(*, activation: str = "xielu", **llama: Any) -> ModelConfig:
    """Apertus (arXiv:2509.14233): LLaMA with normalised queries and keys, and an FFN without a gate whose activation is
    trained, xIELU."""
    config = with_block(llama_config(**llama), ffn=spec("standard", activation=activation))
    return with_attention(config, qk_norm="rms_norm")
