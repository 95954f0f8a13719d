"""GPT-J."""

from typing import Any

import attrs

from lmx_core.architectures.gpt import TINY
from lmx_core.architectures.gpt_neox import gpt_neox_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_block, with_sizes


@with_sizes(tiny=TINY, **{"6b": {}})
@varies(
    gpt_neox_config,
    *("parallel", "attention_bias"),
    vocab_size=50_400,
    d_model=4096,
    n_heads=16,
    n_layers=28,
)
def gptj_config(**neox: Any) -> ModelConfig:
    """GPT-J (Wang and Komatsuzaki 2021): GPT with attention and FFN side by side, both reading one norm, and a rope of
    part of each head, which turns pairs of neighbours. Attention has no bias, the head has one."""
    config = gpt_neox_config(attention_bias=False, **neox)
    config = with_block(config, position=config.block.position.having(interleaved=True), layout="parallel")
    return attrs.evolve(config, head_bias=True)
