"""From a spec to a component, built."""

from typing import Any

from lmx_core.config import ComponentSpec, as_spec
from lmx_core.errors import ConfigError, report
from lmx_core.registry import registry
from lmx_core.serialize import Problems, options_of


def build(kind: str, chosen: ComponentSpec | str, *args: Any, **extra: Any) -> Any:
    """The component that `chosen` names, built as `Class(*args)` or `Class(*args, options)`.

    Components build their own parts with it: an expert its FFN, a latent its norm
    (`build("norm", config.norm, config, width=64)`).
    """
    component = registry(kind).get(as_spec(chosen).name)
    return component(*args, *filled(kind, component, as_spec(chosen)), **extra)


def filled(kind: str, component: Any, chosen: ComponentSpec) -> tuple[Any, ...]:
    """The component's options with its defaults filled in, as arguments; `ConfigError` with every problem."""
    try:
        return options_of(component, chosen)
    except Problems as problems:
        raise ConfigError(report(f"the options of {kind} {chosen.name!r}", problems.found)) from None
