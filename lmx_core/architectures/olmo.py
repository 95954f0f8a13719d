"""OLMo."""

from typing import Any

from lmx_core.architectures.llama import TINY, llama_config
from lmx_core.config import ModelConfig, spec
from lmx_core.factories import varies, with_attention, with_block, with_sizes

B1 = {"d_model": 2048, "n_heads": 16, "n_kv_heads": 16, "n_layers": 16, "d_ff": 8192, "tie_embeddings": True}


@with_sizes(tiny=TINY, **{"1b": B1, "7b": {}, "7b-0424": {"max_seq_len": 4096, "clip": 8.0}})
@varies(llama_config, "ffn_bias", vocab_size=50_304, n_kv_heads=32, max_seq_len=2048)
def olmo_config(*, clip: float | None = None, **llama: Any) -> ModelConfig:
    """OLMo (arXiv:2402.00838): LLaMA with layer norms that have no parameters; queries, keys and values may be clamped."""
    config = with_block(llama_config(**llama), norm=spec("layer_norm", weight=False, bias=False))
    return with_attention(config, clip=clip)
