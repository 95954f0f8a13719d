"""From a spec to a component, built."""

from typing import Any

import attrs

from lmx_core.config import ComponentSpec, as_spec
from lmx_core.errors import ConfigError, report
from lmx_core.registry import registry
from lmx_core.serialize import Problems, options_of, plain


def build(kind: str, chosen: ComponentSpec | str, *args: Any, **extra: Any) -> Any:
    """The component that `chosen` names, built as `Class(*args)` or `Class(*args, options)`.

    Components build their own parts with it: an expert its FFN, a latent its norm
    (`build("norm", config.norm, config, width=64)`).
    """
    component = registry(kind).get(as_spec(chosen).name)
    return component(*args, *filled(kind, component, as_spec(chosen)), **extra)


def completed(config: Any) -> Any:
    """The config with every option of its components written out, as two configs are compared."""
    changes: dict[str, Any] = {}
    for field in attrs.fields(type(config)):
        value = getattr(config, field.name)
        if isinstance(value, ComponentSpec) and "kind" in field.metadata:
            options = filled(field.metadata["kind"], registry(field.metadata["kind"]).get(value.name), value)
            changes[field.alias] = ComponentSpec(value.name, plain(options[0]) if options else {})
        elif isinstance(value, tuple):
            changes[field.alias] = tuple(completed(part) if attrs.has(type(part)) else part for part in value)
        elif attrs.has(type(value)):
            changes[field.alias] = completed(value)
    return attrs.evolve(config, **changes)


def filled(kind: str, component: Any, chosen: ComponentSpec) -> tuple[Any, ...]:
    """The component's options with its defaults filled in, as arguments; `ConfigError` with every problem."""
    try:
        return options_of(component, chosen)
    except Problems as problems:
        raise ConfigError(report(f"the options of {kind} {chosen.name!r}", problems.found)) from None
