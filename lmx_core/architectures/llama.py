"""LLaMA."""

from lmx_core.config import BlockConfig, ModelConfig
from lmx_core.factories import with_sizes


@with_sizes(
    tiny={
        "vocab_size": 256,
        "d_model": 64,
        "n_heads": 4,
        "n_kv_heads": 2,
        "n_layers": 2,
        "d_ff": 128,
        "max_seq_len": 256,
    },
    **{"7b": {"n_kv_heads": 32}},
    **{"13b": {"d_model": 5120, "n_heads": 40, "n_kv_heads": 40, "n_layers": 40, "d_ff": 13_824}},
    **{"70b": {"d_model": 8192, "n_heads": 64, "n_layers": 80, "d_ff": 28_672}},
)
def llama_config(
    *,
    vocab_size: int = 32_000,
    d_model: int = 4096,
    n_heads: int = 32,
    n_kv_heads: int = 8,
    n_layers: int = 32,
    d_ff: int = 11_008,
    max_seq_len: int = 4096,
    rope_theta: float = 10_000.0,
    tie_embeddings: bool = False,
    dropout: float = 0.0,
) -> ModelConfig:
    """LLaMA (arXiv:2302.13971), with the grouped-query attention of its second edition (arXiv:2307.09288)."""
    block = BlockConfig(
        attention="gqa",
        ffn="gated",
        norm="rms_norm",
        position="rope",
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_ff=d_ff,
        max_seq_len=max_seq_len,
        rope_theta=rope_theta,
        bias=False,
        dropout=dropout,
    )
    return ModelConfig(block=block, vocab_size=vocab_size, n_layers=n_layers, tie_embeddings=tie_embeddings)
