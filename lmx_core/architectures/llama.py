"""LLaMA."""

from lmx_core.config import BlockConfig, ComponentSpec, ModelConfig, spec
from lmx_core.factories import with_sizes

TINY = {"vocab_size": 256, "d_model": 64, "n_heads": 4, "n_kv_heads": 2, "n_layers": 2, "d_ff": 128, "max_seq_len": 256}
WIDE = {"d_model": 5120, "n_heads": 40, "n_kv_heads": 40, "n_layers": 40, "d_ff": 13_824}
WIDER = {"d_model": 8192, "n_heads": 64, "n_layers": 80, "d_ff": 28_672}
WIDEST = {"d_model": 16_384, "n_heads": 128, "n_layers": 126, "d_ff": 53_248}
V1 = {"n_kv_heads": 32, "max_seq_len": 2048, "norm_eps": 1e-6}
V3 = {"vocab_size": 128_256, "d_ff": 14_336, "max_seq_len": 8192, "rope_theta": 500_000.0}
V31 = {**V3, "max_seq_len": 131_072, "rope_scaling": spec("llama3", factor=8.0)}
V32 = {**V31, "d_ff": 8192, "rope_scaling": spec("llama3", factor=32.0), "tie_embeddings": True}


@with_sizes(
    tiny=TINY,
    **{
        "7b": {"n_kv_heads": 32},
        "13b": WIDE,
        "70b": WIDER,
        "1-7b": V1,
        "1-13b": {**V1, **WIDE},
        "1-30b": {**V1, "d_model": 6656, "n_heads": 52, "n_kv_heads": 52, "n_layers": 60, "d_ff": 17_920},
        "1-65b": {**V1, **WIDER, "n_kv_heads": 64, "d_ff": 22_016, "norm_eps": 1e-5},
        "3-8b": V3,
        "3-70b": {**V3, **WIDER},
        "3.1-8b": V31,
        "3.1-70b": {**V31, **WIDER},
        "3.1-405b": {**V31, **WIDEST},
        "3.2-1b": {**V32, "d_model": 2048, "n_layers": 16},
        "3.2-3b": {**V32, "d_model": 3072, "n_heads": 24, "n_layers": 28},
    },
)
def llama_config(
    *,
    vocab_size: int = 32_000,
    d_model: int = 4096,
    n_heads: int = 32,
    n_kv_heads: int = 8,
    head_dim: int | None = None,
    n_layers: int = 32,
    d_ff: int = 11_008,
    max_seq_len: int = 4096,
    rope_theta: float = 10_000.0,
    rope_scaling: ComponentSpec | None = None,
    norm_eps: float = 1e-5,
    attention_bias: bool = False,
    ffn_bias: bool = False,
    tie_embeddings: bool = False,
    dropout: float = 0.0,
) -> ModelConfig:
    """LLaMA (arXiv:2302.13971), with the grouped-query attention of its second edition (arXiv:2307.09288) and the long
    rope of its third (arXiv:2407.21783). Sizes that name no edition are of the second."""
    block = BlockConfig(
        attention=spec("gqa", qkv_bias=True, o_bias=True) if attention_bias else "gqa",
        ffn=spec("gated", bias=True) if ffn_bias else "gated",
        norm="rms_norm",
        position="rope" if rope_scaling is None else spec("rope", scaling=rope_scaling),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        d_ff=d_ff,
        max_seq_len=max_seq_len,
        rope_theta=rope_theta,
        norm_eps=norm_eps,
        bias=False,
        dropout=dropout,
    )
    return ModelConfig(block=block, vocab_size=vocab_size, n_layers=n_layers, tie_embeddings=tie_embeddings)
