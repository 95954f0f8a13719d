"""What the fast paths compute, written out: slow, short enough to be believed, and compared with them in the tests."""

import math

import mlx.core as mx
from mlx.core import array


def attend(
    q: array,
    k: array,
    v: array,
    scale: float,
    allowed: array | None = None,
    bias: array | None = None,
    softcap: float | None = None,
    sinks: array | None = None,
) -> array:
    """`softmax(softcap tanh(scale * q k^T / softcap) + bias) v`, (B, H, L, E).

    Each key/value head serves `H / K` query heads in a row. A sink takes its share of the weights, and gives nothing.
    """
    groups = q.shape[1] // k.shape[1]
    k, v = mx.repeat(k, groups, axis=1), mx.repeat(v, groups, axis=1)
    scores = scale * (q @ k.swapaxes(-1, -2))
    scores = scores if softcap is None else softcap * mx.tanh(scores / softcap)
    scores = scores if bias is None else scores + bias
    scores = scores if allowed is None else mx.where(allowed, scores, -mx.inf)
    weights = mx.exp(scores)
    sunk = 0 if sinks is None else mx.exp(sinks)[:, None, None]
    return (weights / (weights.sum(axis=-1, keepdims=True) + sunk)) @ v


def allowed(length: int, total: int, window: int | None = None, chunk: int | None = None, keep: int = 0) -> array:
    """Who may look at whom, one by one: (L, S), the last L of S tokens asking."""

    def sees(i: int, j: int) -> bool:
        near = (window is None or i - j < window) and (chunk is None or i // chunk == j // chunk)
        return j <= i and (near or j < keep)

    return mx.array([[sees(i, j) for j in range(total)] for i in range(total - length, total)])


def rotate(x: array, frequencies: list[float], positions: list[int], interleaved: bool = False) -> array:
    """Equation 34 of arXiv:2104.09864 on the first numbers of (B, H, L, E): channel i with i + n/2, or 2i with 2i + 1."""
    half = len(frequencies)
    pairs = [(2 * i, 2 * i + 1) if interleaved else (i, half + i) for i in range(half)]
    out = [x[..., i] for i in range(x.shape[-1])]
    for frequency, (a, b) in zip(frequencies, pairs, strict=True):
        angles = mx.array([position * frequency for position in positions])
        out[a] = x[..., a] * mx.cos(angles) - x[..., b] * mx.sin(angles)
        out[b] = x[..., a] * mx.sin(angles) + x[..., b] * mx.cos(angles)
    return mx.stack(out, axis=-1)


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


def relative_bucket(distance: int, n_buckets: int, max_distance: int) -> int:
    """Of a key so far back, as T5 sorts them: near ones each by itself, far ones by the logarithm."""
    exact = n_buckets // 2
    if distance < exact:
        return max(distance, 0)
    share = math.log(distance / exact) / math.log(max_distance / exact)
    return min(exact + int(share * (n_buckets - exact)), n_buckets - 1)
