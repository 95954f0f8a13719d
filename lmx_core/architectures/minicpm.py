"""MiniCPM."""

from typing import Any

import attrs

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_block, with_sizes

B1 = {"vocab_size": 73_440, "d_model": 1536, "n_heads": 24, "n_kv_heads": 8, "n_layers": 52, "d_ff": 3840}


@with_sizes(tiny={**TINY, "base_width": 16}, **{"1b": B1, "2b": {}})
@varies(
    llama_config,
    vocab_size=122_753,
    d_model=2304,
    n_heads=36,
    n_kv_heads=36,
    n_layers=40,
    d_ff=5760,
    tie_embeddings=True,
)
def minicpm_config(
    *, embedding_multiplier: float = 12.0, depth_scale: float = 1.4, base_width: int = 256, **llama: Any
) -> ModelConfig:
    """MiniCPM (arXiv:2404.06395): LLaMA whose learning rate suits every width and depth.

    Each sublayer adds `depth_scale / sqrt(n_layers)` of its output (`scale_depth`); logits are multiplied by
    `base_width / d_model` (`dim_model_base`), embeddings by `embedding_multiplier` (`scale_emb`).
    """
    config = llama_config(**llama)
    layout = spec("pre_norm", residual_multiplier=depth_scale / config.n_layers**0.5)
    multipliers = {
        "embedding_multiplier": embedding_multiplier,
        "logit_multiplier": base_width / config.block.d_model,
    }
    return attrs.evolve(with_block(config, layout=layout), **multipliers)
