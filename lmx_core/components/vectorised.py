"""Softmax attention and activations for training on a CPU, in arithmetic that a compiler vectorises.

There MLX works out `exp` and `erf` number by number, which is most of a training step. Sums, products and shifts of
contiguous float32 arrays that `mx.compile` fuses are vectorised by g++, which it calls: 2^t takes a twelfth of the time of
`mx.exp`. A fusion is at most 11 operations deep and what it cuts off it may read in strides, so each expression here is
kept short enough, and what two of them share is an array. Uncompiled they gain nothing; `active` says when they serve.
"""

import os
import shutil
import struct
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, reduce
from itertools import chain, pairwise
from typing import Any, TypeVar

import attrs
import mlx.core as mx
from mlx.core import array

from lmx_core.shapes import Float

LOG2E, LN2 = 1.4426950408889634, 0.6931471805599453
SMALLEST = 87
"""2^-a from here on is 0: products of such numbers are denormal, with which a CPU is many times slower."""
POWERS = (
    1.0,
    0.6931472028596581,
    0.2402264796824316,
    0.05550332491019861,
    0.009618429705338345,
    0.0013398868224576246,
    0.00015355575419336538,
)
"""Coefficients of 2^f on [-1/2, 1/2], minimax in the relative error (2e-9) and exact at 0."""
MAGIC = 12_582_400.0
"""Between 2^23 and 2^24 a float32 has no room for a fraction: adding this rounds to a whole number, whose bits are then its
lowest. Its own last nine are 0, and it has no more digits than MLX 0.31 writes of a constant."""
TAIL = (0.31938153, -0.356563782, 1.781477937, -1.821255978, 1.330274429)
"""Coefficients of 26.2.17 of Abramowitz and Stegun: the normal distribution beyond x within 7.5e-8."""
DENSITY = 0.3989422804014327  # 1 / sqrt(2 pi)

QUERIES = 128
"""Queries that are scored at once: with fewer there are more operations, with more there are more hidden scores."""

F = TypeVar("F", bound=Callable[..., Any])
_tracing: ContextVar[bool] = ContextVar("tracing", default=False)


def compiled(function: Callable[..., Any], **how: Any) -> Callable[..., Any]:
    """`mx.compile(function, **how)`, in which components may take the forms of this file."""

    def traced(*args: Any, **kwargs: Any) -> Any:
        with tracing():
            return function(*args, **kwargs)

    return mx.compile(traced, **how)


@contextmanager
def tracing() -> Generator[None, None, None]:
    """What runs within it is being compiled."""
    token = _tracing.set(True)
    try:
        yield
    finally:
        _tracing.reset(token)


def active(*arrays: array) -> bool:
    """The one rule: a function is being compiled for a CPU by a compiler that is there, and these are float32."""
    return (
        _tracing.get()
        and mx.default_device() == mx.Device(mx.cpu)
        and all(each.dtype == mx.float32 for each in arrays)
        and _fuses()
    )


@cache
def _fuses() -> bool:
    """MLX calls g++ by this name, and leaves functions as they are where that is wished."""
    return shutil.which("g++") is not None and "MLX_DISABLE_COMPILE" not in os.environ


def with_gradient(gradient: Callable[..., Any], tangent: Callable[..., Any] | None = None) -> Callable[[F], F]:
    """A function whose cotangents are `gradient(arguments, cotangent, result)`, which can be differentiated in turn.

    Along a direction its derivative is `tangent(arguments, direction)`, or that of the function as it stands.
    """

    def ruled(function: F) -> F:
        made: Any = mx.custom_function(function)
        made.vjp(gradient)
        if tangent is not None:
            made.jvp(tangent)
        return made

    return ruled


def _power(a: array, again: array, end: int = SMALLEST) -> array:
    """2^-a for a >= 0, and 0 where the whole number next to a is `end` (at most 126) or more.

    `again` are the same numbers, of either sign, by other operations: what two fusions share would be an array that is
    written and read.
    Nothing is chosen by comparing floats, which ends in branches. Bits have no gradient, so that its users bring theirs.
    """
    a, again = mx.stop_gradient(a), mx.stop_gradient(again)
    # What is not a number may have a sign, and other bits, which would alter the sum of bits.
    whole = mx.minimum((MAGIC - mx.abs(again)).view(mx.int32), _bits(MAGIC))
    f = ((a + MAGIC) - MAGIC) - a
    c, f2 = POWERS, f * f
    low, high = (c[0] + c[1] * f) + f2 * (c[2] + c[3] * f), (c[4] + c[5] * f) + f2 * c[6]
    bits = (low + f2 * f2 * high).view(mx.int32) + mx.left_shift(whole, 23)  # the exponent lies there
    return mx.where(whole <= _bits(MAGIC - end), 0, bits).view(mx.float32)


def _bits(x: float) -> int:
    (bits,) = struct.unpack("i", struct.pack("f", x))
    return bits


def _power_below_gradient(primals: Any, cotangent: array, output: array) -> tuple[array, array]:
    return cotangent * output * LN2, mx.zeros_like(primals[1])


def _power_below_tangent(primals: Any, along: Any) -> array:
    return _power_below_gradient(primals, along[0], power_below(*primals))[0]


@with_gradient(_power_below_gradient, _power_below_tangent)
def power_below(x: array, top: array) -> array:
    """`2^(x - top)` for x <= top; the gradient takes `top` for a constant."""
    return _power(top - x, x - top)


def _sigmoid_gradient(primals: Any, cotangent: array, output: array) -> array:
    return cotangent * output * (1 - output)


def _sigmoid_tangent(x: array, along: array) -> array:
    return _sigmoid_gradient(x, along, sigmoid(x))


@with_gradient(_sigmoid_gradient, _sigmoid_tangent)
def sigmoid(x: array) -> array:
    """`1 / (1 + exp(-x))`, within `3e-7 + 1e-7 |x|` of its size; 0 below -87."""
    a = mx.abs(x * LOG2E)  # an array: where a product and a sum are one operation, both would round it differently
    e = _power(a, -a, 126)
    return mx.where(x < 0, e, 1.0) / (1 + e)


def _normal_gradient(primals: Any, cotangents: Any, outputs: Any) -> array:
    return (cotangents[0] - cotangents[1] * primals) * outputs[1]


def _normal_tangent(x: array, along: array) -> tuple[array, array]:
    _, density = normal(x)
    return along * density, -along * x * density


@with_gradient(_normal_gradient, _normal_tangent)
def normal(x: array) -> tuple[array, array]:
    """The standard normal distribution up to x, within 1.5e-7, and its density."""
    t = x * x * (LOG2E / 2)
    density = _power(t, -t)
    u = 1 / (1 + 0.2316419 * mx.abs(x))
    b, u2 = TAIL, u * u
    beyond = _apart(u * ((b[0] + b[1] * u) + u2 * ((b[2] + b[3] * u) + u2 * b[4]))) * density * DENSITY
    return beyond + (x > 0).astype(x.dtype) * (1 - 2 * beyond), density * DENSITY


def _apart(x: array) -> array:
    """x, across which nothing is fused."""
    return x.reshape(1, *x.shape).reshape(x.shape)


def silu(x: array) -> array:
    """`x sigmoid(x)`."""
    return x * sigmoid(x)


def quick_gelu(x: array) -> array:
    """`x sigmoid(1.702 x)`."""
    return x * sigmoid(1.702 * x)


def gelu_tanh(x: array) -> array:
    """`x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`, of which half and tanh are a sigmoid."""
    return x * sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


def gelu(x: array) -> array:
    """x times the standard normal distribution up to x."""
    return x * normal(x)[0]


ACTIVATIONS: dict[str, Callable[[array], array]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "sigmoid": sigmoid,
    "silu": silu,
}
"""Forms of those activations that need one."""


def _scores_gradient(primals: Any, cotangent: array, output: array) -> tuple[array, array]:
    k, q = primals
    return _summed_to(cotangent @ q, k), _summed_to(cotangent.swapaxes(-1, -2) @ k, q)


@with_gradient(_scores_gradient)
def scores(k: array, q: array) -> array:
    """`k q^T`, whose gradients come out contiguous."""
    return k @ q.swapaxes(-1, -2)


def _mixed_gradient(primals: Any, cotangent: array, output: array) -> tuple[array, array]:
    weights, v = primals
    return _summed_to(v @ cotangent.swapaxes(-1, -2), weights), _summed_to(weights @ cotangent, v)


@with_gradient(_mixed_gradient)
def mixed(weights: array, v: array) -> array:
    """`weights^T v`, whose gradients come out contiguous."""
    return weights.swapaxes(-1, -2) @ v


def _summed_to(gradient: array, like: array) -> array:
    """Over the queries' heads that share one of the keys'."""
    axes = [i for i in range(gradient.ndim) if gradient.shape[i] != like.shape[i]]
    return gradient.sum(axis=axes, keepdims=True) if axes else gradient


def spans(x: array, bounds: Sequence[tuple[int, int]], axis: int) -> list[array]:
    """`x[begin:end]` along an axis for each pair of bounds. Where they overlap their gradients are added there alone; MLX
    would fill each up with zeros and add them whole.
    """
    edges = sorted({0, x.shape[axis], *chain(*bounds)})

    def gradient(primals: Any, cotangents: Any, outputs: Any) -> array:
        pieces: list[array] = []
        for low, high in pairwise(edges):
            over = [(g, b) for g, (b, e) in zip(cotangents, bounds, strict=True) if b <= low and high <= e]
            seen = [_cut(g, low - b, high - b, axis) for g, b in over]
            pieces.append(reduce(mx.add, seen) if seen else mx.zeros_like(_cut(primals, low, high, axis)))
        return mx.concatenate(pieces, axis=axis) if len(pieces) > 1 else pieces[0]

    @with_gradient(gradient)
    def cut(x: array) -> list[array]:
        return [_cut(x, begin, end, axis) for begin, end in bounds]

    return cut(x)


def _cut(x: array, begin: int, end: int, axis: int) -> array:
    return x[(slice(None),) * (axis % x.ndim) + (slice(begin, end),)]


@attrs.frozen(eq=False)
class Part:
    """Queries that are scored at once, and over which keys."""

    queries: tuple[int, int]
    keys: tuple[int, int]
    mask: array | None = None


def attention(
    q: Float[array, "B H L E"],
    k: Float[array, "B K S E"],
    v: Float[array, "B K S E2"],
    scale: float,
    parts: Sequence[Part],
    sinks: Float[array, "H"] | None = None,
) -> Float[array, "B H L E2"]:
    """`softmax(scale * q k^T + mask) v` for one part of the queries after another; what a boolean mask forbids counts as
    the lowest number instead.

    The scores are powers of 2 and lie as (S, L), along which a maximum is vectorised. Their sums come from a column of
    ones beside v, and divide what comes out in place of the weights, as in arXiv:2205.14135.
    """
    batch, heads, length, width = q.shape
    shared, group = k.shape[1], heads // k.shape[1]
    q = (q * (scale * LOG2E)).reshape(batch, shared, group, length, width)
    v = mx.concatenate([v, mx.ones((*v.shape[:-1], 1))], axis=-1)
    keys = [part.keys for part in parts]
    each = zip(
        spans(q, [part.queries for part in parts], 3),
        spans(k[:, :, None], keys, 3),
        spans(v[:, :, None], keys, 3),
        strict=True,
    )
    sunk = None if sinks is None else (sinks * LOG2E).reshape(shared, group, 1, 1)
    summed = [_summed(*some, part.mask, sunk) for some, part in zip(each, parts, strict=True)]
    out, total = _values_and_total(mx.concatenate(summed, axis=3))
    return (out / total).reshape(batch, heads, length, -1)


def _summed(q: array, k: array, v: array, mask: array | None, sunk: array | None) -> array:
    """Values, and a column of ones, weighed by powers of 2 that are not yet divided by their sum."""
    found = scores(k, q)
    if mask is not None:
        found = found + _added(mask, *q.shape[1:3])
    top = mx.stop_gradient(found).max(axis=-2, keepdims=True)
    if sunk is None:
        return mixed(power_below(found, top), v)
    top = mx.maximum(top, mx.stop_gradient(sunk))
    out, total = _values_and_total(mixed(power_below(found, top), v))
    return mx.concatenate([out, total + mx.exp((sunk - top).swapaxes(-1, -2) * LN2)], axis=-1)


def _values_and_total(summed: array) -> list[array]:
    width = summed.shape[-1] - 1
    return spans(summed, [(0, width), (width, width + 1)], -1)


def _added(mask: array, shared: int, group: int) -> array:
    """What a mask adds to the scores, (B or 1, K or 1, H / K or 1, S, L)."""
    mask = mask.reshape(*(1,) * (4 - mask.ndim), *mask.shape).swapaxes(-1, -2)
    parts = (shared, group) if mask.shape[1] > 1 else (1, 1)
    mask = mask.reshape(mask.shape[0], *parts, *mask.shape[2:])
    added = mx.where(mask, 0.0, mx.finfo(mx.float32).min) if mask.dtype == mx.bool_ else mask * LOG2E
    return mx.contiguous(added)
