"""The gated delta rule, in chunks of tokens."""

import mlx.core as mx
from mlx.core import array

from lmx_core.shapes import Float

CHUNK = 64
"""Tokens that are computed at once: matrices of this size within, a loop over chunks between."""


def gated_delta_rule(
    q: Float[array, "B H L E"],
    k: Float[array, "B H L E"],
    v: Float[array, "B H L E2"],
    decay: Float[array, "B H L"],
    beta: Float[array, "B H L"],
    state: Float[array, "B H E E2"],
    size: int = CHUNK,
) -> tuple[Float[array, "B H L E2"], Float[array, "B H E E2"]]:
    """`S <- exp(decay) S;  S <- S + k (beta (v - S^T k))^T;  y = S^T q` for each token, and the last S. In float32.

    Equation 10 of arXiv:2412.06464, computed in the WY form of its section 3.3: within a chunk, what the tokens write is
    the solution `u` of a triangular system, `u_t = beta_t (v_t - (what S and u_1 .. u_(t-1) recall for k_t))`.
    Keys are expected to have length 1, decays to be at most 0.
    """
    length = q.shape[2]
    q, k, v, decay, beta = (chunks(part.astype(mx.float32), min(size, length)) for part in (q, k, v, decay, beta))
    total = mx.cumsum(decay, axis=-1)  # (B, H, N, T), since the start of the chunk
    lower = mx.tri(total.shape[-1], dtype=mx.bool_)
    since = mx.exp(mx.where(lower, total[..., :, None] - total[..., None, :], -mx.inf))  # from token i to token t >= i
    keys = k.swapaxes(-1, -2)
    earlier = mx.tril(beta[..., None] * since * (k @ keys), k=-1)
    solution = unit_lower_inverse(earlier)
    written = solution @ (beta[..., None] * v)
    recalled = solution @ ((beta * mx.exp(total))[..., None] * k)
    asked = mx.exp(total)[..., None] * q
    seen = since * (q @ keys)
    kept = mx.exp(total[..., -1:] - total)[..., None, :] * keys
    fading = mx.exp(total[..., -1])[..., None, None]

    outputs: list[array] = []
    for i in range(total.shape[2]):
        u = written[:, :, i] - recalled[:, :, i] @ state
        outputs.append(asked[:, :, i] @ state + seen[:, :, i] @ u)
        state = fading[:, :, i] * state + kept[:, :, i] @ u
    return mx.concatenate(outputs, axis=2)[:, :, :length], state


def chunks(x: Float[array, "B H L ..."], size: int) -> Float[array, "B H N T ..."]:
    """Cut into pieces of `size` tokens. The last is filled with zeros: tokens that write nothing and let nothing fade."""
    batch, heads, length, *width = x.shape
    missing = -length % size
    if missing:
        x = mx.concatenate([x, mx.zeros((batch, heads, missing, *width), x.dtype)], axis=2)
    return x.reshape(batch, heads, -1, size, *width)


def unit_lower_inverse(a: Float[array, "*B T T"]) -> Float[array, "*B T T"]:
    """`(1 + a)^-1` for a strictly lower triangular a, in `2 log2(T)` matrix products.

    Blocks on the diagonal are inverted, then pairs of them: the inverse of [[X, 0], [c, Y]] is [[x, 0], [-y c x, y]] with
    x and y those of X and Y. As stable as substitution; a series of powers of a is not.
    """
    size = a.shape[-1]
    index = mx.arange(size)
    inverse, block = mx.broadcast_to(mx.eye(size), a.shape), 1
    while block < size:
        inner, outer = index // block, index // (2 * block)
        beside = (outer[:, None] == outer) & (inner[:, None] != inner)
        inverse = inverse - inverse @ mx.where(beside, a, 0) @ inverse
        block *= 2
    return inverse
