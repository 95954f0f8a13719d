"""SantaCoder and StarCoder."""

from typing import Any

from lmx_core.architectures.gpt import TINY
from lmx_core.architectures.gpt2 import gpt2_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_block, with_sizes

B1 = {"d_model": 2048, "n_heads": 16, "n_layers": 24}


@with_sizes(
    tiny=TINY,
    **{
        "santacoder": {**B1, "vocab_size": 49_280, "max_seq_len": 2048},
        "starcoderbase-1b": B1,
        "starcoderbase-3b": {"d_model": 2816, "n_heads": 22, "n_layers": 36},
        "starcoderbase-7b": {"d_model": 4096, "n_heads": 32, "n_layers": 42},
        "starcoder": {},
    },
)
@varies(
    gpt2_config,
    "scale_by_layer",
    vocab_size=49_152,
    d_model=6144,
    n_heads=48,
    n_layers=40,
    max_seq_len=8192,
)
def gpt_bigcode_config(*, n_kv_heads: int = 1, **gpt2: Any) -> ModelConfig:
    """StarCoder (arXiv:2305.06161) and SantaCoder (arXiv:2301.03988): GPT-2 with multi-query attention."""
    config = gpt2_config(**gpt2)
    return with_block(config, attention=config.block.attention.named("gqa"), n_kv_heads=n_kv_heads)
