"""What a mixture computes, every expert on every token: slow, short enough to be believed, compared with it in the tests."""

from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.components.activations import ACTIVATIONS
from lmx_ffn_moe.experts import StackedLinear
from lmx_ffn_moe.router import Router


def moe(module: Any, x: array) -> array:
    """Section 2.1 of arXiv:2401.04088 on (B, L, D), with the options of a `MoE`."""
    options = module.options
    read = module.latent_down(x) if "latent_down" in module else x
    weights, y = router(module.router, x), mx.zeros_like(read)
    for i in range(options.n_experts):
        weight = weights[..., i, None]
        said = expert(module, i, weight * read if options.weigh == "input" else read)
        y = y + mx.where(weight > 0, said if options.weigh == "input" else weight * said, 0)
    if "latent_up" in module:
        y = module.latent_up(y)
    if "shared" in module:
        gate = mx.sigmoid(x @ module.shared_gate.weight.T) if "shared_gate" in module else 1
        y = y + gate * module.shared(x)
    return y


def expert(module: Any, i: int, x: array) -> array:
    options, experts = module.options, module.experts
    gate, up = (_linear(part, i, x) for part in (experts.gate, experts.up))
    if options.clamp is not None:
        gate, up = mx.minimum(gate, options.clamp), mx.clip(up, -options.clamp, options.clamp)
    return _linear(experts.down, i, ACTIVATIONS[options.activation](gate) * (up + options.up_shift))


def router(module: Router, x: array) -> array:
    """The weight of every expert, 0 where it is not chosen, for each token by itself."""
    logits = x @ module.weight.T + (module.bias if "bias" in module else 0)
    rows = [_sparsemixer(row, module) if module.options.router == "sparsemixer" else _weights(row, module)
            for row in logits.reshape(-1, logits.shape[-1])]  # fmt: skip
    return mx.stack(rows).reshape(logits.shape)


def _weights(logits: array, module: Router) -> array:
    options = module.options
    scores = mx.sigmoid(logits) if options.router == "sigmoid" else mx.exp(logits) / mx.exp(logits).sum()
    corrected: Any = (scores + (module.correction if "correction" in module else 0)).tolist()
    size = options.n_experts // options.n_groups
    groups = [sorted(corrected[i : i + size], reverse=True) for i in range(0, len(corrected), size)]
    of_groups = [group[0] if options.group_score == "max" else sum(group[:2]) for group in groups]
    best = sorted(range(len(groups)), key=lambda g: of_groups[g])[-options.top_groups :]
    allowed = [e for e in range(len(corrected)) if e // size in best]
    chosen = sorted(allowed, key=lambda e: corrected[e])[-options.top_k :]
    kept = mx.array([e in chosen for e in range(len(corrected))])
    if options.router == "topk_softmax":
        scores = mx.exp(logits)
    weights = mx.where(kept, scores, 0)
    divided = options.top_k > 1 if options.renormalise is None else options.renormalise
    if divided or options.router == "topk_softmax":
        weights = weights / weights.sum()
    return options.routed_scaling * weights


def _sparsemixer(logits: array, module: Router) -> array:
    """Appendix of arXiv:2409.12136: the best of all, then the best of the others."""
    values: Any = logits.tolist()
    weights, left = mx.zeros_like(logits), list(range(len(values)))
    for _ in range(2):
        best = max(left, key=values.__getitem__)
        top, jitter = values[best], module.options.router_jitter
        near = [e for e in left if top - values[e] <= 2 * jitter * max(abs(values[e]), top)]
        share = mx.exp(logits[best]) / mx.stack([mx.exp(logits[e]) for e in near]).sum()
        weights = weights + mx.where(mx.arange(len(values)) == best, share, 0)
        left.remove(best)
    return module.options.routed_scaling * weights


def _linear(stacked: StackedLinear, i: int, x: array) -> array:
    y = x @ stacked.weight[i].T
    return y + stacked.bias[i] if "bias" in stacked else y
