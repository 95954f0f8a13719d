"""Gemma."""

from typing import Any

import attrs

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_block, with_sizes

B2 = {"d_model": 2048, "n_heads": 8, "n_kv_heads": 1, "n_layers": 18, "d_ff": 16_384}


@with_sizes(tiny={**TINY, "n_kv_heads": 1, "head_dim": 32}, **{"2b": B2, "7b": {}})
@varies(
    llama_config,
    "ffn_bias",
    vocab_size=256_000,
    d_model=3072,
    n_heads=16,
    n_kv_heads=16,
    head_dim=256,
    n_layers=28,
    d_ff=24_576,
    max_seq_len=8192,
    norm_eps=1e-6,
    tie_embeddings=True,
)
def gemma_config(*, activation: str = "gelu_tanh", **llama: Any) -> ModelConfig:
    """Gemma (arXiv:2403.08295): LLaMA with GeGLU, norms weighted by 1 + weight, and embeddings times sqrt(d_model)."""
    config = llama_config(**llama)
    norm, ffn = spec("rms_norm", unit_offset=True), spec("gated", activation=activation)
    return attrs.evolve(with_block(config, norm=norm, ffn=ffn), embedding_multiplier=config.block.d_model**0.5)
