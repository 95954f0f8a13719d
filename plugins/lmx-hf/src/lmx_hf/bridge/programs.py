"""mlx-lm's own programs, run in this process on models that lmx builds."""

import importlib
import logging
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from lmx_core.errors import LmxError
from lmx_hf.bridge import model
from lmx_hf.bridge.folders import Folders
from lmx_hf.bridge.installed import mlx_lm
from lmx_hf.bridge.memory import KINDS

MODULE = f"mlx_lm.models.{model.MODEL_TYPE}"
FAULTS = (ValueError, KeyError, OSError, RuntimeError, TypeError)
"""What mlx-lm, and MLX where it reads files, raise for what a person did."""


def run(program: str, arguments: Sequence[str]) -> None:
    """`mlx_lm.PROGRAM ARGUMENTS`. What it refuses is an `LmxError`; faults in its arguments end the process."""
    mlx_lm("utils")
    with on_lmx(learned=program == "lora"), _arguments([f"lmx mlx-lm {program}", *arguments]):
        try:
            importlib.import_module(f"mlx_lm.{program}").main()
        except LmxError:
            raise
        except ImportError as error:
            raise LmxError(f"mlx-lm's {program} needs a package more: {error}. pip install it.") from None
        except FAULTS as error:
            raise LmxError(f"mlx-lm's {program}: {error}") from error


@contextmanager
def on_lmx(learned: bool = False) -> Generator[None, None, None]:
    """mlx-lm's loader gives models of lmx while this lasts, in all threads; `learned`, for its trainer."""
    utils, cache = mlx_lm("utils"), mlx_lm("models.cache")
    before = getattr(utils, "_download", None)
    if before is None:
        raise LmxError(
            f"mlx-lm {version('mlx-lm')} loads models in a way that lmx-hf does not know. pip install mlx-lm==0.32.2"
        )
    log = logging.getLogger("transformers.configuration_utils")
    with tempfile.TemporaryDirectory(prefix="lmx-") as parent:
        utils._download = Folders(Path(parent), learned).of
        sys.modules[MODULE] = model
        log.addFilter(_is_news)
        for kind in KINDS:
            setattr(cache, kind.__name__, kind)  # where a file of a prompt is read, memories are found by name
        try:
            yield
        finally:
            utils._download = before
            log.removeFilter(_is_news)
            del sys.modules[MODULE]
            for kind in KINDS:
                delattr(cache, kind.__name__)


def _is_news(record: logging.LogRecord) -> bool:
    """transformers looks for the tokenizer's class by the model's type, and remarks that it does not know it."""
    return f"a model of type `{model.MODEL_TYPE}`" not in record.getMessage()


@contextmanager
def _arguments(arguments: list[str]) -> Generator[None, None, None]:
    before, sys.argv = sys.argv, arguments
    try:
        yield
    finally:
        sys.argv = before
