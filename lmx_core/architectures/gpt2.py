"""GPT-2, as its checkpoints describe it."""

from typing import Any

import attrs

from lmx_core.architectures.gpt import LARGE, MEDIUM, TINY, XL, gpt_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_attention, with_sizes


@with_sizes(tiny=TINY, **{"124m": {}, "355m": MEDIUM, "774m": LARGE, "1.5b": XL})
@varies(gpt_config, *("position", "pre_norm"))
def gpt2_config(*, scale_attention: bool = True, scale_by_layer: bool = False, **gpt: Any) -> ModelConfig:
    """GPT-2 (Radford et al. 2019) with what its checkpoints may choose.

    `scale_attention=False` leaves out the factor `head_dim ** -0.5` of the scores; with `scale_by_layer` those of layer i,
    counted from 1, are divided by i.
    """
    config = with_attention(gpt_config(**gpt), scale=None if scale_attention else 1.0)
    if not scale_by_layer:
        return config
    scale = config.block.head_dim**-0.5 if scale_attention else 1.0
    blocks = [with_attention(config, scale=scale / i).block for i in range(1, config.n_layers + 1)]
    return attrs.evolve(config, block_configs=blocks)
