"""Every component that a config names, those within the options of others included."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import attrs

from lmx_core.config import ComponentSpec
from lmx_core.registry import registry
from lmx_core.serialize import filled, plain

T = TypeVar("T")
Change = Callable[[str, ComponentSpec], ComponentSpec]


def rewritten(config: T, change: Change) -> T:
    """The config with `change(kind, spec)` in place of each component; its own parts are then changed in turn.

    The components must be installed: only their `Options` tell which option is a part.
    """
    changes = _changes(config, change)
    return attrs.evolve(config, **changes) if changes else config  # pyright: ignore[reportArgumentType, reportUnknownVariableType]


def components(config: Any) -> Iterator[tuple[str, ComponentSpec]]:
    """(kind, spec) of each component, as often as it is named."""
    named: list[tuple[str, ComponentSpec]] = []

    def note(kind: str, chosen: ComponentSpec) -> ComponentSpec:
        named.append((kind, chosen))
        return chosen

    rewritten(config, note)
    yield from named


def settled(config: T) -> T:
    """The config with every name that several distributions offer written out as the one that is meant."""

    def qualified(kind: str, chosen: ComponentSpec) -> ComponentSpec:
        ref = registry(kind).find(chosen.name)
        clashes = chosen.name == ref.name and len(registry(kind).refs(ref.name)) > 1
        return ComponentSpec(ref.qualified, chosen.options) if clashes else chosen

    return rewritten(config, qualified)


def _changes(config: Any, change: Change) -> dict[str, Any]:
    """The fields of an attrs class that are others then."""
    changed: dict[str, Any] = {}
    for field in attrs.fields(type(config)):
        old = getattr(config, field.name)
        new = _changed(field.metadata.get("kind"), old, change)
        if new != old:
            changed[field.alias or field.name] = new
    return changed


def _changed(kind: str | None, value: Any, change: Change) -> Any:
    if isinstance(value, ComponentSpec):
        return value if kind is None else _parts_changed(kind, change(kind, value), change)
    if isinstance(value, list | tuple):
        items: Any = value
        new = [_changed(kind, item, change) for item in items]
        return type(items)(new) if any(a is not b for a, b in zip(new, items, strict=True)) else items
    if isinstance(value, Mapping):
        table: Any = value
        named = {key: _changed(kind, item, change) for key, item in table.items()}
        return named if any(named[key] is not item for key, item in table.items()) else table
    return rewritten(value, change) if attrs.has(type(value)) else value


def _parts_changed(kind: str, chosen: ComponentSpec, change: Change) -> ComponentSpec:
    """The component with its parts changed: whatever its options say, by themselves or by their defaults."""
    options = filled(kind, registry(kind).get(chosen.name), chosen)
    changes = {key: plain(value) for each in options for key, value in _changes(each, change).items()}
    return ComponentSpec(chosen.name, {**chosen.options, **changes}) if changes else chosen
