"""MiniCPM3."""

from typing import Any

from lmx_attn_mla.architectures.deepseek import HEADS, SMALL
from lmx_attn_mla.architectures.latent import with_mla
from lmx_core.architectures.minicpm import minicpm_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_sizes

FACTORS = [
    *(1.0591234137867171, 1.1241891283591912, 1.2596935748670968, 1.5380380402321725),
    *(2.093982484148734, 3.1446935121267696, 4.937952647693647, 7.524541999994549),
    *(10.475458000005451, 13.062047352306353, 14.85530648787323, 15.906017515851266),
    *(16.461961959767827, 16.740306425132903, 16.87581087164081, 16.940876586213285),
]
LONGROPE = spec("longrope", short_factor=FACTORS, long_factor=FACTORS, original_max_seq_len=32_768)


@with_sizes(tiny={**SMALL, **HEADS, "rope_scaling": None, "base_width": 16}, **{"4b": {}})
@varies(
    minicpm_config,
    *("n_kv_heads", "head_dim"),
    vocab_size=73_448,
    d_model=2560,
    n_layers=62,
    d_ff=6400,
    max_seq_len=32_768,
    rope_scaling=LONGROPE,
)
def minicpm3_config(
    *,
    n_heads: int = 40,
    kv_lora_rank: int = 256,
    q_lora_rank: int | None = 768,
    nope_head_dim: int = 64,
    rope_head_dim: int = 32,
    v_head_dim: int = 64,
    attention_bias: bool = False,
    **minicpm: Any,
) -> ModelConfig:
    """MiniCPM3 (OpenBMB 2024): MiniCPM (arXiv:2404.06395) with DeepSeek-V2's latent attention.

    `attention_bias` is that of the maps to the latents and of the output.
    """
    return with_mla(
        minicpm_config(n_heads=n_heads, n_kv_heads=n_heads, head_dim=rope_head_dim, **minicpm),
        kv_lora_rank=kv_lora_rank,
        q_lora_rank=q_lora_rank,
        nope_head_dim=nope_head_dim,
        v_head_dim=v_head_dim,
        attention_bias=attention_bias,
    )
