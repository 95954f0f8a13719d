"""Gemma 2."""

from collections.abc import Sequence
from typing import Any

import attrs

from lmx_core.architectures.gemma import gemma_config
from lmx_core.architectures.llama import TINY
from lmx_core.config import ModelConfig
from lmx_core.factories import Kind, mixed, varies, with_attention, with_block, with_sizes

B27 = {"d_model": 4608, "n_heads": 32, "n_kv_heads": 16, "head_dim": 128, "n_layers": 46, "d_ff": 36_864}


@with_sizes(
    tiny={**TINY, "head_dim": 16, "window": 8},
    **{
        "2b": {"d_model": 2304, "n_heads": 8, "n_kv_heads": 4, "n_layers": 26, "d_ff": 9216},
        "9b": {},
        "27b": {**B27, "attention_scale": 144**-0.5},
    },
)
@varies(gemma_config, d_model=3584, n_heads=16, n_kv_heads=8, n_layers=42, d_ff=14_336)
def gemma2_config(
    *,
    attention_scale: float | None = None,
    softcap: float | None = 50.0,
    logit_softcap: float | None = 30.0,
    window: int | None = 4096,
    pattern: Sequence[Kind] = ("sliding", "full"),
    **gemma: Any,
) -> ModelConfig:
    """Gemma 2 (arXiv:2408.00118): Gemma with norms before and after each sublayer, capped scores and logits, and a
    sliding window in every other layer. The largest scales scores by `(d_model / n_heads) ** -0.5`."""
    config = with_block(gemma_config(**gemma), layout="sandwich")
    config = with_attention(config, scale=attention_scale, softcap=softcap)
    return attrs.evolve(mixed(config, window, pattern), logit_softcap=logit_softcap)
