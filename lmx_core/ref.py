"""Where a component is found."""

import importlib
from typing import Any

import attrs

from lmx_core import backend
from lmx_core.errors import BackendError, ComponentError


@attrs.frozen(kw_only=True)
class Ref:
    """Where one component is found; nothing of it is imported before `load`."""

    kind: str
    name: str
    target: str
    """`module:attribute`."""
    dist: str
    version: str

    def load(self) -> Any:
        """The component itself. `ComponentError` when its distribution is broken."""
        module, _, attribute = self.target.partition(":")
        try:
            with backend.explained():
                return getattr(importlib.import_module(module), attribute)
        except BackendError:
            raise
        except (Exception, SystemExit) as error:
            raise ComponentError(
                f"{self.kind}.{self.name} from {self.dist} {self.version} ({self.target}) could not be loaded: "
                f"{type(error).__name__}: {error}. Other components are not affected; LMX_DISABLE={self.dist} hides this one."
            ) from error
