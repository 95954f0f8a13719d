"""Qwen 3."""

from collections.abc import Sequence
from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import Kind, mixed, varies, with_attention, with_sizes

SMALL = {"n_heads": 16, "n_layers": 28, "tie_embeddings": True}


@with_sizes(
    tiny={**TINY, "head_dim": 16},
    **{
        "0.6b": {**SMALL, "d_model": 1024, "d_ff": 3072},
        "1.7b": {**SMALL, "d_model": 2048, "d_ff": 6144},
        "4b": {"d_model": 2560, "d_ff": 9728, "tie_embeddings": True},
        "8b": {},
        "14b": {"d_model": 5120, "n_heads": 40, "n_layers": 40, "d_ff": 17_408},
        "32b": {"d_model": 5120, "n_heads": 64, "n_layers": 64, "d_ff": 25_600},
    },
)
@varies(
    llama_config,
    "ffn_bias",
    vocab_size=151_936,
    head_dim=128,
    n_layers=36,
    d_ff=12_288,
    max_seq_len=40_960,
    rope_theta=1e6,
    norm_eps=1e-6,
)
def qwen3_config(*, window: int | None = None, pattern: Sequence[Kind] = ("sliding",), **llama: Any) -> ModelConfig:
    """Qwen 3 (arXiv:2505.09388): LLaMA with normalised queries and keys in place of Qwen 2's biases.

    With a `window`, the layers that `pattern` calls sliding have it.
    """
    return mixed(with_attention(llama_config(**llama), qk_norm="rms_norm"), window, pattern)
