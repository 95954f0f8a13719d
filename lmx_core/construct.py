"""From a spec to a component, built."""

from typing import Any, TypeVar

from lmx_core.config import ComponentSpec, as_spec
from lmx_core.errors import ComponentError, LmxError, told
from lmx_core.parts import rewritten
from lmx_core.registry import registry
from lmx_core.serialize import filled as filled
from lmx_core.serialize import plain

T = TypeVar("T")


def build(kind: str, chosen: ComponentSpec | str, *args: Any, **extra: Any) -> Any:
    """The component that `chosen` names, built as `Class(*args)` or `Class(*args, options)`.

    Components build their own parts with it: an expert its FFN, a latent its norm
    (`build("norm", config.norm, config, width=64)`).
    """
    named: ComponentSpec = as_spec(chosen)
    component = registry(kind).get(named.name)
    options = filled(kind, component, named)
    try:
        return component(*args, *options, **extra)
    except LmxError:
        raise
    except Exception as error:
        ref, problem = registry(kind).find(named.name), told(error)
        raise ComponentError(f"{ref.title} could not be built: {problem}") from error


def completed(config: T) -> T:
    """The config with every option of its components written out, as two configs are compared."""

    def complete(kind: str, chosen: ComponentSpec) -> ComponentSpec:
        options = filled(kind, registry(kind).get(chosen.name), chosen)
        return ComponentSpec(chosen.name, plain(options[0]) if options else {})

    return rewritten(config, complete)
