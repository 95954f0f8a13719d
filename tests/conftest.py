"""Shapes in signatures are checked while tests run: the hook comes before the first import of the package."""

import pytest
from jaxtyping import install_import_hook

install_import_hook("lmx_core", "beartype.beartype")


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests names no config keys and no plugins."""
    import os

    for name in os.environ:
        if name.startswith("LMX_") and (name in ("LMX_PLUGINS", "LMX_DISABLE") or "__" in name):
            monkeypatch.delenv(name)
