"""Fixtures for the tests of plugins. pytest reads this file whenever it starts: it imports nothing of lmx by itself."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lmx_core.testing.hermetic import Plugins


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Plugins, None, None]:
    """Core without what else is installed; `plugins.install(...)` writes a distribution, `plugins.register(...)` adds a
    component. All is as it was afterwards.
    """
    from lmx_core.testing.hermetic import only_these

    with only_these(tmp_path, monkeypatch) as found:
        yield found
