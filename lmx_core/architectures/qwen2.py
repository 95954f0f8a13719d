"""Qwen 2."""

from collections.abc import Sequence
from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import Kind, mixed, varies, with_attention, with_sizes

SHARED = {"vocab_size": 151_936, "tie_embeddings": True}
B05 = {**SHARED, "d_model": 896, "n_heads": 14, "n_kv_heads": 2, "n_layers": 24, "d_ff": 4864}
B15 = {**SHARED, "d_model": 1536, "n_heads": 12, "n_kv_heads": 2, "d_ff": 8960}
B3 = {**SHARED, "d_model": 2048, "n_heads": 16, "n_kv_heads": 2, "n_layers": 36, "d_ff": 11_008}
B14 = {"d_model": 5120, "n_heads": 40, "n_kv_heads": 8, "n_layers": 48, "d_ff": 13_824, "norm_eps": 1e-5}
B72 = {"d_model": 8192, "n_heads": 64, "n_kv_heads": 8, "n_layers": 80, "d_ff": 29_568, "norm_eps": 1e-5}


@with_sizes(
    tiny={**TINY, "window": 8, "pattern": ("full", "sliding")},
    **{
        "2-0.5b": B05,
        "2-1.5b": B15,
        "2-7b": {},
        "2-72b": B72,
        "2.5-0.5b": {**B05, "max_seq_len": 32_768},
        "2.5-1.5b": B15,
        "2.5-3b": {**B3, "max_seq_len": 32_768},
        "2.5-7b": {},
        "2.5-14b": B14,
        "2.5-32b": {**B14, "n_layers": 64, "d_ff": 27_648},
        "2.5-72b": B72,
    },
)
@varies(
    llama_config,
    *("attention_bias", "ffn_bias"),
    vocab_size=152_064,
    d_model=3584,
    n_heads=28,
    n_kv_heads=4,
    n_layers=28,
    d_ff=18_944,
    max_seq_len=131_072,
    rope_theta=1e6,
    norm_eps=1e-6,
)
def qwen2_config(*, window: int | None = None, pattern: Sequence[Kind] = ("sliding",), **llama: Any) -> ModelConfig:
    """Qwen 2 (arXiv:2407.10671) and Qwen 2.5 (arXiv:2412.15115): LLaMA with biases of queries, keys and values.

    With a `window`, the layers that `pattern` calls sliding have it.
    """
    return mixed(with_attention(llama_config(**llama), qkv_bias=True), window, pattern)
