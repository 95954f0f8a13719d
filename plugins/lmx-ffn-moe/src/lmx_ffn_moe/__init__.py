"""Mixture-of-experts FFNs, arXiv:1701.06538."""

from lmx_ffn_moe.moe import LatentMoE as LatentMoE
from lmx_ffn_moe.moe import MoE as MoE
from lmx_ffn_moe.moe import SharedMoE as SharedMoE
from lmx_ffn_moe.options import LatentMoEOptions as LatentMoEOptions
from lmx_ffn_moe.options import MoEOptions as MoEOptions
from lmx_ffn_moe.options import SharedMoEOptions as SharedMoEOptions
from lmx_ffn_moe.upcycling import upcycle as upcycle
