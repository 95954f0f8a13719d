"""Files that hold one JSON object."""

import json
from pathlib import Path
from typing import Any

from lmx_core.errors import CheckpointError


def read_table(file: Path, holder: str) -> dict[str, Any]:
    """What a file of a downloaded folder says; `holder`, such as "a model", is what has one. `CheckpointError` otherwise."""
    try:
        data: Any = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError("it is no table")
    except OSError as error:
        raise CheckpointError(
            f"cannot read {file}: {error.strerror}. A {file.name} belongs into the folder of {holder}."
        ) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged ({type(error).__name__}: {error}). Download it again.") from None
    return data
