"""What lmx-hf answers to core."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lmx_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from lmx_core.opening import Opened

REPOSITORY = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


@hookimpl
def lmx_opener(place: str) -> "Callable[[], Opened] | None":
    """Folders with a config.json that are not lmx's own, and what can be a name on the hub."""
    here = Path(place).expanduser()
    found = (here / "config.json").is_file() if here.exists() else REPOSITORY.fullmatch(place)
    return partial(_open, place) if found else None


def _open(place: str) -> "Opened":
    from lmx_hf.load import UnknownFamilyError, opened

    try:
        return opened(place)
    except UnknownFamilyError:
        from lmx_hf.bridge import theirs

        found = theirs.opened(place)
        if found is None:
            raise
        return found
