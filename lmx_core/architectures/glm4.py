"""GLM-4-0414."""

from typing import Any

from lmx_core.architectures.glm import glm_config
from lmx_core.architectures.llama import TINY
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_block, with_sizes

B32 = {"d_model": 6144, "n_heads": 48, "n_layers": 61, "d_ff": 23_040, "qkv_bias": False}


@with_sizes(tiny={**TINY, "head_dim": 16}, **{"9b-0414": {}, "32b-0414": B32})
@varies(glm_config, max_seq_len=32_768, norm_eps=1e-5, rope_theta=10_000.0)
def glm4_config(**glm: Any) -> ModelConfig:
    """GLM-4-0414 (Zhipu AI 2025): GLM-4 (arXiv:2406.12793) with norms before and after each sublayer."""
    return with_block(glm_config(**glm), layout="sandwich")
