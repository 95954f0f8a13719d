"""GPT."""

from lmx_core.config import BlockConfig, ModelConfig, spec
from lmx_core.factories import with_sizes

TINY = {"vocab_size": 256, "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 256}
MEDIUM = {"d_model": 1024, "n_heads": 16, "n_layers": 24}
LARGE = {"d_model": 1280, "n_heads": 20, "n_layers": 36}
XL = {"d_model": 1600, "n_heads": 25, "n_layers": 48}
V3 = {"max_seq_len": 2048}


@with_sizes(
    tiny=TINY,
    small={},
    medium=MEDIUM,
    large=LARGE,
    xl=XL,
    **{
        "1-120m": {"vocab_size": 40_478, "max_seq_len": 512, "pre_norm": False},
        "3-125m": V3,
        "3-350m": {**V3, **MEDIUM},
        "3-760m": {**V3, **MEDIUM, "d_model": 1536},
        "3-1.3b": {**V3, "d_model": 2048, "n_heads": 24, "head_dim": 128, "n_layers": 24},
        "3-2.7b": {**V3, "d_model": 2560, "n_heads": 32, "n_layers": 32},
        "3-6.7b": {**V3, "d_model": 4096, "n_heads": 32, "n_layers": 32},
        "3-13b": {**V3, "d_model": 5140, "n_heads": 40, "head_dim": 128, "n_layers": 40},
        "3-175b": {**V3, "d_model": 12_288, "n_heads": 96, "n_layers": 96},
    },
)
def gpt_config(
    *,
    vocab_size: int = 50_257,
    d_model: int = 768,
    n_heads: int = 12,
    head_dim: int | None = None,
    n_layers: int = 12,
    d_ff: int | None = None,
    max_seq_len: int = 1024,
    position: str = "learned",
    activation: str = "gelu_tanh",
    pre_norm: bool = True,
    norm_eps: float = 1e-5,
    tie_embeddings: bool = True,
    dropout: float = 0.0,
) -> ModelConfig:
    """GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"); `d_ff` is 4 d_model.

    `pre_norm=False` makes it GPT-1 (Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training").
    Sizes that begin with 3 are GPT-3's, of table 2.1 of arXiv:2005.14165. Two of them have heads that do not add up to
    `d_model`, as the table says; that of 1.3b makes 1.5e9 parameters. Every other layer of GPT-3 attends in sparse local
    bands; here all of them are dense.
    """
    block = BlockConfig(
        attention="mha",
        ffn=spec("standard", activation=activation),
        norm="layer_norm",
        position=position,
        pre_norm=pre_norm,
        d_model=d_model,
        n_heads=n_heads,
        head_dim=head_dim,
        d_ff=4 * d_model if d_ff is None else d_ff,
        max_seq_len=max_seq_len,
        norm_eps=norm_eps,
        dropout=dropout,
    )
    return ModelConfig(block=block, vocab_size=vocab_size, n_layers=n_layers, tie_embeddings=tie_embeddings)
