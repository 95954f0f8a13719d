"""GPT-NeoX and Pythia."""

from typing import Any

from lmx_core.architectures.gpt import MEDIUM, TINY, gpt_config
from lmx_core.config import ComponentSpec, ModelConfig, spec
from lmx_core.factories import varies, with_block, with_sizes

PYTHIA = {"vocab_size": 50_304, "activation": "gelu"}


@with_sizes(
    tiny=TINY,
    **{
        "pythia-70m": {**PYTHIA, "d_model": 512, "n_heads": 8, "n_layers": 6},
        "pythia-160m": {**PYTHIA, "d_model": 768, "n_heads": 12, "n_layers": 12},
        "pythia-410m": {**PYTHIA, **MEDIUM},
        "pythia-1b": {**PYTHIA, "d_model": 2048, "n_heads": 8, "n_layers": 16},
        "pythia-1.4b": {**PYTHIA, **MEDIUM, "d_model": 2048},
        "pythia-2.8b": {**PYTHIA, "d_model": 2560, "n_heads": 32, "n_layers": 32},
        "pythia-6.9b": {**PYTHIA, "vocab_size": 50_432, "d_model": 4096, "n_heads": 32, "n_layers": 32},
        "pythia-12b": {**PYTHIA, "vocab_size": 50_688, "d_model": 5120, "n_heads": 40, "n_layers": 36},
        "20b": {},
    },
)
@varies(
    gpt_config,
    *("position", "pre_norm"),
    vocab_size=50_432,
    d_model=6144,
    n_heads=64,
    n_layers=44,
    max_seq_len=2048,
    tie_embeddings=False,
)
def gpt_neox_config(
    *,
    rope_theta: float = 10_000.0,
    rope_fraction: float = 0.25,
    rope_scaling: ComponentSpec | None = None,
    parallel: bool = True,
    attention_bias: bool = True,
    **gpt: Any,
) -> ModelConfig:
    """GPT-NeoX-20B (arXiv:2204.06745) and Pythia (arXiv:2304.01373): GPT with attention and FFN side by side, a norm for
    each, and a rope of a quarter of each head."""
    rope = spec("rope", fraction=rope_fraction)
    return with_block(
        gpt_config(**gpt),
        attention="mha" if attention_bias else spec("mha", qkv_bias=False, o_bias=False),
        position=rope if rope_scaling is None else rope.having(scaling=rope_scaling),
        layout=spec("parallel", norms=2) if parallel else "pre_norm",
        rope_theta=rope_theta,
    )
