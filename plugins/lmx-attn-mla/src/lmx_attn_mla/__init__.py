"""Multi-head latent attention, arXiv:2405.04434, and architectures that have it."""

from lmx_attn_mla.architectures.deepseek import deepseek_config as deepseek_config
from lmx_attn_mla.architectures.deepseek_v3 import deepseek_v3_config as deepseek_v3_config
from lmx_attn_mla.architectures.minicpm3 import minicpm3_config as minicpm3_config
from lmx_attn_mla.attention import MLA as MLA
from lmx_attn_mla.attention import MLAOptions as MLAOptions
