"""SmolLM3."""

from collections.abc import Sequence
from typing import Any, Literal

import attrs

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig
from lmx_core.factories import patterned, varies, windowed, with_sizes


@with_sizes(tiny={**TINY, "n_layers": 4}, **{"3b": {}})
@varies(
    llama_config,
    vocab_size=128_256,
    d_model=2048,
    n_heads=16,
    n_kv_heads=4,
    n_layers=36,
    max_seq_len=65_536,
    rope_theta=5e6,
    norm_eps=1e-6,
    tie_embeddings=True,
)
def smollm3_config(
    *,
    window: int | None = None,
    pattern: Sequence[Literal["rope", "nope"]] = ("rope", "rope", "rope", "nope"),
    **llama: Any,
) -> ModelConfig:
    """SmolLM3 (Hugging Face 2025): LLaMA without position in every fourth layer (arXiv:2501.18795).

    A `window`, if there is one, is that of the layers without position.
    """
    config = llama_config(**llama)
    nope = attrs.evolve(windowed(config, window).block, position="none")
    return patterned(config, pattern, rope=config.block, nope=nope)
