"""What `import lmx_core` costs and offers."""

import subprocess
import sys

import pytest

from lmx_core.errors import AmbiguousComponentError, LmxError, UnknownComponentError

PROBE = """
import sys
import lmx_core
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"mlx", "importlib_metadata", "pluggy", "numpy", "rich"}))
print("importlib.metadata" in sys.modules)
"""


def test_importing_lmx_core_imports_next_to_nothing():
    """Neither MLX nor importlib.metadata nor a plugin, nor anything else that takes time."""
    done = subprocess.run([sys.executable, "-P", "-c", PROBE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_every_public_name_can_be_imported():
    import lmx_core

    for name in lmx_core.__all__:
        assert getattr(lmx_core, name) is not None
    assert set(lmx_core.__all__) <= set(dir(lmx_core))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = lmx_core.Nonsense


def test_types_keep_up_with_the_lazy_names():
    """What type checkers see of `lmx_core` is what it exports."""
    import ast
    from pathlib import Path

    import lmx_core

    tree = ast.parse(Path(lmx_core.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname for node in block.body for alias in node.names}
    assert seen == set(lmx_core.__all__) - {"__version__"}


def test_errors_can_be_sent_to_another_process():
    import pickle

    for error in (
        UnknownComponentError("ffn", "x", ["b", "a"], "acme", "LMX_DISABLE"),
        AmbiguousComponentError("ffn", "x", ["b", "a"]),
    ):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        assert isinstance(error, LmxError)
