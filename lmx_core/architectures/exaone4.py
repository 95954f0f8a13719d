"""EXAONE 4."""

from collections.abc import Sequence
from typing import Any

import attrs

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import Kind, patterned, varies, windowed, with_attention, with_block, with_sizes

B12 = {"d_model": 2048, "n_heads": 32, "n_layers": 30, "d_ff": 4096, "max_seq_len": 65_536, "tie_embeddings": True}


@with_sizes(
    tiny={**TINY, "n_layers": 4, "rope_scaling": None, "window": 8},
    **{"1.2b": {**B12, "window": None}, "32b": {}},
)
@varies(
    llama_config,
    *("attention_bias", "ffn_bias"),
    vocab_size=102_400,
    d_model=5120,
    n_heads=40,
    n_layers=64,
    d_ff=27_392,
    max_seq_len=131_072,
    rope_theta=1e6,
    rope_scaling=spec("llama3", factor=16.0),
)
def exaone4_config(
    *,
    window: int | None = 4096,
    pattern: Sequence[Kind] = ("sliding", "sliding", "sliding", "full"),
    **llama: Any,
) -> ModelConfig:
    """EXAONE 4 (arXiv:2507.11407): LLaMA with norms after each sublayer, not before it, and of queries and keys.

    Where there is a `window`, layers without it have no position either.
    """
    config = with_block(llama_config(**llama), layout="output_norm")
    config = with_attention(config, qk_norm="rms_norm")
    if window is None:
        return config
    full = attrs.evolve(config.block, position="none")
    return patterned(config, pattern, full=full, sliding=windowed(config, window).block)
