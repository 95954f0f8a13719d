"""Granite."""

from typing import Any

import attrs

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_attention, with_block, with_sizes

B2 = {"d_model": 2048, "d_ff": 8192, "attention_scale": 1 / 64, "logit_multiplier": 1 / 8}
V30 = {"vocab_size": 49_155, "max_seq_len": 4096, "rope_theta": 10_000.0}
V31 = {"vocab_size": 49_155}


@with_sizes(
    tiny={**TINY, "attention_scale": 1 / 16},
    **{
        "3.0-2b": {**B2, **V30},
        "3.0-8b": V30,
        "3.1-2b": {**B2, **V31, "rope_theta": 5e6},
        "3.1-8b": V31,
        "3.3-2b": B2,
        "3.3-8b": {},
    },
)
@varies(
    llama_config,
    vocab_size=49_159,
    n_layers=40,
    d_ff=12_800,
    max_seq_len=131_072,
    rope_theta=1e7,
    tie_embeddings=True,
)
def granite_config(
    *,
    embedding_multiplier: float = 12.0,
    residual_multiplier: float = 0.22,
    attention_scale: float | None = 1 / 128,
    logit_multiplier: float = 1 / 16,
    **llama: Any,
) -> ModelConfig:
    """Granite 3 (IBM 2024, "Granite 3.0 Language Models"): LLaMA with the multipliers of a maximal-update transfer.

    Scores are multiplied by `attention_scale`, not by `head_dim ** -0.5`; a checkpoint states 1 / `logit_multiplier`.
    """
    config = with_attention(llama_config(**llama), scale=attention_scale)
    config = with_block(config, layout=spec("pre_norm", residual_multiplier=residual_multiplier))
    return attrs.evolve(config, embedding_multiplier=embedding_multiplier, logit_multiplier=logit_multiplier)
