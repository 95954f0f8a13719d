"""Shapes in signatures are checked while tests run: the hook comes before the first import of the package."""

import os
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

checker = ModuleType("lmx_typechecker")
checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for every type checker
sys.modules[checker.__name__] = checker
install_import_hook("lmx_core", "lmx_typechecker.check")


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests names no config keys and no plugins."""
    for name in os.environ:
        if name.startswith("LMX_") and (name in ("LMX_PLUGINS", "LMX_DISABLE") or "__" in name):
            monkeypatch.delenv(name)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renamed", action="store_true", help="Run with every built-in component under another name.")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("renamed"):
        runpy.run_path(str(Path(__file__).with_name("renamed.py")))["rename"]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("renamed"):
        for item in items:
            if item.get_closest_marker("says_names"):
                item.add_marker(pytest.mark.skip(reason="asserts a text with a component's name"))
