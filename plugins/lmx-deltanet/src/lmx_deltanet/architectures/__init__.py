"""Architectures with linear attention: functions that return a `ModelConfig`, one file a family."""

from lmx_deltanet.architectures.kimi_linear import kimi_linear_config as kimi_linear_config
from lmx_deltanet.architectures.olmo_hybrid import olmo_hybrid_config as olmo_hybrid_config
from lmx_deltanet.architectures.qwen3_5 import qwen3_5_config as qwen3_5_config
from lmx_deltanet.architectures.qwen3_next import qwen3_next_config as qwen3_next_config
