"""How a model is looked at while it is trained, without a trace."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.randomness import drawing_apart
from lmx_core.shapes import Float


@contextmanager
def untouched(model: nn.Module) -> Generator[None, None, None]:
    """Within it the model is in evaluation mode and may be changed; then all of it is as before, with the random state.

    All are its parameters, whatever else its modules hold, their modes, and reports that nobody has taken yet.
    """
    parameters = model.parameters()
    before = [(module, dict(module), dict(vars(module))) for _, module in model.named_modules()]
    model.eval()
    try:
        with drawing_apart():
            yield
    finally:
        for module, held, attributes in before:
            for key in [key for key in module if key not in held]:
                del module[key]
            dict[str, Any].update(module, held)
            vars(module).clear()
            vars(module).update(attributes)
        model.update(parameters)


@contextmanager
def heard(modules: Mapping[str, nn.Module], note: Callable[[str, array, Any], None]) -> Generator[None, None, None]:
    """Within it `note(name, x, y)` is told of each call of these modules: what it was given first, and what it returned."""
    before = [(module, type(module)) for module in modules.values()]
    try:
        for name, module in modules.items():
            object.__setattr__(module, "__class__", _telling(type(module), name, note))
        yield
    finally:
        for module, cls in reversed(before):
            object.__setattr__(module, "__class__", cls)


def _telling(cls: type, name: str, note: Callable[[str, array, Any], None]) -> type:
    """A subclass, since Python looks up `__call__` in the class."""

    def call(self: Any, *args: Any, **named: Any) -> Any:
        result = cls.__call__(self, *args, **named)
        note(name, next(iter((*args, *named.values()))), result)
        return result

    return type(cls.__name__, (cls,), {"__call__": call})


def layers(model: Any) -> dict[str, Any]:
    """The blocks of a model by their paths, `layers.0` and on."""
    return {f"layers.{i}": layer for i, layer in enumerate(model.layers)}


def part(path: str) -> str:
    """The part of a model that a parameter belongs to: `layers.3`, `embed`, `head`."""
    first, *below = path.split(".")
    return f"{first}.{below[0]}" if first == "layers" and below else first


def counted(batch: Mapping[str, array], x: array) -> Float[array, "B L"]:
    """1 for the tokens of `x` (B, L, ...) whose targets count, 0 for the others; 1 for all where `x` is of other rows."""
    mask = batch.get("mask")
    if mask is None or mask.shape != x.shape[:2]:
        return mx.ones(x.shape[:2])
    return mask.astype(mx.float32)
