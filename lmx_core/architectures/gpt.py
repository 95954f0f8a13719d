"""GPT."""

from lmx_core.config import BlockConfig, ModelConfig, spec
from lmx_core.factories import with_sizes


@with_sizes(
    tiny={"vocab_size": 256, "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 256},
    small={},
    medium={"d_model": 1024, "n_heads": 16, "n_layers": 24},
    large={"d_model": 1280, "n_heads": 20, "n_layers": 36},
    xl={"d_model": 1600, "n_heads": 25, "n_layers": 48},
)
def gpt_config(
    *,
    vocab_size: int = 50_257,
    d_model: int = 768,
    n_heads: int = 12,
    n_layers: int = 12,
    d_ff: int | None = None,
    max_seq_len: int = 1024,
    position: str = "learned",
    tie_embeddings: bool = True,
    dropout: float = 0.0,
) -> ModelConfig:
    """GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"); `d_ff` is 4 d_model."""
    block = BlockConfig(
        attention="mha",
        ffn=spec("standard", activation="gelu_tanh"),
        norm="layer_norm",
        position=position,
        d_model=d_model,
        n_heads=n_heads,
        d_ff=4 * d_model if d_ff is None else d_ff,
        max_seq_len=max_seq_len,
        dropout=dropout,
    )
    return ModelConfig(block=block, vocab_size=vocab_size, n_layers=n_layers, tie_embeddings=tie_embeddings)
