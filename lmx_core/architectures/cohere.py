"""Command R."""

from typing import Any

import attrs

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_attention, with_block, with_sizes

PLUS = {"d_model": 12_288, "n_heads": 96, "n_kv_heads": 8, "n_layers": 64, "d_ff": 33_792, "rope_theta": 75e6}
AYA = {"d_model": 4096, "n_heads": 32, "n_kv_heads": 8, "n_layers": 32, "d_ff": 14_336, "max_seq_len": 8192}


@with_sizes(
    tiny={**TINY, "qk_norm": True},
    **{
        "command-r-35b": {},
        "command-r-plus-104b": {**PLUS, "qk_norm": True, "logit_multiplier": 5 / 6},
        "aya-23-8b": {**AYA, "rope_theta": 10_000.0},
    },
)
@varies(
    llama_config,
    "ffn_bias",
    vocab_size=256_000,
    d_model=8192,
    n_heads=64,
    n_kv_heads=64,
    n_layers=40,
    d_ff=22_528,
    max_seq_len=131_072,
    rope_theta=8e6,
    tie_embeddings=True,
)
def cohere_config(*, qk_norm: bool = False, logit_multiplier: float = 1 / 16, **llama: Any) -> ModelConfig:
    """Command R (Cohere 2024) and Aya 23 (arXiv:2405.15032): LLaMA with attention and FFN side by side, layer norms
    without biases, pairs of neighbours in its rope, and scaled logits. `qk_norm` gives each head weights of its own."""
    norm = spec("layer_norm", bias=False)
    config = llama_config(**llama)
    position = config.block.position.having(interleaved=True)
    config = with_block(config, layout="parallel", norm=norm, position=position)
    if qk_norm:
        config = with_attention(config, qk_norm=norm.having(weight=False), qk_norm_over="each_head")
    return attrs.evolve(config, logit_multiplier=logit_multiplier)
