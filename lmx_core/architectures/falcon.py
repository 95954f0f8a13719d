"""Falcon."""

from typing import Any, Literal

from lmx_core.architectures.gpt import TINY
from lmx_core.architectures.gpt_neox import gpt_neox_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_block, with_sizes

RW = {"vocab_size": 50_304, "alibi": True, "parallel": False, "bias": True}
V2 = {"max_seq_len": 8192, "rope_theta": 500_042.0, "tie_embeddings": False}
B180 = {"d_model": 14_848, "n_heads": 232, "n_layers": 80, "tie_embeddings": False}


@with_sizes(
    tiny={**TINY, "n_kv_heads": 2, "norms": 2},
    **{
        "rw-1b": {**RW, "d_model": 2048, "n_heads": 32, "n_kv_heads": 32, "n_layers": 24},
        "7b": {},
        "11b": {**V2, "d_model": 4096, "n_heads": 32, "n_kv_heads": 8, "n_layers": 60},
        "40b": {"d_model": 8192, "n_heads": 128, "n_kv_heads": 8, "n_layers": 60, "norms": 2},
        "180b": {**B180, "n_kv_heads": 8, "norms": 2},
    },
)
@varies(
    gpt_neox_config,
    *("rope_fraction", "attention_bias"),
    vocab_size=65_024,
    d_model=4544,
    n_heads=71,
    n_layers=32,
    activation="gelu",
    tie_embeddings=True,
)
def falcon_config(
    *,
    n_kv_heads: int = 1,
    norms: Literal[1, 2] = 1,
    parallel: bool = True,
    alibi: bool = False,
    bias: bool = False,
    **neox: Any,
) -> ModelConfig:
    """Falcon (arXiv:2311.16867): attention and FFN side by side, which read one norm or two; all heads share their keys,
    or groups of them do. RW (arXiv:2306.01116) is sequential, with ALiBi instead of a rope."""
    config = gpt_neox_config(rope_fraction=1.0, parallel=parallel, **neox)
    slopes = spec("alibi", scale=config.block.head_dim**-0.5, in_bfloat16=True)
    return with_block(
        config,
        attention="gqa",
        norm=spec("layer_norm", bias=True),
        position=slopes if alibi else config.block.position,
        layout=spec("parallel", norms=norms) if parallel else "pre_norm",
        n_kv_heads=n_kv_heads,
        bias=bias,
    )
