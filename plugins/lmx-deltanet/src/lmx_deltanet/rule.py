"""Linear attention with a state: with decays or without, with the delta rule or without."""

import functools
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.shapes import Float
from lmx_deltanet.triangle import Products, across, below, lower, unit_lower_inverse

CHUNK = 64
"""Tokens that are computed at once: matrices of this size within, a loop over chunks between."""
SEGMENT, SEGMENTS = 4, 8
"""The gradient keeps the state after so many chunks, and after so many times as many tokens again and again, and computes
what lies between anew."""
Rule = Callable[..., tuple[array, array]]


def linear_attention(
    q: Float[array, "B K L E"],
    k: Float[array, "B K L E"],
    v: Float[array, "B H L E2"],
    decay: Float[array, "B H L D"] | None,
    beta: Float[array, "B H L"] | None,
    state: Float[array, "B H E E2"],
    size: int = CHUNK,
) -> tuple[Float[array, "B H L E2"], Float[array, "B H E E2"]]:
    """`S <- diag(exp(decay)) S;  S <- S + k (beta (v - S^T k))^T;  y = S^T q` for each token, and the last S. In float32.

    A decay is at most 0, one number a head (D = 1: arXiv:2412.06464, equation 10) or one a key channel (D = E:
    arXiv:2510.26692, equation 1); None lets nothing fade (arXiv:2406.06484). Without a beta there is no delta rule but
    `S <- S + k v^T` (arXiv:2312.06635). With one, keys are expected to have length 1 at most. Each head of queries and keys
    serves `H / K` heads of values in a row.

    One token is a step of the recurrence; more go through it in chunks of `size`.
    """
    q, k, v, state = (part.astype(mx.float32) for part in (q, k, v, state))
    q, k = (mx.repeat(part, v.shape[1] // part.shape[1], axis=1) for part in (q, k))
    decay = mx.zeros((*k.shape[:-1], 1)) if decay is None else decay.astype(mx.float32)
    given = () if beta is None else (beta.astype(mx.float32)[..., None],)
    length = q.shape[2]
    if length == 1:
        return step(q, k, v, decay, state, *given)
    read, span = recomputed(functools.partial(chunked, size=min(size, length))), SEGMENT * size
    while span < length:
        read, span = recomputed(functools.partial(in_segments, rule=read, span=span)), SEGMENTS * span
    return read(q, k, v, decay, state, *given)


def in_segments(
    q: array, k: array, v: array, decay: array, state: array, *beta: array, rule: Rule, span: int
) -> tuple[array, array]:
    """A rule for `span` tokens at a time."""
    borders = list(range(span, q.shape[2], span))
    outputs: list[array] = []
    for segment in zip(*(mx.split(part, borders, axis=2) for part in (q, k, v, decay, *beta)), strict=True):
        y, state = rule(*segment[:STATE], state, *segment[STATE:])
        outputs.append(y)
    return mx.concatenate(outputs, axis=2), state


def step(q: array, k: array, v: array, decay: array, state: array, beta: array | None = None) -> tuple[array, array]:
    """One token."""
    state = mx.exp(decay).swapaxes(-1, -2) * state
    written = v if beta is None else beta * (v - k @ state)
    state = state + k.swapaxes(-1, -2) * written
    return q @ state, state


def chunked(
    q: array, k: array, v: array, decay: array, state: array, beta: array | None = None, *, size: int
) -> tuple[array, array]:
    """Any number of tokens, `size` at once, in the WY form of section 3.2 of arXiv:2406.06484.

    Within a chunk, what the tokens write is the solution u of a triangular system, `u_t = beta_t (v_t - what S and
    u_1 .. u_(t-1) recall for k_t)`. It is linear in S: all but the part of S is computed for all chunks at once.
    """
    length = q.shape[2]
    q, k, v, decay = (chunks(part, size) for part in (q, k, v, decay))
    within = by_head if decay.shape[-1] == 1 else by_channel
    recalled = None
    if beta is None:
        (asked,), kept, left, seen, _ = within([q], k, mx.exp(decay))
    else:
        beta = chunks(beta, size)
        (asked, recalled), kept, left, seen, (earlier,) = within([q, beta * k], k, mx.exp(decay))
        solution = unit_lower_inverse(k.shape[-2], earlier)
        v, recalled = solution @ (beta * v), solution @ recalled
    states, written, state = scan(v, recalled, kept, left, state)
    y = asked @ states + seen @ written
    return y[..., :size, :].flatten(2, 3)[:, :, :length], state


Within = tuple[list[array], array, array, array, list[Products]]
"""Rows that are decayed since a chunk began, keys that are decayed until it ends, what the whole of it leaves, products of
the first rows with keys up to their own token, and of the other rows with earlier keys."""


def by_channel(rows: list[array], k: Float[array, "*B T E"], left: Float[array, "*B T E"]) -> Within:
    """For what is left of each channel."""
    begun, kept, whole, (seen, *earlier) = across(rows, k, left)
    return begun, kept, whole, lower((rows[0] * k).sum(axis=-1), seen), earlier


def by_head(rows: list[array], k: Float[array, "*B T E"], left: Float[array, "*B T 1"]) -> Within:
    """For what is left of all channels alike: decays of one channel, and products without them."""
    one = mx.ones_like(left)
    (since,), until, whole, (decays,) = across([one], one, left)
    seen = lower(one.squeeze(-1), decays) * (rows[0] @ k.swapaxes(-1, -2))
    earlier = [[decay * each for decay, each in zip(decays, below(row, k), strict=True)] for row in rows[1:]]
    return [row * since for row in rows], k * until, whole, seen, earlier


def scan(
    v: Float[array, "B H N T E2"],
    recalled: Float[array, "B H N T E"] | None,
    kept: Float[array, "B H N T E"],
    left: Float[array, "B H N 1 D"],
    state: Float[array, "B H E E2"],
) -> tuple[Float[array, "B H N E E2"], Float[array, "B H N T E2"], Float[array, "B H E E2"]]:
    """One chunk after the other: the state before each, what its tokens write, and the state after the last."""
    n = v.shape[2]
    values, keys, fading = (mx.split(part, n, axis=2) for part in (v, kept.swapaxes(-1, -2), left.swapaxes(-1, -2)))
    recalls = [None] * n if recalled is None else mx.split(recalled, n, axis=2)
    states, written, state = [], [], state[:, :, None]
    for i in range(n):
        states.append(state)
        recall = recalls[i]
        written.append(values[i] if recall is None else values[i] - recall @ state)
        state = fading[i] * state + keys[i] @ written[i]
    return mx.concatenate(states, axis=2), mx.concatenate(written, axis=2), state.squeeze(2)


def chunks(x: Float[array, "B H L E"], size: int) -> Float[array, "B H N T E"]:
    """Cut into pieces of `size` tokens, each filled up to a power of two. What fills are zeros: tokens that write nothing
    and let nothing fade.
    """
    x = mx.pad(x, [(0, 0), (0, 0), (0, -x.shape[2] % size), (0, 0)])
    x = x.reshape(*x.shape[:2], -1, size, x.shape[-1])
    missing = (1 << (size - 1).bit_length()) - size
    return mx.pad(x, [(0, 0)] * 3 + [(0, missing), (0, 0)]) if missing else x


def recomputed(rule: Rule) -> Rule:
    """A rule whose gradient remembers its inputs alone, and computes the rest again.

    Gradients of a state wait for all the others, and with them the segment before: MLX would begin all segments side by
    side, and hold what all of them remember at once.
    """
    read: Any = mx.custom_function(rule)

    @read.vjp
    def backwards(inputs: Any, cotangents: Any, outputs: Any) -> tuple[array, ...]:
        inputs = mx.depends([*inputs], [*cotangents])
        gradients = mx.vjp(rule, inputs, [*cotangents])[1]
        gradients[STATE] = mx.depends([gradients[STATE]], gradients[:STATE] + gradients[STATE + 1 :])[0]
        return tuple(gradients)

    return read


STATE = 4
"""Its place among the inputs of a rule."""
