"""What a mixture computes, every expert on every token: slow, short enough to be believed, compared with it in the tests."""

import mlx.core as mx
from mlx.core import array

from lmx_ffn_moe.experts import StackedLinear
from lmx_ffn_moe.moe import MoE


def moe(module: MoE, x: array) -> array:
    """Section 2.1 of arXiv:2401.04088 on (B, L, D)."""
    router, experts = module.router, module.experts
    scores = mx.exp(x @ router.weight.T)
    scores = scores / scores.sum(axis=-1, keepdims=True)
    least = mx.sort(scores, axis=-1)[..., -router.top_k, None]
    weights = mx.where(scores >= least, scores, 0)
    if router.renormalise and router.top_k > 1:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    y = module.shared(x) if "shared" in module else mx.zeros_like(x)
    for i in range(len(router.weight)):
        gate, up = (_linear(part, i, x) for part in (experts.gate, experts.up))
        y = y + weights[..., i, None] * _linear(experts.down, i, gate * mx.sigmoid(gate) * up)
    return y


def _linear(stacked: StackedLinear, i: int, x: array) -> array:
    y = x @ stacked.weight[i].T
    return y + stacked.bias[i] if "bias" in stacked else y
