"""StableLM."""

from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_attention, with_block, with_sizes

V2 = {"vocab_size": 100_352}
B12 = {"d_model": 5120, "n_kv_heads": 8, "n_layers": 40, "d_ff": 13_824, "parallel": True, "qk_norm": True}


@with_sizes(
    tiny=TINY,
    **{
        "3b-4e1t": {},
        "2-1.6b": {**V2, "d_model": 2048, "n_layers": 24, "d_ff": 5632, "qkv_bias": True},
        "2-12b": {**V2, **B12},
    },
)
@varies(llama_config, *("attention_bias", "ffn_bias"), vocab_size=50_304, d_model=2560, n_kv_heads=32, d_ff=6912)
def stablelm_config(
    *,
    rope_fraction: float = 0.25,
    qkv_bias: bool = False,
    qk_norm: bool = False,
    parallel: bool = False,
    **llama: Any,
) -> ModelConfig:
    """StableLM 3B (Tow et al. 2023) and StableLM 2 (arXiv:2402.17834): LLaMA with layer norms and a rope of a quarter of
    each head; `parallel` is one norm for attention and FFN side by side. `qk_norm` gives each head weights of its own."""
    config = with_attention(llama_config(**llama), qkv_bias=qkv_bias or None)
    if qk_norm:
        config = with_attention(config, qk_norm=spec("layer_norm", weight=False, bias=False), qk_norm_over="each_head")
    return with_block(
        config,
        norm=spec("layer_norm", bias=True),
        position=config.block.position.having(fraction=rope_fraction),
        layout="parallel" if parallel else "pre_norm",
    )
