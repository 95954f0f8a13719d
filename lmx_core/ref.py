"""Where a component is found."""

import importlib
import sys
from contextlib import redirect_stdout
from typing import Any

import attrs

from lmx_core import backend
from lmx_core.contracts import breach
from lmx_core.errors import BackendError, ComponentError, told


@attrs.frozen(kw_only=True)
class Ref:
    """Where one component is found; nothing of it is imported before `load`."""

    kind: str
    name: str
    target: str
    """`module:attribute`."""
    dist: str
    version: str

    @property
    def qualified(self) -> str:
        """The name with its distribution, as a config writes it where two offer the name."""
        return f"{self.dist}/{self.name}"

    @property
    def title(self) -> str:
        """What it is called in a message."""
        return f"{self.kind}.{self.name} from {self.dist} {self.version}"

    @property
    def module(self) -> str:
        return self.target.partition(":")[0]

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    def load(self) -> Any:
        """The component itself. `ComponentError` when its distribution is broken, or it is not what its kind must be."""
        module, _, attribute = self.target.partition(":")
        try:
            with backend.explained(), redirect_stdout(sys.stderr):  # a program's output is not a plugin's to write to
                component = getattr(importlib.import_module(module), attribute)
        except (BackendError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit, and whatever a module thinks of
            raise BrokenComponentError(self, told(error)) from error
        if problem := breach(self.kind, component):
            raise BrokenComponentError(self, problem)
        return component


class BrokenComponentError(ComponentError):
    """An installed component that does not load."""

    def __init__(self, ref: Ref, reason: str) -> None:
        super().__init__(
            f"{ref.title} ({ref.target}) could not be loaded: "
            f"{reason}. Other components are not affected; LMX_DISABLE={ref.dist} hides this one."
        )
        self.ref, self.reason = ref, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.ref, self.reason)
