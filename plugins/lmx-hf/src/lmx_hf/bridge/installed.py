"""mlx-lm, which is optional."""

from typing import Any

from lmx_core.errors import LmxError
from lmx_hf.lazily import library


def mlx_lm(module: str) -> Any:
    """A module of mlx-lm, such as `models.cache`. `LmxError` says what to install where there is none."""
    try:
        return library(f"mlx_lm.{module}")
    except LmxError as error:
        cause = error.__context__
        raise LmxError(f'mlx-lm cannot be imported ({cause}): pip install "lmx-hf[mlx-lm]"') from None
