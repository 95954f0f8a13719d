"""Phi-3.5 MoE."""

from typing import Any

import attrs

from lmx_core.architectures.llama import TINY
from lmx_core.architectures.mistral import mistral_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_block, with_sizes
from lmx_ffn_moe.architectures.sparse import with_experts


@with_sizes(tiny={**TINY, "n_experts": 4, "router_jitter": 0.1})
@varies(mistral_config, "ffn_bias", vocab_size=32_064, d_ff=6400, max_seq_len=4096, window=None, attention_bias=True)
def phimoe_config(
    *, head_bias: bool = True, n_experts: int = 16, router_jitter: float = 0.01, **mistral: Any
) -> ModelConfig:
    """Phi-3.5 MoE (arXiv:2404.14219): Mistral with layer norms, biases and sixteen experts.

    A token takes two of them as GRIN (arXiv:2409.12136) chooses: one after the other, each weighted among those that come
    close to it, which are those within `2 * router_jitter` of it.
    """
    config = with_block(mistral_config(**mistral), norm=spec("layer_norm", bias=True))
    sparse = with_experts(config, n_experts=n_experts, top_k=2, router="sparsemixer", router_jitter=router_jitter)
    return attrs.evolve(sparse, head_bias=head_bias)
