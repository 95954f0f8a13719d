"""The recurrences, token by token: slow, short enough to be believed, compared with the fast form in the tests."""

import mlx.core as mx
from mlx.core import array


def linear_attention(
    q: array, k: array, v: array, decay: array | None, beta: array | None, state: array
) -> tuple[array, array]:
    """`S <- diag(exp(decay)) S;  S <- S + k (beta (v - S^T k))^T;  y = S^T q`, one token after the other.

    Without a decay nothing fades; without a beta what is written is v. A head of keys serves some of values in a row.
    """
    q, k = (mx.repeat(part, v.shape[1] // part.shape[1], axis=1) for part in (q, k))
    outputs: list[array] = []
    for t in range(q.shape[2]):
        key, written = k[:, :, t, :, None], v[:, :, t]
        if decay is not None:
            state = mx.exp(decay[:, :, t])[..., None] * state
        if beta is not None:
            written = beta[:, :, t, None] * (written - (key * state).sum(axis=-2))
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
