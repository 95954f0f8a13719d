"""OLMo Hybrid."""

from collections.abc import Sequence
from typing import Any

from lmx_core.architectures.llama import TINY
from lmx_core.architectures.olmo2 import olmo2_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_block, with_sizes
from lmx_deltanet.architectures.hybrid import ONE_TO_ONE, THREE_TO_ONE, Mixer, hybrid

HEADS = {"n_key_heads": 4, "n_value_heads": 4, "key_head_dim": 12, "value_head_dim": 24}


@with_sizes(tiny={**TINY, **HEADS, "pattern": ONE_TO_ONE}, **{"7b": {}})
@varies(olmo2_config, d_model=3840, n_heads=30, n_kv_heads=30, max_seq_len=65_536)
def olmo_hybrid_config(
    *,
    pattern: Sequence[Mixer] = THREE_TO_ONE,
    n_key_heads: int = 30,
    n_value_heads: int = 30,
    key_head_dim: int = 96,
    value_head_dim: int = 192,
    conv_size: int = 4,
    negative_eigenvalues: bool = True,
    rope_theta: float | None = None,
    **olmo2: Any,
) -> ModelConfig:
    """OLMo Hybrid (Ai2 2026): OLMo 2 with gated DeltaNet, between norms before each sublayer, in three of four layers.

    Attention has no position unless a `rope_theta` is given.
    """
    config = olmo2_config(**olmo2, **({} if rope_theta is None else {"rope_theta": rope_theta}))
    if rope_theta is None:
        config = with_block(config, position="none")
    delta = spec(
        "gated_deltanet",
        n_key_heads=n_key_heads,
        n_value_heads=n_value_heads,
        key_head_dim=key_head_dim,
        value_head_dim=value_head_dim,
        conv_size=conv_size,
        negative_eigenvalues=negative_eigenvalues,
        norm_eps=1e-5,
    )
    return hybrid(config, pattern, delta, layout="pre_norm")
