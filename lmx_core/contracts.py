"""Whether a component offers what its kind asks for, as far as that shows before it is built."""

from collections.abc import Mapping
from typing import Any

import attrs

from lmx_core.errors import told
from lmx_core.protocols import (
    Attention,
    Cache,
    Callback,
    Command,
    Curriculum,
    Dataset,
    FeedForward,
    Layout,
    Norm,
    Objective,
    Optimizer,
    Position,
    Recipe,
    Scaling,
    Schedule,
    Source,
    Tokenizer,
)

CONTRACTS: Mapping[str, type] = {
    "attention": Attention,
    "ffn": FeedForward,
    "norm": Norm,
    "position": Position,
    "layout": Layout,
    "cache": Cache,
    "scaling": Scaling,
    "tokenizer": Tokenizer,
    "dataset": Dataset,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "source": Source,
    "curriculum": Curriculum,
    "objective": Objective,
    "callback": Callback,
    "trainer": Recipe,
}
"""What a component of a kind offers; kinds that are not here ask for nothing."""


def breach(kind: str, component: Any) -> str | None:
    """What keeps a component from being of its kind as far as that shows before it is built, or None."""
    try:
        return _breach(kind, component)
    except Exception as error:  # a metaclass, a property: whatever another author's object does when it is looked at
        return f"it cannot be looked at ({told(error)})"


def _breach(kind: str, component: Any) -> str | None:
    if kind == "command":
        lacks = [f"{name}()" for name in _methods(Command) if not callable(getattr(component, name, None))]
        return f"every command is one of click's, got {_shown(component)}" if lacks else None
    if kind == "config":
        return None if callable(component) else f"every config is a function, got {_shown(component)}"
    contract = CONTRACTS.get(kind)
    if contract is None:
        return None
    if not isinstance(component, type):
        return f"every {kind} is a class, got {_shown(component)}"
    lacking = [f"{name}()" for name in _methods(contract) if not _has(component, name)]
    if lacking:
        return f"{component.__name__} lacks {' and '.join(lacking)}, which every {kind} has"
    return _wrong_options(component)


def _wrong_options(component: Any) -> str | None:
    options, version = getattr(component, "Options", None), getattr(component, "options_version", 1)
    if options is not None and not (isinstance(options, type) and attrs.has(options)):
        return f"{component.__name__}.Options is not a class of attrs"
    if type(version) is not int or version < 1:
        return f"{component.__name__}.options_version is a whole number from 1 on, got {version!r}"
    return None


def _methods(contract: type) -> list[str]:
    """What instances of a protocol are asked to do; plain attributes may be set when a component is built."""
    hidden = {"__init__", "__subclasshook__", "__class_getitem__"}
    return sorted(
        name
        for name, value in vars(contract).items()
        if (callable(value) or isinstance(value, classmethod))
        and name not in hidden
        and (name == "__call__" or name[0] != "_")
    )


def _has(cls: type, name: str) -> bool:
    return any(name in vars(base) for base in cls.__mro__ if base is not object)  # every class itself has a __call__


def _shown(component: Any) -> str:
    return f"{type(component).__name__} {str(component)[:60]!r}"
