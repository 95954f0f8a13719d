"""Phi."""

from typing import Any

import attrs

from lmx_core.architectures.gpt import TINY
from lmx_core.architectures.gpt_neox import gpt_neox_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_block, with_sizes


@with_sizes(
    tiny={**TINY, "n_kv_heads": 2},
    **{"1": {}, "1.5": {}, "2": {"d_model": 2560, "n_layers": 32, "rope_fraction": 0.4}},
)
@varies(
    gpt_neox_config,
    *("parallel", "attention_bias"),
    vocab_size=51_200,
    d_model=2048,
    n_heads=32,
    n_layers=24,
    rope_fraction=0.5,
)
def phi_config(*, n_kv_heads: int | None = None, qk_norm: bool = False, **neox: Any) -> ModelConfig:
    """Phi 1 and 1.5 (arXiv:2306.11644, arXiv:2309.05463) and 2: GPT with attention and FFN side by side, both reading one
    norm, a rope of half of each head, and biases everywhere, that of the head too. `qk_norm` is a layer norm."""
    attention = spec("gqa", qk_norm="layer_norm") if qk_norm else "gqa"
    config = with_block(gpt_neox_config(**neox), attention=attention, layout="parallel", n_kv_heads=n_kv_heads)
    return attrs.evolve(config, head_bias=True)
