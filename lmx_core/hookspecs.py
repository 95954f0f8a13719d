"""What a distribution can answer, as pluggy hooks."""

from collections.abc import Sequence

import pluggy

from lmx_core.ref import Ref

PROJECT = "lmx"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def lmx_components() -> Sequence[Ref]:  # pyright: ignore[reportReturnType]
    """The components that this distribution offers."""
