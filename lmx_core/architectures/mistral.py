"""Mistral."""

from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, windowed, with_sizes

V03 = {"vocab_size": 32_768, "rope_theta": 1e6, "window": None}
NEMO = {"vocab_size": 131_072, "d_model": 5120, "head_dim": 128, "n_layers": 40, "window": None}
LARGE = {"d_model": 12_288, "n_heads": 96, "n_layers": 88, "d_ff": 28_672, "max_seq_len": 131_072}


@with_sizes(
    tiny={**TINY, "window": 8},
    **{
        "7b-v0.1": {},
        "7b-v0.3": V03,
        "nemo-12b": {**NEMO, "max_seq_len": 131_072, "rope_theta": 1e6},
        "small-22b": {**V03, "d_model": 6144, "n_heads": 48, "n_layers": 56, "d_ff": 16_384},
        "small-24b": {**NEMO, "d_ff": 32_768, "rope_theta": 1e8},
        "large-123b": {**V03, **LARGE},
    },
)
@varies(llama_config, d_ff=14_336, max_seq_len=32_768)
def mistral_config(*, window: int | None = 4096, **llama: Any) -> ModelConfig:
    """Mistral 7B (arXiv:2310.06825): LLaMA with a sliding window, which later editions gave up."""
    return windowed(llama_config(**llama), window)
