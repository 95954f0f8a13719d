"""A position encoding with weights of its own."""

import mlx.core as mx
from mlx import nn


class Kerple(nn.Module):
    """Scores of head h lose `scale_h * log(1 + rate_h * distance)`, the logarithmic kernel of arXiv:2205.09921."""

    def __init__(self, config):
        super().__init__()
        self.scale = mx.ones((config.n_heads,))
        self.rate = mx.ones((config.n_heads,))

    def embed(self, x, offset=0):
        return x

    def rotate(self, q, k, offset=0):
        return q, k

    def bias(self, queries, keys):
        distance = mx.abs(queries[..., :, None] - keys[..., None, :])  # (L, S), or (B, L, S)
        distance = distance[:, None] if distance.ndim == 3 else distance[None, None]
        scale, rate = (mx.abs(each)[:, None, None] for each in (self.scale, self.rate))
        return -scale * mx.log1p(rate * distance)
