"""Linear attention by the gated delta rule, arXiv:2412.06464."""

from lmx_deltanet.cache import RecurrentCache as RecurrentCache
from lmx_deltanet.mixer import GatedDeltaNet as GatedDeltaNet
from lmx_deltanet.mixer import GatedDeltaNetOptions as GatedDeltaNetOptions
