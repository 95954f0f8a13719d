"""What its architectures have in common."""

from typing import Any

from lmx_core.config import ModelConfig, spec
from lmx_core.factories import with_block


def with_mla(config: ModelConfig, *, attention_bias: bool, **options: Any) -> ModelConfig:
    """The model with latent attention, whose `head_dim` is what a position is built for: the part that is turned."""
    biases = {"latent_bias": True, "o_bias": True} if attention_bias else {}
    given = {key: value for key, value in options.items() if value is not None}
    attention = spec("mla", **given, **biases, rope_head_dim=config.block.head_dim)
    return with_block(config, attention=attention)
