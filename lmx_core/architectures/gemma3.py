"""Gemma 3."""

from collections.abc import Sequence
from typing import Any

from lmx_core.architectures.gemma2 import gemma2_config
from lmx_core.architectures.llama import TINY
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import Kind, mixed, varies, with_attention, with_sizes

SMALL = {
    "vocab_size": 262_144,
    "n_heads": 4,
    "n_kv_heads": 1,
    "max_seq_len": 32_768,
    "rope_scaling": None,
    "window": 512,
}
B27 = {"d_model": 5376, "n_heads": 32, "n_kv_heads": 16, "head_dim": 128, "n_layers": 62, "d_ff": 21_504}


@with_sizes(
    tiny={**TINY, "head_dim": 16, "n_layers": 6, "d_ff": 64, "window": 8, "attention_scale": 1 / 16},
    **{
        "270m": {**SMALL, "d_model": 640, "n_layers": 18, "d_ff": 2048},
        "1b": {**SMALL, "d_model": 1152, "n_layers": 26, "d_ff": 6912},
        "4b": {},
        "12b": {"d_model": 3840, "n_heads": 16, "n_kv_heads": 8, "n_layers": 48, "d_ff": 15_360},
        "27b": {**B27, "attention_scale": 168**-0.5},
    },
)
@varies(
    gemma2_config,
    vocab_size=262_208,
    d_model=2560,
    n_heads=8,
    n_kv_heads=4,
    n_layers=34,
    d_ff=10_240,
    max_seq_len=131_072,
    rope_theta=1e6,
    rope_scaling=spec("linear", factor=8.0),
    softcap=None,
    logit_softcap=None,
)
def gemma3_config(
    *,
    window: int | None = 1024,
    pattern: Sequence[Kind] = ("sliding", "sliding", "sliding", "sliding", "sliding", "full"),
    local_rope_theta: float = 10_000.0,
    **gemma2: Any,
) -> ModelConfig:
    """Gemma 3 (arXiv:2503.19786): Gemma 2 with normalised queries and keys in place of caps, and five layers with a
    window to one without, whose rope is its own: `rope_theta` and `rope_scaling` are those of layers without a window."""
    config = gemma2_config(window=None, **gemma2)
    config = with_attention(config, qk_norm=spec("rms_norm", unit_offset=True))
    return mixed(config, window, pattern, position="rope", rope_theta=local_rope_theta)
