"""Every component that a config names, those within the options of others included."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import attrs

from lmx_core.config import ComponentSpec, as_spec
from lmx_core.registry import registry

T = TypeVar("T")
Change = Callable[[str, ComponentSpec], ComponentSpec]


def rewritten(config: T, change: Change) -> T:
    """The config with `change(kind, spec)` in place of each component; its own parts are then changed in turn.

    The components must be installed: only their `Options` tell which option is a part.
    """
    found: Any = config
    changes: dict[str, Any] = {}
    for field in attrs.fields(type(found)):
        old = getattr(found, field.name)
        new = _changed(field.metadata.get("kind"), old, change)
        if new is not old:
            changes[field.alias] = new
    return attrs.evolve(found, **changes) if changes else config


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


def _changed(kind: str | None, value: Any, change: Change) -> Any:
    if isinstance(value, ComponentSpec):
        return value if kind is None else _parts_changed(kind, change(kind, value), change)
    if isinstance(value, tuple):
        items: Any = value
        new = tuple(_changed(kind, item, change) for item in items)
        return new if any(a is not b for a, b in zip(new, items, strict=True)) else items
    return rewritten(value, change) if attrs.has(type(value)) else value


def _parts_changed(kind: str, chosen: ComponentSpec, change: Change) -> ComponentSpec:
    options = getattr(registry(kind).get(chosen.name), "Options", None)
    changes: dict[str, Any] = {}
    for field in attrs.fields(options) if options else ():
        part = field.metadata.get("kind")
        old = _part(chosen.options.get(field.alias, field.default)) if part else None
        new = _changed(part, old, change)
        if new is not old:
            changes[field.alias] = new
    return ComponentSpec(chosen.name, {**chosen.options, **changes}) if changes else chosen


def _part(value: Any) -> Any:
    """A part as options hold it, plain data, as a spec; what is none is left alone."""
    if isinstance(value, tuple):
        items: Any = value
        return tuple(map(_part, items))
    if hasattr(value, "keys") and "name" in value:
        return ComponentSpec(value["name"], {key: value[key] for key in value if key != "name"})
    return as_spec(value)
