"""Softmax attention and activations for training on a CPU, in arithmetic that a compiler vectorises.

There MLX works out `exp` and `erf` number by number, which is most of a training step. Sums, products and shifts of
contiguous float32 arrays that `mx.compile` fuses are vectorised by g++, which it calls: 2^t takes a twelfth of the time of
`mx.exp`. A fusion is at most 11 operations deep and what it cuts off it may read in strides, so each expression here is
kept short enough, and what two of them share is an array. Uncompiled they gain nothing; `active` says when they serve.
"""

import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

import mlx.core as mx
from mlx.core import array

from lmx_core.shapes import Bool, Float

LOG2E, LN2 = 1.4426950408889634, 0.6931471805599453
LOWEST = -87.0
"""2^t below 2^-87 is 0: products of such numbers are denormal, with which a CPU is many times slower."""
WIDEST = 126.0
POWERS = (
    1.0,
    0.6931472420692444,
    0.24022673070430756,
    0.05550379678606987,
    0.00961671955883503,
    0.0013339490396901965,
    0.00015653664013370872,
    1.5030574104457628e-05,
)
"""Coefficients of 2^t on [-1, 1], minimax in the relative error (1.2e-8) and exact at 0."""
TAIL = (0.31938153, -0.356563782, 1.781477937, -1.821255978, 1.330274429)
"""Coefficients of 26.2.17 of Abramowitz and Stegun: the normal distribution beyond x within 7.5e-8."""
DENSITY = 0.3989422804014327  # 1 / sqrt(2 pi)

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


def _power(t: array) -> array:
    """2^t for -126 <= t <= 126."""
    # The exponent is written as bits, which have no gradient.
    whole = mx.stop_gradient(t).astype(mx.int32)
    scale = mx.left_shift(whole + 127, 23).view(mx.float32)
    f = t - whole.astype(mx.float32)
    c, f2 = POWERS, f * f
    low, high = (c[0] + c[1] * f) + f2 * (c[2] + c[3] * f), (c[4] + c[5] * f) + f2 * (c[6] + c[7] * f)
    return (low + f2 * f2 * high) * scale


def _power_or_zero(t: array) -> array:
    """2^t for t <= 0, and 0 below 2^-87: what is raised to that is taken off again."""
    return _power(mx.where(t < LOWEST, LOWEST, t)) - 2.0**LOWEST


def _power_below_gradient(primals: Any, cotangent: array, output: array) -> tuple[array, array]:
    return cotangent * output * LN2, mx.zeros_like(primals[1])


@with_gradient(_power_below_gradient)
def power_below(x: array, top: array) -> array:
    """`2^(x - top)` for x <= top; the gradient takes `top` for a constant."""
    return _power_or_zero(x - mx.stop_gradient(top))


def _sigmoid_gradient(primals: Any, cotangent: array, output: array) -> array:
    return cotangent * output * (1 - output)


def _sigmoid_tangent(x: array, along: array) -> array:
    return _sigmoid_gradient(x, along, sigmoid(x))


@with_gradient(_sigmoid_gradient, _sigmoid_tangent)
def sigmoid(x: array) -> array:
    """`1 / (1 + exp(-x))`, within 2e-7 of its size; at least 1e-38."""
    t = x * -LOG2E
    return 1 / (1 + _power(mx.where(t < -WIDEST, -WIDEST, mx.where(t > WIDEST, WIDEST, t))))


def _normal_gradient(primals: Any, cotangents: Any, outputs: Any) -> array:
    return (cotangents[0] - cotangents[1] * primals) * outputs[1]


def _normal_tangent(x: array, along: array) -> tuple[array, array]:
    _, density = normal(x)
    return along * density, -along * x * density


@with_gradient(_normal_gradient, _normal_tangent)
def normal(x: array) -> tuple[array, array]:
    """The standard normal distribution up to x, within 1.5e-7, and its density."""
    density = _apart(_power_or_zero(x * x * (-LOG2E / 2)))
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


def attention(
    q: Float[array, "B H L E"],
    k: Float[array, "B K S E"],
    v: Float[array, "B K S E2"],
    scale: float,
    mask: Bool[array, "... L S"] | Float[array, "... L S"] | None = None,
    sinks: Float[array, "H"] | None = None,
) -> Float[array, "B H L E2"]:
    """`softmax(scale * q k^T + mask) v`; what a boolean mask forbids counts as the lowest number instead.

    The scores are powers of 2 and lie as (S, L), along which a maximum is vectorised. Their sums come from a column of
    ones beside v, and divide what comes out in place of the weights, as in arXiv:2205.14135.
    """
    batch, heads, length, width = q.shape
    shared, group = k.shape[1], heads // k.shape[1]
    q = (q * (scale * LOG2E)).reshape(batch, shared, group, length, width)
    found = scores(k[:, :, None], q)
    if mask is not None:
        found = found + _added(mask, shared, group)
    top = mx.stop_gradient(found).max(axis=-2, keepdims=True)
    sunk = None if sinks is None else (sinks * LOG2E).reshape(shared, group, 1, 1)
    if sunk is not None:
        top = mx.maximum(top, mx.stop_gradient(sunk))
    ones = mx.ones((*v.shape[:-1], 1))
    out = mixed(power_below(found, top), mx.concatenate([v, ones], axis=-1)[:, :, None])
    total = out[..., -1:]
    if sunk is not None:
        total = total + mx.exp((sunk - top).swapaxes(-1, -2) * LN2)
    return (out[..., :-1] / total).reshape(batch, heads, length, -1)


def _added(mask: array, shared: int, group: int) -> array:
    """What a mask adds to the scores, (B or 1, K or 1, H / K or 1, S, L)."""
    mask = mask.reshape(*(1,) * (4 - mask.ndim), *mask.shape).swapaxes(-1, -2)
    parts = (shared, group) if mask.shape[1] > 1 else (1, 1)
    mask = mask.reshape(mask.shape[0], *parts, *mask.shape[2:])
    added = mx.where(mask, 0.0, mx.finfo(mx.float32).min) if mask.dtype == mx.bool_ else mask * LOG2E
    return mx.contiguous(added)
