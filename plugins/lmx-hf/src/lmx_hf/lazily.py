"""Libraries that take long to import, imported when they are used."""

import importlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from lmx_core.errors import LmxError


def library(name: str) -> Any:
    """A module, by its full name. `LmxError` says what to install where it cannot be imported."""
    try:
        with _without_advice():
            return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise LmxError(f"{package} is needed and cannot be imported ({error}): pip install {package}") from None


@contextmanager
def _without_advice() -> Generator[None, None, None]:
    """Without transformers' remark that there is no torch: no model of its is asked for."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    chosen = os.environ.get(name)
    os.environ[name] = chosen or "1"
    try:
        yield
    finally:
        if chosen is None:
            del os.environ[name]
