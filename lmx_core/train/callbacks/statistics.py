"""Many numbers in a few."""

from collections.abc import Iterable, Mapping, Sequence

import mlx.core as mx
from mlx.core import array

from lmx_core.lengths import total
from lmx_core.train.callbacks.probe import part


def statistics(parts: Sequence[array], counts: Sequence[array] | None = None) -> dict[str, array]:
    """Of all numbers of several arrays: their `mean`, `std`, the `max` of their sizes, the share of `zeros`.

    Of those where `counts` is 1 alone, arrays of 0 and 1 that are broadcast to `parts`. In float32, and the deviations are
    from the mean that was found first: a difference of squares would be rounding.
    """
    parts = [each.astype(mx.float32) for each in parts]
    counts = [mx.ones(each.shape) if i is None else mx.broadcast_to(i, each.shape) for each, i in _with(parts, counts)]
    number = _sum(counts)
    mean = _sum(count * each for each, count in zip(parts, counts, strict=True)) / number
    spread = _sum(count * mx.square(each - mean) for each, count in zip(parts, counts, strict=True)) / number
    sizes = [mx.abs(each * count).max() for each, count in zip(parts, counts, strict=True) if each.size]
    return {
        "mean": mean,
        "std": mx.sqrt(spread),
        "max": mx.stack(sizes).max(),
        "zeros": _sum(count * (each == 0) for each, count in zip(parts, counts, strict=True)) / number,
    }


def by_part(flat: Mapping[str, array]) -> dict[str, list[array]]:
    """Parameters by the part of the model that they belong to, in its order."""
    found: dict[str, list[array]] = {}
    for path, value in flat.items():
        found.setdefault(part(path), []).append(value)
    return found


def named(prefix: str, where: str, values: Mapping[str, array]) -> dict[str, array]:
    return {f"{prefix}/{where}/{what}": value for what, value in values.items()}


def _with(parts: Sequence[array], counts: Sequence[array] | None) -> Iterable[tuple[array, array | None]]:
    return zip(parts, counts or [None] * len(parts), strict=True)


def _sum(parts: Iterable[array]) -> array:
    return sum((total(each) for each in parts), start=mx.array(0.0))
