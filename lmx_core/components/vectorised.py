"""Transcendental functions for training on a CPU, in arithmetic that a compiler vectorises.

MLX's own `exp` and `erf` compute one number at a time there, and are most of a training step. Sums, products and bit
shifts of contiguous float32 arrays, fused by `mx.compile`, are vectorised by the C++ compiler that it calls. Each kernel
here is small enough for one fusion (MLX's are at most 11 operations deep), and reads no broadcast row: neither would be
vectorised else. Uncompiled they are no gain; `active` says when they are used.
"""

import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import mlx.core as mx
from mlx.core import array

LOG2E, LN2 = 1.4426950408889634, 0.6931471805599453
LOWEST = -87.0
"""Powers of two below this one are 0: their products would soon be denormal, which a CPU computes 100 times slower."""
LARGEST = 126.0
TAYLOR = (
    1.0,
    0.6931472420692444,
    0.24022673070430756,
    0.05550379678606987,
    0.00961671955883503,
    0.0013339490396901965,
    0.00015653664013370872,
    1.5030574104457628e-05,
)
"""A minimax polynomial of 2^x on [-1, 1], exact at 0; its relative error is 1.2e-8."""

_tracing: ContextVar[bool] = ContextVar("tracing", default=False)


def compiled(function: Callable[..., Any], **how: Any) -> Callable[..., Any]:
    """`mx.compile(function, **how)`; the components that it calls may be vectorised."""

    def traced(*args: Any, **kwargs: Any) -> Any:
        with tracing():
            return function(*args, **kwargs)

    return mx.compile(traced, **how)


@contextmanager
def tracing() -> Generator[None, None, None]:
    """Within it the forms of this module are used: what runs there is being compiled."""
    token = _tracing.set(True)
    try:
        yield
    finally:
        _tracing.reset(token)


def active(*arrays: array) -> bool:
    """Whether these arrays, of a function that is being compiled for this CPU, are worth this module."""
    return (
        _tracing.get()
        and mx.default_device() == mx.Device(mx.cpu)
        and all(each.dtype == mx.float32 for each in arrays)
        and _compiles()
    )


@cache
def _compiles() -> bool:
    """MLX fuses with g++, and not at all where it is told not to."""
    return shutil.which("g++") is not None and "MLX_DISABLE_COMPILE" not in os.environ


def _power(t: array) -> array:
    """2^t for -126 <= t <= 126; t is read by several kernels."""
    whole = mx.stop_gradient(t).astype(mx.int32)  # towards zero
    scale = mx.left_shift(whole + 127, 23).view(mx.float32)  # 2^whole, by its exponent
    f = t - whole.astype(mx.float32)
    c, f2 = TAYLOR, f * f
    low, high = (c[0] + c[1] * f) + f2 * (c[2] + c[3] * f), (c[4] + c[5] * f) + f2 * (c[6] + c[7] * f)
    return (low + f2 * f2 * high) * scale


@mx.custom_function
def power_below(x: array, top: array) -> array:
    """`2^(x - top)` for x <= top, which is constant in its gradient; 0 below 2^-87."""
    top = mx.stop_gradient(top)
    t = mx.where(x - top < LOWEST, LOWEST, x - top)
    return _power(t) - 2.0**LOWEST  # so that what is clamped becomes 0


@power_below.vjp
def _power_below_vjp(primals: Any, cotangent: array, output: array) -> tuple[array, array]:
    return cotangent * output * LN2, mx.zeros_like(primals[1])


@power_below.jvp
def _power_below_jvp(primals: Any, tangents: Any) -> array:
    return tangents[0] * power_below(*primals) * LN2


@mx.custom_function
def sigmoid(x: array) -> array:
    """`1 / (1 + exp(-x))`."""
    t = x * -LOG2E
    return 1 / (1 + _power(mx.where(t < -LARGEST, -LARGEST, mx.where(t > LARGEST, LARGEST, t))))


@sigmoid.vjp
def _sigmoid_vjp(primals: Any, cotangent: array, output: array) -> array:
    return cotangent * output * (1 - output)


@sigmoid.jvp
def _sigmoid_jvp(primal: array, tangent: array) -> array:
    y = sigmoid(primal)
    return tangent * y * (1 - y)


def silu(x: array) -> array:
    """`x sigmoid(x)`."""
    return x * sigmoid(x)


@mx.custom_function
def scores(k: array, q: array) -> array:
    """`k q^T`, (..., S, L), whose gradients come out contiguous."""
    return k @ q.swapaxes(-1, -2)


@scores.vjp
def _scores_vjp(primals: Any, cotangent: array, output: array) -> tuple[array, array]:
    k, q = primals
    return _summed_to(cotangent @ q, k), _summed_to(cotangent.swapaxes(-1, -2) @ k, q)


@mx.custom_function
def mixed(weights: array, v: array) -> array:
    """`weights^T v`, of weights (..., S, L), whose gradients come out contiguous."""
    return weights.swapaxes(-1, -2) @ v


@mixed.vjp
def _mixed_vjp(primals: Any, cotangent: array, output: array) -> tuple[array, array]:
    weights, v = primals
    return _summed_to(v @ cotangent.swapaxes(-1, -2), weights), _summed_to(weights @ cotangent, v)


def _summed_to(gradient: array, like: array) -> array:
    """Over the groups of heads that share keys."""
    axes = [i for i in range(gradient.ndim) if gradient.shape[i] != like.shape[i]]
    return gradient.sum(axis=axes, keepdims=True) if axes else gradient


def attention(q: array, k: array, v: array, scale: float, mask: array | None = None, sinks: array | None = None) -> array:
    """`softmax(scale * q k^T + mask) v`; q (B, H, L, E), k and v with fewer heads, sinks (H,).

    A boolean mask is True where one may look. Scores are held as (S, L), of which a maximum over S is vectorised; the
    sums are one more column of v, and divide what comes out instead of the weights.
    """
    batch, heads, length, width = q.shape
    shared = k.shape[1]
    q = (q * (scale * LOG2E)).reshape(batch, shared, heads // shared, length, width)
    found = scores(k[:, :, None], q)
    if mask is not None:
        found = found + _added(mask, shared)
    top = mx.stop_gradient(found).max(axis=-2, keepdims=True)
    if sinks is not None:
        sunk = (sinks * LOG2E).reshape(shared, heads // shared, 1, 1)
        top = mx.maximum(top, mx.stop_gradient(sunk))
    weights = power_below(found, top)
    ones = mx.ones((*v.shape[:-1], 1))
    out = mixed(weights, mx.concatenate([v, ones], axis=-1)[:, :, None])
    total = out[..., -1:]
    if sinks is not None:
        total = total + mx.exp((sunk - top).swapaxes(-1, -2) * LN2)
    return (out[..., :-1] / total).reshape(batch, heads, length, -1)


def _added(mask: array, shared: int) -> array:
    """What a mask adds to scores (B, K, H / K, S, L) in bits; as MLX's, a query that sees nothing sees all alike."""
    mask = mask.reshape(*(1,) * (4 - mask.ndim), *mask.shape).swapaxes(-1, -2)
    groups = mask.shape[1]
    if groups > 1:
        mask = mask.reshape(mask.shape[0], shared, groups // shared, *mask.shape[2:])
    else:
        mask = mask[:, :, None]
    lowest = mx.finfo(mx.float32).min
    added = mx.where(mask, 0.0, lowest) if mask.dtype == mx.bool_ else mask * LOG2E
    return mx.contiguous(added)


ACTIVATIONS: dict[str, Callable[[array], array]] = {"sigmoid": sigmoid, "silu": silu}
