"""`quantization` of a config.json, as mlx-lm reads it."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from lmx_core.errors import ConfigError
from lmx_core.quantised import Packing


def quantisation_entry(packed: Mapping[str, Packing], modules: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """How most modules are packed, and under their names in the checkpoint those that are packed in another way or not.

    `packed` has the modules of lmx by their paths (`lmx_core.quantised.packed_modules`); `modules` has for every module
    of the checkpoint with a weight which ones of lmx it is made of. `ConfigError` where these differ.
    """
    found: dict[str, Packing | None] = {}
    for theirs, ours in modules.items():
        ways = {packed.get(path) for path in ours}
        if len(ways) > 1:
            told = ", ".join(f"{path} ({packed.get(path) or 'dense'})" for path in ours)
            raise ConfigError(
                f"{theirs} is one matrix, but in lmx it is packed in several ways: {told}. Quantise these with one rule, "
                'or take format="lmx".'
            )
        found[theirs] = ways.pop()
    ways = [how for how in found.values() if how is not None]
    if not ways:
        return {}
    most = max(dict.fromkeys(ways), key=ways.count)
    apart = {theirs: how is not None and attrs.asdict(how) for theirs, how in found.items() if how != most}
    return {**attrs.asdict(most), **apart}
