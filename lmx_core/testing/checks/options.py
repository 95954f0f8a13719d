"""What holds for a component of any kind: its options, and what importing it costs."""

import functools
import json
import subprocess
import sys

from lmx_core.config import ComponentSpec
from lmx_core.construct import filled
from lmx_core.errors import ConfigError
from lmx_core.ref import Ref
from lmx_core.serialize import plain
from lmx_core.testing.candidate import Candidate

HEAVY = frozenset(
    {"datasets", "fastapi", "jax", "matplotlib", "pandas", "scipy", "sklearn", "tensorflow", "torch", "transformers"}
)
"""What takes seconds to import, and is imported where it is used."""
PROBE = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
importlib.import_module(sys.argv[2])
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def unknown_options_are_refused(component: Candidate) -> None:
    """An option that the component does not have is an error."""
    wrong = ComponentSpec(component.name, {**component.chosen.thawed(), "no_such_option": 1})
    try:
        filled(component.kind, component.component, wrong)
    except ConfigError:
        return
    raise AssertionError("no_such_option = 1 is accepted; Options is a class of attrs")


def options_round_trip(component: Candidate) -> None:
    """The options, every default written out, survive a file: they are plain data, and read back equal."""
    for options in component.options():
        written = plain(options)
        try:
            read = json.loads(json.dumps(written))
        except TypeError as error:
            raise AssertionError(f"an option is no plain data: {error}") from None
        assert filled(component.kind, component.component, ComponentSpec(component.name, read)) == (options,), (
            f"{written} reads back as other options"
        )


def import_is_light(ref: Ref) -> None:
    """Importing the component's module brings in nothing that takes seconds."""
    module = ref.target.partition(":")[0]
    found = _imported(module, tuple(sys.path)) & HEAVY
    assert not found, f"importing {module} imports {', '.join(sorted(found))}; import it where it is used"


@functools.cache
def _imported(module: str, path: tuple[str, ...]) -> set[str]:
    """The top-level modules that are there after a fresh process has imported one."""
    command = [sys.executable, "-c", PROBE, json.dumps(path), module]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"a fresh process cannot import {module}:\n{done.stderr[-2000:]}"
    return set(done.stdout.split())
