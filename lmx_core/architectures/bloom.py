"""BLOOM."""

from typing import Any

import attrs

from lmx_core.architectures.gpt import MEDIUM, TINY, gpt_config
from lmx_core.config import ModelConfig
from lmx_core.factories import varies, with_block, with_sizes


@with_sizes(
    tiny=TINY,
    **{
        "560m": MEDIUM,
        "1b1": {**MEDIUM, "d_model": 1536},
        "1b7": {**MEDIUM, "d_model": 2048},
        "3b": {"d_model": 2560, "n_heads": 32, "n_layers": 30},
        "7b1": {"d_model": 4096, "n_heads": 32, "n_layers": 30},
        "176b": {},
    },
)
@varies(
    gpt_config,
    *("position", "pre_norm"),
    vocab_size=250_880,
    d_model=14_336,
    n_heads=112,
    n_layers=70,
    max_seq_len=2048,
)
def bloom_config(*, normed_residual: bool = False, **gpt: Any) -> ModelConfig:
    """BLOOM (arXiv:2211.05100): GPT with ALiBi and a norm of the embeddings. With `normed_residual` a sublayer is added to
    the normalised stream that it reads."""
    layout = "normed_residual" if normed_residual else "pre_norm"
    return attrs.evolve(with_block(gpt_config(**gpt), position="alibi", layout=layout), embedding_norm="layer_norm")
