"""What tests of this plugin run in."""

import pytest

from lmx_core.registry import registry

from . import answered
from .preferred import Preferred


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Nothing is left in the user's."""
    monkeypatch.setenv("LMX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory, and the dataset `preferred-under-test`."""
    monkeypatch.chdir(tmp_path)
    registry("dataset").register("preferred-under-test")(Preferred)
    yield tmp_path
    registry("dataset").unregister("preferred-under-test")


@pytest.fixture
def rewards():
    """Those of `answered` are components."""
    with answered.rewards():
        yield
