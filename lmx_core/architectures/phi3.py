"""Phi-3."""

from typing import Any

from lmx_core.architectures.llama import TINY
from lmx_core.architectures.mistral import mistral_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_block, with_sizes

MEDIUM = {"d_model": 5120, "n_heads": 40, "n_kv_heads": 10, "n_layers": 40, "d_ff": 17_920}
# fmt: off
# Factors of 48 pairs in hundredths, as they were searched for; a checkpoint holds them in float32.
SHORT_3 = (
    *(1.05, 1.05, 1.05, 1.1, 1.1, 1.1, 1.25, 1.25, 1.4, 1.45, 1.55, 1.85, 1.9), *[2.0] * 19,
    *(2.1, 2.1, 2.2, 2.35, 2.35, 2.35, 2.35, 2.4, 2.4, 2.65, 2.7, 2.9, 2.95, 3.05, 3.05, 3.05),
)
LONG_3 = (
    *(1.03, 1.05, 1.05, 1.08, 1.23, 1.23, 1.3, 1.45, 1.6, 1.65, 1.9, 2.86, 3.69, 5.42, 5.49, 5.49, 9.09, 11.58, 15.66),
    *(15.77, 15.79, 18.36, 21.99, 23.08, 30.01, 32.35, 32.59, 35.56, 39.95, 53.84, 56.2, 57.95, 59.29, 59.77, 59.92),
    *(61.19, 61.96, 62.5, 63.37, 63.48, 63.48, 63.66, 63.85, 64.08, 64.76, 64.8, 64.81, 64.81),
)
SHORT_35 = (
    *(1.0, 1.02, 1.03, 1.03, 1.05, 1.05, 1.05, 1.05, 1.05, 1.07, 1.1, 1.11, 1.16, 1.16, 1.17, 1.29, 1.34, 1.68, 1.79),
    *(1.82, 1.85, 1.88, 1.91, 1.94, 1.99), *[2.02] * 6, *[2.03] * 9,
    *(2.08, 2.09, 2.19, 2.22, 2.59, 2.73, 2.75, 2.84),
)
LONG_35 = (
    *(1.08, 1.11, 1.14, 1.34, 1.59, 1.6, 1.62, 2.62, 3.23, 3.23, 4.79, 7.4, 7.7, 9.09, 12.2, 17.67, 24.46, 28.57, 30.42),
    *(30.84, 32.59, 32.93, 42.32, 44.96, 50.34, 50.45, 57.55, 57.93, 58.21, 60.14, 62.61, 62.62, 62.71, 63.14, 63.14),
    *(63.77, 63.93, 63.96, 63.97, 64.03, 64.07, 64.08, 64.12, 64.41, 64.48, 64.51, 64.53, 64.84),
)
# fmt: on


def stretched(short: tuple[float, ...], long: tuple[float, ...]) -> dict[str, Any]:
    """What makes a model of 4096 tokens one of 131 072."""
    scaling = spec("longrope", short_factor=short, long_factor=long, original_max_seq_len=4096)
    return {"max_seq_len": 131_072, "window": 262_144, "rope_scaling": scaling}


@with_sizes(
    tiny={**TINY, "window": 8},
    **{
        "mini-4k": {},
        "mini-128k": stretched(SHORT_3, LONG_3),
        "3.5-mini": stretched(SHORT_35, LONG_35),
        "medium-4k": MEDIUM,
        "4-14b": {**MEDIUM, "vocab_size": 100_352, "max_seq_len": 16_384, "rope_theta": 250_000.0, "window": None},
    },
)
@varies(
    mistral_config,
    *("attention_bias", "ffn_bias"),
    vocab_size=32_064,
    d_model=3072,
    n_kv_heads=32,
    d_ff=8192,
    max_seq_len=4096,
    window=2047,
)
def phi3_config(*, rope_fraction: float = 1.0, **mistral: Any) -> ModelConfig:
    """Phi-3 (arXiv:2404.14219) and Phi-4 (arXiv:2412.08905): Mistral, with LongRoPE where it reads 131 072 tokens."""
    config = mistral_config(**mistral)
    return with_block(config, position=config.block.position.having(fraction=rope_fraction))
