"""The conformance kit: the promises of every component, as one parametrised test that is a plugin's whole suite.

@conformance("ffn.relu2")
def test_relu2_keeps_its_promises(check):
    check()

Names are imported when they are first used: importing the package imports no MLX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmx_core.testing import checks as checks
    from lmx_core.testing.marks import conformance as conformance
    from lmx_core.testing.subjects import SMALL as SMALL
    from lmx_core.testing.subjects import close as close
    from lmx_core.testing.subjects import randomise as randomise
    from lmx_core.testing.subjects import seeded as seeded
    from lmx_core.testing.suites import Case as Case
    from lmx_core.testing.suites import cases as cases

_HOMES = {
    "marks": ("conformance",),
    "subjects": ("SMALL", "close", "randomise", "seeded"),
    "suites": ("Case", "cases"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["checks", *_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lmx_core.testing' has no attribute {name!r}")
    module = importlib.import_module(f"lmx_core.testing.{_HOME.get(name, name)}")
    value = getattr(module, name) if name in _HOME else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
