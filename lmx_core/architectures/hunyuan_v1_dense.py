"""Hunyuan, dense."""

from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_attention, with_sizes

B05 = {"d_model": 1024, "n_heads": 16, "n_layers": 24, "d_ff": 3584}
B18 = {"d_model": 2048, "n_heads": 16, "n_kv_heads": 4, "d_ff": 6144}
B7 = {"vocab_size": 128_167, "d_ff": 14_336, "max_seq_len": 32_768}


@with_sizes(
    tiny={**TINY, "head_dim": 16, "rope_scaling": spec("dynamic", alpha=50.0)},
    **{"0.5b": B05, "1.8b": B18, "4b": {"d_model": 3072, "n_layers": 36, "d_ff": 8192}, "7b": B7},
)
@varies(
    llama_config,
    "ffn_bias",
    vocab_size=120_818,
    head_dim=128,
    max_seq_len=262_144,
    rope_scaling=spec("dynamic", alpha=1000.0),
    tie_embeddings=True,
)
def hunyuan_v1_dense_config(**llama: Any) -> ModelConfig:
    """Hunyuan's dense models (Tencent 2025): LLaMA with queries and keys that are normalised after they are turned, and a
    rope whose base is made larger once for all lengths."""
    return with_attention(llama_config(**llama), qk_norm="rms_norm", qk_norm_after_position=True)
