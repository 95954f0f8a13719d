"""LoRA adapters of PEFT and mlx-lm, added to the tensors of a checkpoint."""

from lmx_hf.adapters.fuse import fused as fused
from lmx_hf.adapters.layouts import layouts as layouts
