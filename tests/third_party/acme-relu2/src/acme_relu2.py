"""The FFN of Primer."""

import mlx.core as mx
from mlx import nn


class ReLU2(nn.Module):
    """`down(relu(up(x)) ** 2)`, arXiv:2109.08668."""

    def __init__(self, config):
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def __call__(self, x):
        return self.down(mx.square(nn.relu(self.up(x))))
