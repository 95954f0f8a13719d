"""MLX's own kernel for the gated delta rule."""

from typing import Any

import mlx.core as mx
from mlx.core import array

WIDTH = 128
HEADS = {(16, 32), (16, 48), (24, 24), (32, 32)}
"""Heads of keys and of values. For others, and on a CPU, MLX goes through the tokens one by one."""


def fits(q: array, v: array, decay: array) -> bool:
    """Whether `mx.fast.gated_delta_update` has a kernel for these: on Metal, with one decay a head. MLX 0.31.2 has none."""
    return (
        hasattr(mx.fast, "gated_delta_update")
        and mx.metal.is_available()
        and mx.default_device().type == mx.DeviceType.gpu
        and (q.shape[-1], v.shape[-1]) == (WIDTH, WIDTH)
        and (q.shape[1], v.shape[1]) in HEADS
        and decay.shape[-1] == 1
    )


def gated_delta_rule(q: array, k: array, v: array, decay: array, beta: array, state: array) -> tuple[array, array]:
    """As `rule.linear_attention`, with one decay a head. It takes tokens before heads, and the state transposed.

    Its kernels leave a millionth of a state where a token would leave less.
    """
    fast: Any = mx.fast
    parts = (q, k, v, mx.exp(decay.astype(mx.float32)).squeeze(-1), beta)
    by_token = (part.astype(mx.float32).swapaxes(1, 2) for part in parts)
    y, state = fast.gated_delta_update(*by_token, initial_state=state.swapaxes(-1, -2))
    return y.swapaxes(1, 2), state.swapaxes(-1, -2)
