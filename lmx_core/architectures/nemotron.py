"""Nemotron."""

from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_block, with_sizes


@with_sizes(
    tiny=TINY,
    **{
        "minitron-4b": {"d_model": 3072, "n_heads": 24, "d_ff": 9216},
        "minitron-8b": {"d_model": 4096, "head_dim": 128, "d_ff": 16_384},
        "4-15b": {},
    },
)
@varies(llama_config, vocab_size=256_000, d_model=6144, n_heads=48, d_ff=24_576)
def nemotron_config(*, activation: str = "relu2", rope_fraction: float = 0.5, **llama: Any) -> ModelConfig:
    """Nemotron-4 (arXiv:2402.16819) and Minitron (arXiv:2407.14679): LLaMA with squared ReLU and no gate in its FFN, layer
    norms of weight 1 + w, and a rope of half of each head."""
    config = llama_config(**llama)
    return with_block(
        config,
        ffn=config.block.ffn.named("standard", activation=activation),
        norm=spec("layer_norm", unit_offset=True, bias=True),
        position=config.block.position.having(fraction=rope_fraction),
    )
