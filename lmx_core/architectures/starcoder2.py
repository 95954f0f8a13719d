"""StarCoder2."""

from typing import Any

from lmx_core.architectures.llama import TINY
from lmx_core.architectures.mistral import mistral_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_block, with_sizes

B7 = {"d_model": 4608, "n_heads": 36, "n_kv_heads": 4, "n_layers": 32, "d_ff": 18_432, "rope_theta": 1e6}
B15 = {"d_model": 6144, "n_heads": 48, "n_kv_heads": 4, "n_layers": 40, "d_ff": 24_576, "rope_theta": 1e5}


@with_sizes(tiny={**TINY, "window": 8}, **{"3b": {}, "7b": B7, "15b": {**B15, "tie_embeddings": False}})
@varies(
    mistral_config,
    *("attention_bias", "ffn_bias"),
    vocab_size=49_152,
    d_model=3072,
    n_heads=24,
    n_kv_heads=2,
    n_layers=30,
    d_ff=12_288,
    max_seq_len=16_384,
    rope_theta=999_999.4420358813,
    tie_embeddings=True,
)
def starcoder2_config(*, activation: str = "gelu_tanh", bias: bool = True, **mistral: Any) -> ModelConfig:
    """StarCoder2 (arXiv:2402.19173): Mistral with layer norms, no gate in its FFN, and biases."""
    ffn, norm = spec("standard", activation=activation), spec("layer_norm", bias=True)
    return with_block(mistral_config(**mistral), ffn=ffn, norm=norm, bias=bias)
