"""Linear attention with a state that can forget (arXiv:2312.06635) and overwrite (arXiv:2412.06464)."""

from lmx_deltanet.cache import RecurrentCache as RecurrentCache
from lmx_deltanet.mixer import DeltaNet as DeltaNet
from lmx_deltanet.mixer import GatedDeltaNet as GatedDeltaNet
from lmx_deltanet.mixer import GatedLinearAttention as GatedLinearAttention
from lmx_deltanet.mixer import KimiDeltaAttention as KimiDeltaAttention
from lmx_deltanet.mixer import LinearAttention as LinearAttention
from lmx_deltanet.options import DeltaNetOptions as DeltaNetOptions
from lmx_deltanet.options import GatedLinearAttentionOptions as GatedLinearAttentionOptions
from lmx_deltanet.options import KimiDeltaAttentionOptions as KimiDeltaAttentionOptions
from lmx_deltanet.options import LinearAttentionOptions as LinearAttentionOptions
