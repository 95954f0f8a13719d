"""MPT."""

from typing import Any

from lmx_core.architectures.gpt import TINY, gpt_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_attention, with_block, with_sizes


@with_sizes(
    tiny={**TINY, "d_model": 48, "n_heads": 6},
    **{"7b": {}, "30b": {"d_model": 7168, "n_heads": 64, "n_layers": 48, "max_seq_len": 8192}},
)
@varies(
    gpt_config,
    *("position", "pre_norm"),
    vocab_size=50_432,
    d_model=4096,
    n_heads=32,
    n_layers=32,
    max_seq_len=2048,
    activation="gelu",
)
def mpt_config(*, attention_scale: float | None = None, clip: float | None = None, **gpt: Any) -> ModelConfig:
    """MPT (MosaicML 2023): GPT with ALiBi and without biases, whose queries, keys and values may be clamped to plus and
    minus `clip`."""
    config = with_attention(gpt_config(**gpt), scale=attention_scale, clip=clip)
    return with_block(config, position=spec("alibi", from_above=True), bias=False)
