"""The sandbox of a config."""

import importlib.util

from lmx_core import build
from lmx_core.config import ComponentSpec, as_spec
from lmx_core.errors import ConfigError
from lmx_rl.sandbox.protocol import Isolation, Sandbox


def open_sandbox(chosen: ComponentSpec | str | None = None, minimum: Isolation = Isolation.SYSTEM) -> Sandbox:
    """The sandbox chosen, or else `monty` where it is installed and `process` where it is not.

    ConfigError where it obtains less than `minimum` on this machine, which is tried out.
    """
    if chosen is None:
        chosen = "monty" if importlib.util.find_spec("pydantic_monty") else "process"
    sandbox: Sandbox = build("sandbox", chosen)
    isolation = sandbox.isolation
    if isolation < minimum:
        sandbox.close()
        raise ConfigError(
            f'sandbox "{as_spec(chosen).name}" obtains isolation {isolation.name.lower()} on this machine, less than the '
            f"minimum {minimum.name.lower()}. Choose another sandbox, or a lower minimum if what it runs can be trusted."
        )
    return sandbox
