"""GPT-Neo."""

from collections.abc import Sequence
from typing import Any

from lmx_core.architectures.gpt import TINY, gpt_config
from lmx_core.config import ModelConfig
from lmx_core.factories import Kind, mixed, varies, with_attention, with_sizes


@with_sizes(
    tiny={**TINY, "window": 8},
    **{
        "125m": {"d_model": 768, "n_heads": 12, "n_layers": 12},
        "1.3b": {},
        "2.7b": {"d_model": 2560, "n_heads": 20, "n_layers": 32},
    },
)
@varies(gpt_config, *("position", "pre_norm"), d_model=2048, n_heads=16, n_layers=24, max_seq_len=2048)
def gpt_neo_config(
    *, window: int | None = 256, pattern: Sequence[Kind] = ("full", "sliding"), **gpt: Any
) -> ModelConfig:
    """GPT-Neo (Black et al. 2021): GPT with a sliding window in every other layer, scores without a factor, and no bias of
    queries, keys and values."""
    return mixed(with_attention(gpt_config(**gpt), scale=1.0, qkv_bias=False), window, pattern)
