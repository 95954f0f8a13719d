"""Log-probabilities of completions, for which no logit of a prompt or of padding is computed."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.chunks import custom
from lmx_core.losses import hidden_logps

Batch = Mapping[str, array]


def completion_hidden(model: Any, batch: Batch) -> array:
    """What the head reads to predict the targets of a batch, (B, C, D): `inputs`, (B, L), of which input `starts`, (B,), is
    before the first of the `targets`, (B, C).
    """
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
