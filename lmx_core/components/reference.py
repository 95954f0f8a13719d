"""What the fast paths compute, written out: slow, short enough to be believed, and compared with them in the tests."""

import math

import mlx.core as mx
from mlx.core import array


def attend(
    q: array, k: array, v: array, scale: float, allowed: array | None = None, bias: array | None = None
) -> array:
    """`softmax(scale * q k^T + bias) v`, (B, H, L, E); each key/value head serves `H / K` query heads in a row."""
    groups = q.shape[1] // k.shape[1]
    k, v = mx.repeat(k, groups, axis=1), mx.repeat(v, groups, axis=1)
    scores = scale * (q @ k.swapaxes(-1, -2))
    scores = scores if bias is None else scores + bias
    scores = scores if allowed is None else mx.where(allowed, scores, -mx.inf)
    weights = mx.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)) @ v


def rotate(x: array, theta: float, positions: list[int]) -> array:
    """Equation 34 of arXiv:2104.09864 on (B, H, L, E), the pair of channel i being channel i + E/2."""
    half = x.shape[-1] // 2
    angles = mx.array([[position * theta ** (-i / half) for i in range(half)] for position in positions])
    a, b = x[..., :half], x[..., half:]
    return mx.concatenate([a * mx.cos(angles) - b * mx.sin(angles), a * mx.sin(angles) + b * mx.cos(angles)], axis=-1)


def sinusoids(position: int, width: int) -> list[float]:
    """Section 3.5 of arXiv:1706.03762 for one position."""
    angles = [position / 10_000 ** (2 * (i // 2) / width) for i in range(width)]
    return [math.cos(angle) if i % 2 else math.sin(angle) for i, angle in enumerate(angles)]


def alibi(n_heads: int, length: int, total: int) -> list[list[list[float]]]:
    """Figure 3 of arXiv:2108.12409 for a power of two of heads: (H, L, S), the last L of S tokens asking."""
    first = total - length
    return [
        [[-(2 ** (-8 * (head + 1) / n_heads)) * abs(first + i - j) for j in range(total)] for i in range(length)]
        for head in range(n_heads)
    ]


def rms_norm(x: array, weight: array, eps: float) -> array:
    """arXiv:1910.07467, equation 4."""
    return weight * x / mx.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)


def layer_norm(x: array, weight: array, bias: array, eps: float) -> array:
    """arXiv:1607.06450, equation 4."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return weight * centred / mx.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps) + bias
