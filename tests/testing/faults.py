"""Faults, each a change of a component that works, with the check that is meant to catch it."""

from collections.abc import Callable
from typing import Any

import attrs


@attrs.frozen
class Fault:
    """`apply(component)` is the component with the fault."""

    kind: str
    base: str | None
    """The component of core that it is tried on; None for all that are not silent."""
    check: str
    """The name of the case that catches it."""
    apply: Callable[[Any], Any]
    message: str
    """What the check says of it, a regular expression."""

    def __str__(self) -> str:
        return f"{self.kind} {self.apply.__name__} {self.check}"


FAULTS: list[Fault] = []


def fault(kind: str, base: str | None, *checks: str, says: str = "") -> Callable[[Any], Any]:
    """Note a function from a component to one with a fault."""

    def add(apply: Any) -> Any:
        FAULTS.extend(Fault(kind, base, check, apply, says) for check in checks)
        return apply

    return add
