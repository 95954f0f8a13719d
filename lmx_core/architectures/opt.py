"""OPT."""

from typing import Any

import attrs

from lmx_core.architectures.gpt import MEDIUM, TINY, gpt_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_block, with_sizes


@with_sizes(
    tiny=TINY,
    **{
        "125m": {},
        "350m": {**MEDIUM, "embedding_dim": 512, "pre_norm": False},
        "1.3b": {"d_model": 2048, "n_heads": 32, "n_layers": 24},
        "2.7b": {"d_model": 2560, "n_heads": 32, "n_layers": 32},
        "6.7b": {"d_model": 4096, "n_heads": 32, "n_layers": 32},
        "13b": {"d_model": 5120, "n_heads": 40, "n_layers": 40},
        "30b": {"d_model": 7168, "n_heads": 56, "n_layers": 48},
        "66b": {"d_model": 9216, "n_heads": 72, "n_layers": 64},
    },
)
@varies(gpt_config, "position", vocab_size=50_272, max_seq_len=2048, activation="relu")
def opt_config(
    *, embedding_dim: int | None = None, bias: bool = True, norm_weights: bool = True, **gpt: Any
) -> ModelConfig:
    """OPT (arXiv:2205.01068): GPT with ReLU, and two rows before that of the first position. The one of 350 million
    parameters is post-norm. `norm_weights=False` takes the norms' biases, too; `bias` is that of everything else."""
    norm = spec("layer_norm", weight=norm_weights, bias=norm_weights)
    config = with_block(gpt_config(**gpt), norm=norm, position=spec("learned", skip=2), bias=bias)
    return attrs.evolve(config, embedding_dim=embedding_dim)
