"""What log-probabilities say of completions: how likely, how much each token or pair counts, how far from the reference."""

from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.chunks import logits_of, parts_of


def collisions(model: Any, hidden: array) -> array:
    """`log sum_v p(v)^2` of each distribution, (B, C), without a gradient, of some tokens at once."""
    x = mx.stop_gradient(hidden).reshape(-1, hidden.shape[-1])
    found: list[array] = []
    for part in parts_of(model, x, None):
        logits = mx.stop_gradient(logits_of(model, x[part])).astype(mx.float32)
        found.append(mx.logsumexp(2 * logits, axis=-1) - 2 * mx.logsumexp(logits, axis=-1))
    return mx.concatenate(found).reshape(hidden.shape[:-1])


def shared_weights(mask: array, alpha: float) -> array:
    """The weight of each token where only the length that both completions of a pair have counts whole, and what the longer
    one has beyond it counts `alpha`: LD-DPO, arXiv:2409.06411. Rows are all chosen, then all rejected.
    """
    lengths = mask.sum(-1).reshape(2, -1)
    shared = mx.concatenate([lengths.min(0)] * 2)
    inside = mx.arange(mask.shape[1]) < shared[:, None]
    return mx.where(mask, mx.where(inside, 1.0, alpha), 0.0)


def on_policy_weights(logps: array, collided: array, mask: array) -> array:
    """How much each pair counts, (P,): the more, the likelier the policy is to write it, as WPO, arXiv:2406.11827, has it,
    with `sum_v p(v)^2` as the measure of a likely token: above 1 where tokens are likelier than that. Without a gradient.
    """
    excess = mx.where(mask, mx.stop_gradient(logps) - collided, 0).sum(-1) / mx.maximum(mask.sum(-1), 1)
    chosen, rejected = mx.split(excess, 2)
    return mx.exp(chosen + rejected)


def token_kl(logps: array, reference: array, mask: array) -> array:
    """Of each row, the mean over its tokens of `r - 1 - log r` with `r = p / p_reference`, never below 0: of completions that
    the reference itself would write, the mean estimates KL(reference || policy) in nats a token.
    """
    difference = mx.where(mask, mx.stop_gradient(logps) - reference, 0)
    return (mx.expm1(difference) - difference).sum(-1) / mx.maximum(mask.sum(-1), 1)
