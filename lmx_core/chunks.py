"""The head of a model, for a chunk of tokens at a time."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
from mlx.core import array
from mlx.utils import tree_flatten, tree_map, tree_unflatten

CHUNK = 2**24
"""Logits that are held at once, unless told otherwise: 64 MiB in float32."""
BODY = frozenset({"layers", "positions", "norm", "embedding_norm", "project_in"})
"""Of a model, what its `logits` does not read; nor `embed` where there is a `head`."""


def flat(hidden: array, targets: array, mask: array | None) -> tuple[array, array, array | None]:
    """Tokens in one row; those that do not count are zeros: 0 times a NaN would be one."""
    if mask is not None:
        hidden, targets = mx.where(mask[..., None], hidden, 0), mx.where(mask, targets, 0)
    x = hidden.reshape(-1, hidden.shape[-1])
    return x, targets.reshape(-1), None if mask is None else mask.reshape(-1)


def parts_of(model: Any, x: array, chunk: int | None) -> Sequence[slice]:
    """Of equal length, but for the last.

    Unless told otherwise a chunk has `CHUNK` logits, or a quarter of the numbers of the head's weight where that is more:
    its gradient is added up once a chunk.
    """
    tokens, width = x.shape
    if chunk is None:
        chunk = max(CHUNK // logits_of(model, x[:1]).shape[-1], width // 4)
    size = -(-tokens // max(-(-tokens // chunk), 1))
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def logits_of(model: Any, x: array) -> array:
    logits: array = model.logits(x[None])[0]
    return logits


def head_of(model: Any) -> dict[str, Any]:
    """The trained parameters that `logits` may read, those that a model of one's own has beside lmx's included."""
    unread = BODY | {"embed"} if "head" in model else BODY
    found: dict[str, Any] = model.trainable_parameters()
    return {name: value for name, value in found.items() if name not in unread}


def logits_with(model: Any, parameters: Any, x: array) -> array:
    """Logits by other parameters of the head."""
    own = head_of(model)
    model.update(parameters)
    try:
        return logits_of(model, x)
    finally:
        model.update(own)


def pulled_back(function: Callable[..., array], arguments: Any, cotangent: array) -> Any:
    """The gradient by the arguments of what has this one by its result."""
    names, values = zip(*_leaves(arguments), strict=True)

    def flat(*values: array) -> array:
        return function(*tree_unflatten(list(zip(names, values, strict=True))))

    _, found = mx.vjp(flat, list(values), [cotangent])
    return tree_unflatten(list(zip(names, found, strict=True)))


def swept(slopes: Callable[..., Any], parameters: Any, x: array, parts: Sequence[slice]) -> Any:
    """`slopes(parameters, x[part], part)` returns sums and gradients; all of them, one part after another.

    Gradients of parameters are added in float32 whatever their type is.
    """
    sums: Any = ()
    added: Any = {}
    rows: list[array] = []
    for part in parts:
        done: list[array] = [value for _, value in _leaves((sums, added))]
        found, (by_parameters, by_x) = slopes(parameters, after(x[part], [*done, *rows[-1:]]), part)
        by_parameters = tree_map(lambda each: each.astype(mx.float32), by_parameters)
        sums = tree_map(mx.add, sums, found) if rows else found
        added = tree_map(mx.add, added, by_parameters) if rows else by_parameters
        rows.append(by_x)
    return sums, (_typed(added, parameters), mx.concatenate(rows))


def scaled_gradients(function: Callable[..., array], gradients: Any) -> Any:
    """Of `(parameters, x, scale)`: these gradients of the function, times a scale.

    They were computed, and nothing says how; their own gradient, for products with a Hessian, goes back to the function.
    """

    def scaled(parameters: Any, x: array, scale: array) -> Any:
        return _typed(tree_map(lambda each: each * scale, gradients), (parameters, x))

    def back(primals: Any, cotangents: Any, outputs: Any) -> Any:
        def product(parameters: Any, x: array, scale: array) -> array:
            found = mx.grad(function, argnums=(0, 1))(parameters, x)
            pairs = zip(_leaves(found), _leaves(cotangents), strict=True)
            return sum(((each * scale * other).sum() for (_, each), (_, other) in pairs), start=mx.array(0.0))

        return mx.grad(product, argnums=(0, 1, 2))(*primals)

    return custom(scaled, back)


def custom(function: Callable[..., Any], back: Callable[..., Any]) -> Any:
    """The function with `back(primals, cotangents, outputs)` in place of its gradient."""
    found: Any = mx.custom_function(function)
    found.vjp(back)
    return found


def after(x: array, dependencies: Sequence[array]) -> array:
    """`x` when these are computed, and what they needed is free."""
    found: Any = mx.depends([x], list(dependencies))[0] if dependencies else x
    return found


def _typed(tree: Any, like: Any) -> Any:
    return tree_map(lambda value, other: value.astype(other.dtype), tree, like)


def _leaves(tree: Any) -> Iterator[tuple[str, array]]:
    flat: Any = tree_flatten(tree)
    yield from flat
