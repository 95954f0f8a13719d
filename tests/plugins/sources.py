"""Modules of plugins that tests install."""

RELU2 = """
import mlx.core as mx
from mlx import nn

class ReLU2(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff)
        self.down = nn.Linear(config.d_ff, config.d_model)

    def __call__(self, x):
        return self.down(mx.square(nn.relu(self.up(x))))
"""

MLA = """
from lmx_core import AttentionBase

class MLA(AttentionBase):
    def __call__(self, x, mask=None, cache=None):
        return x, cache
"""
