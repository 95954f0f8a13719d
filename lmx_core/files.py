"""Files that are whole or not there."""

import os
import shutil
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmx_core.errors import CheckpointError

HALF_WRITTEN = ".*.tmp*"


@contextmanager
def atomically(path: Path) -> Generator[Path, None, None]:
    """A temporary name beside `path` for a file or a new directory, renamed to `path` once it is written.

    A failure removes it again, so that what was at `path` stays whole; `CheckpointError` says what went wrong.
    """
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # MLX reports a full disk as a RuntimeError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CheckpointError(f"could not write {path}: {reason}. What was there before is untouched.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    with atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def half_written(path: Path) -> bool:
    """Whether a path has a name that `atomically` gives for as long as something is written."""
    return path.match(HALF_WRITTEN)


def clear(folder: Path) -> None:
    """Remove what processes that were killed while they wrote into a folder left there. None may write meanwhile."""
    for temporary in folder.glob(HALF_WRITTEN):
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.unlink()
