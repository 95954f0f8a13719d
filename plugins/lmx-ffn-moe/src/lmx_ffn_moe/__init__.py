"""Mixture-of-experts FFNs, arXiv:1701.06538."""

from lmx_ffn_moe.moe import MoE as MoE
from lmx_ffn_moe.moe import MoEOptions as MoEOptions
