"""The recurrences, token by token: slow, short enough to be believed, compared with the fast form in the tests."""

import mlx.core as mx
from mlx.core import array


def gated_delta_rule(q: array, k: array, v: array, decay: array, beta: array, state: array) -> tuple[array, array]:
    """Equation 10 of arXiv:2412.06464, one token after the other."""
    outputs: list[array] = []
    for t in range(q.shape[2]):
        key = k[:, :, t, :, None]
        state = mx.exp(decay[:, :, t])[..., None, None] * state
        recalled = (key * state).sum(axis=-2)
        written = beta[:, :, t, None] * (v[:, :, t] - recalled)
        state = state + key * written[..., None, :]
        outputs.append((q[:, :, t, :, None] * state).sum(axis=-2))
    return mx.stack(outputs, axis=2), state


def convolution(x: array, weight: array) -> array:
    """Each channel of (B, L, C) with its row of (C, W), the last column for the token itself."""
    width = weight.shape[1]
    rows = [
        sum((weight[:, width - 1 - back] * x[:, t - back] for back in range(min(width, t + 1))), start=mx.array(0.0))
        for t in range(x.shape[1])
    ]
    return mx.stack(rows, axis=1)
