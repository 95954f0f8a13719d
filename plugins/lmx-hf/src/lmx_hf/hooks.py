"""What lmx-hf answers to core."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from lmx_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from lmx_core.config import ModelConfig
    from lmx_core.opening import Opened

REPOSITORY = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


@attrs.frozen
class Opener:
    """Reads a model where it is: as lmx's, or where no loader knows it, as mlx-lm's."""

    place: str

    def __call__(self) -> "Opened":
        from lmx_hf.load import opened
        from lmx_hf.lookup import UnknownFamilyError

        try:
            return opened(self.place)
        except UnknownFamilyError:
            from lmx_hf.bridge import theirs

            found = theirs.opened(self.place)
            if found is None:
                raise
            return found

    def config(self) -> "ModelConfig":
        from lmx_hf.hub import fetch
        from lmx_hf.lookup import config_from_hf, read_config

        return config_from_hf(read_config(fetch(self.place)))


@hookimpl
def lmx_opener(place: str) -> Opener | None:
    """Folders with a config.json that are not lmx's own, and what can be a name on the hub."""
    here = Path(place).expanduser()
    found = (here / "config.json").is_file() if here.exists() else REPOSITORY.fullmatch(place)
    return Opener(place) if found else None
