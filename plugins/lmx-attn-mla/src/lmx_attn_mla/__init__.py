"""Multi-head latent attention, arXiv:2405.04434."""

from lmx_attn_mla.attention import MLA as MLA
from lmx_attn_mla.attention import MLAOptions as MLAOptions
