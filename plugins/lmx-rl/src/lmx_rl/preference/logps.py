"""Log-probabilities of completions, for which no logit of a prompt or of padding is computed."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.chunks import custom, logits_of, parts_of
from lmx_core.losses import hidden_logps

Batch = Mapping[str, array]


def completion_hidden(model: Any, batch: Batch) -> array:
    """What the head reads to predict the targets of a batch of `Rows`, (B, C, D)."""
    return windows(model.hidden(batch["inputs"])[0], batch["starts"], batch["targets"].shape[1])


def windows(hidden: array, starts: array, width: int) -> array:
    """Of each row of (B, L, D) the part of this width from its start on, (B, C, D). What of it lies behind the end of the row
    has no meaning and no gradient.

    The gradient is gathered, too: scattered it would take several times as long, and on a GPU differ from run to run.
    """
    rows, length, size = hidden.shape

    def forward(hidden: array, starts: array) -> array:
        places = mx.minimum(starts[:, None] + mx.arange(width), length - 1)
        return hidden.reshape(-1, size)[mx.arange(rows)[:, None] * length + places]

    def back(primals: Any, cotangent: array, outputs: Any) -> Any:
        places = mx.arange(length) - primals[1][:, None]
        inside = (places >= 0) & (places < width)
        chosen = mx.arange(rows)[:, None] * width + mx.clip(places, 0, width - 1)
        gradient = mx.where(inside[..., None], cotangent.reshape(-1, size)[chosen], 0)
        return gradient, mx.zeros_like(primals[1])

    found: array = custom(forward, back)(hidden, starts)
    return found


def completion_logps(model: Any, batch: Batch, hidden: array | None = None) -> array:
    """The log-probability of each target, (B, C), 0 where there is none; the gradient there is exactly 0."""
    hidden = completion_hidden(model, batch) if hidden is None else hidden
    return mx.where(batch["mask"], hidden_logps(model, hidden, batch["targets"]), 0)


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
    with `sum_v p(v)^2` as the measure of a likely token. At most 1, without a gradient.
    """
    excess = mx.where(mask, mx.stop_gradient(logps) - collided, 0).sum(-1) / mx.maximum(mask.sum(-1), 1)
    chosen, rejected = mx.split(excess, 2)
    return mx.minimum(mx.exp(chosen + rejected), 1.0)


def token_kl(logps: array, reference: array, mask: array) -> array:
    """Of each row, the mean over its tokens of `r - 1 - log r` with `r = p / p_reference`, never below 0: of completions that
    the reference itself would write, the mean estimates KL(reference || policy) in nats a token.
    """
    difference = mx.where(mask, mx.stop_gradient(logps) - reference, 0)
    return (mx.expm1(difference) - difference).sum(-1) / mx.maximum(mask.sum(-1), 1)
