"""Models of lmx in mlx-lm's programs, and mlx-lm's models in lmx."""

from lmx_hf.bridge.theirs import TheirModel as TheirModel
from lmx_hf.bridge.theirs import from_mlx_lm as from_mlx_lm
