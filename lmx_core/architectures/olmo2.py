"""OLMo 2."""

from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_attention, with_block, with_sizes

B32 = {"d_model": 5120, "n_heads": 40, "n_kv_heads": 8, "n_layers": 64, "d_ff": 27_648}


@with_sizes(
    tiny=TINY,
    **{
        "1b": {"d_model": 2048, "n_heads": 16, "n_kv_heads": 16, "n_layers": 16, "d_ff": 8192},
        "7b": {},
        "13b": {"d_model": 5120, "n_heads": 40, "n_kv_heads": 40, "n_layers": 40, "d_ff": 13_824},
        "32b": B32,
    },
)
@varies(llama_config, "ffn_bias", vocab_size=100_352, n_kv_heads=32, rope_theta=500_000.0, norm_eps=1e-6)
def olmo2_config(**llama: Any) -> ModelConfig:
    """OLMo 2 (arXiv:2501.00656): LLaMA with norms after each sublayer, not before it, and of queries and keys; the latter
    take all heads as one vector."""
    config = with_block(llama_config(**llama), layout="output_norm")
    return with_attention(config, qk_norm="rms_norm", qk_norm_over="all_heads")
