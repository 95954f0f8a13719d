"""The one place in which scores become weights."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

import mlx.core as mx
from mlx.core import array

from lmx_core.components import vectorised
from lmx_core.components.masks import Mask, View, causal
from lmx_core.shapes import Float

QUERIES = 64
"""Queries that are scored at once where no kernel does without the scores: bounds memory, and skips what is hidden."""
FUSED = frozenset({64, 80, 128})
"""Head widths for which MLX's GPU kernels never hold all scores."""
Bias = Callable[[array, array], array | None]
"""From the positions of queries and keys to what is added to their scores."""
_watchers: list[Callable[[array], None]] = []


@contextmanager
def watching(see: Callable[[Float[array, "B H L S"]], None]) -> Generator[None, None, None]:
    """Within it `see` is given the weights of each part of the queries, in order; a sink is the last key.

    They are worked out beside what the kernel computes, which stays as it is.
    """
    _watchers.append(see)
    try:
        yield
    finally:
        _watchers.remove(see)


def attend(
    q: Float[array, "B H L E"],
    k: Float[array, "B K S E"],
    v: Float[array, "B K S E2"],
    scale: float,
    mask: Mask | View = None,
    bias: Float[array, "B2 H L S"] | Bias | None = None,
    *,
    softcap: float | None = None,
    sinks: Float[array, "H"] | None = None,
) -> Float[array, "B H L E2"]:
    """`softmax(softcap * tanh(scale * q k^T / softcap) + bias, where the mask allows) v`.

    A sink is a score that joins the softmax of its head and weighs nothing (arXiv:2508.10925). Where the whole matrix of
    scores would be held, queries go in parts, each over the keys that it can see.
    """
    length = q.shape[2]
    view = mask if isinstance(mask, View) else View(mask=mask, length=length, columns=k.shape[2])
    fast = softcap is None and vectorised.active(q, k, v)
    most = vectorised.QUERIES if fast else QUERIES
    step = length if _never_holds_scores(q, v, softcap, bias) and not _watchers else most
    parts: list[array] = []
    together: list[vectorised.Part] = []
    for start in range(0, length, step):
        end = min(start + step, length)
        begin, last = view.span(start, end)
        added = _added(view, bias, start, end, begin, last, q.dtype)
        some = q[:, :, start:end], k[:, :, begin:last], v[:, :, begin:last]
        for see in _watchers:
            see(_weights(some[0], some[1], scale, added, softcap, sinks))
        if fast:
            allowed = causal(end - start, last - begin - (end - start)) if isinstance(added, str) else added
            together.append(vectorised.Part((start, end), (begin, last), allowed))
        elif softcap is None:
            parts.append(mx.fast.scaled_dot_product_attention(*some, scale=scale, mask=added, sinks=sinks))
        else:
            parts.append(_capped(*some, scale, added, softcap, sinks))
    if fast:
        return vectorised.attention(q, k, v, scale, together, sinks)
    return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=2)


def _never_holds_scores(q: array, v: array, softcap: float | None, bias: object) -> bool:
    plain = softcap is None and bias is None and q.shape[-1] == v.shape[-1]
    return plain and q.shape[-1] in FUSED and mx.default_device() == mx.gpu


def _added(view: View, bias: array | Bias | None, start: int, end: int, begin: int, last: int, dtype: mx.Dtype) -> Mask:
    """What is added to the scores of these queries: a mask, or the bias with -inf where the mask forbids."""
    allowed = view.allowed(start, end)
    if bias is None:
        return allowed
    if isinstance(bias, array):
        part = bias[:, :, start:end, begin:last] if bias.shape[2] > 1 else bias[..., begin:last]
    else:
        part = bias(view.queries(start, end), view.keys(begin, last))
    if part is None:
        return allowed
    if isinstance(allowed, str):
        allowed = causal(end - start, last - begin - (end - start))
    return (part if allowed is None else mx.where(allowed, part, -mx.inf)).astype(dtype)


def _capped(
    q: array, k: array, v: array, scale: float, mask: Mask, softcap: float, sinks: array | None
) -> Float[array, "B H L E2"]:
    """Written out, since no kernel bounds the scores; in groups of heads, so that keys are not repeated."""
    batch, heads, length, _ = q.shape
    weights = _weights(q, k, scale, mask, softcap, sinks)[..., : k.shape[2]].astype(v.dtype)
    groups = (batch, k.shape[1], heads // k.shape[1], length)
    return (weights.reshape(*groups, -1) @ v[:, :, None]).reshape(batch, heads, length, -1)


def _weights(
    q: array, k: array, scale: float, mask: Mask, softcap: float | None, sinks: array | None
) -> Float[array, "B H L S"]:
    """In float32; with sinks there is one column more."""
    batch, heads, length, width = q.shape
    groups = (batch, k.shape[1], heads // k.shape[1], length)
    scores = ((q * scale).reshape(*groups, width) @ k[:, :, None].swapaxes(-1, -2)).astype(mx.float32)
    if softcap is not None:
        scores = softcap * mx.tanh(scores / softcap)
    scores = scores.reshape(batch, heads, length, -1)
    if isinstance(mask, str):
        mask = causal(length, k.shape[2] - length)
    if mask is not None:
        scores = mx.where(mask, scores, -mx.inf) if mask.dtype == mx.bool_ else scores + mask
    if sinks is not None:
        sunk = mx.broadcast_to(sinks[:, None, None], (batch, heads, length, 1))
        scores = mx.concatenate([scores, sunk.astype(scores.dtype)], axis=-1)
    return mx.softmax(scores, axis=-1)
