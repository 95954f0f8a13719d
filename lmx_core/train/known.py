"""Whether a model knows the tokens that it is given."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmx_core.errors import DataError


def check_tokens(batch: Mapping[str, Any], size: int) -> None:
    """`DataError` for a token that is not among `size`."""
    if (token := _unknown(batch, size)) is not None:
        raise DataError(
            f"the data has token {token}, and the model knows 0 to {size - 1}: it is damaged, or made with another "
            "tokenizer. `lmx data info DIR --check` looks at tokens on disk."
        )


def _unknown(batch: Mapping[str, Any], size: int) -> int | None:
    """A token that is not among `size`, or None: MLX would read what lies beyond the embedding, or crash."""
    for name in {"inputs", "targets"} & batch.keys():
        tokens = np.asarray(batch[name])
        if name == "targets" and "mask" in batch:
            tokens = np.where(np.asarray(batch["mask"]), tokens, 0)
        for extreme in (tokens.min(initial=0), tokens.max(initial=0)):
            if not 0 <= extreme < size:
                return int(extreme)
    return None
