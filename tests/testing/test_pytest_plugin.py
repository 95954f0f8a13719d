"""What the kit gives the tests of plugins beside its checks: a view without other plugins, and plugins written for it."""

import subprocess
import sys

import jaxtyping
import mlx.core as mx
import pytest

from lmx_core import ffn_registry
from lmx_core.components.attention import split_heads
from lmx_core.errors import UnknownComponentError

PLUGIN = "lmx_core.testing.pytest_plugin"


def pytest_in(folder, *arguments):
    """pytest as a person runs it, its conftest printing what is imported by then."""
    (folder / "conftest.py").write_text(
        "import sys\n"
        f"assert {PLUGIN!r} in sys.modules\n"
        "print('has', *sorted({name.partition('.')[0] for name in sys.modules}))\n"
        "print('lmx', *sorted(name for name in sys.modules if name.startswith('lmx_core')))\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider", "-q", "-s", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_plugin_imports_no_mlx(tmp_path):
    """Every run of pytest in an environment with lmx pays for it: it is itself and the two packages above it."""
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    done = pytest_in(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    has, lmx = (line.split()[1:] for line in done.stdout.splitlines()[:2])
    assert "pytest" in has
    assert {"mlx", "importlib_metadata", "rich", "click"} & set(has) == set()
    assert lmx == ["lmx_core", "lmx_core.testing", PLUGIN]


def test_shapes_are_still_checked():
    """The hook of these tests comes after the plugin, and before all that has shapes."""
    with pytest.raises(jaxtyping.TypeCheckError):
        split_heads(mx.zeros((2, 3)), 2)


def test_other_plugins_are_hidden(tmp_path):
    """Whatever is installed, registered and set on the machine, the test sees core and its own; afterwards all is back."""
    (tmp_path / "test_hidden.py").write_text(HIDDEN)
    done = pytest_in(tmp_path, "test_hidden.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


HIDDEN = """
import os, sys
import pytest
from lmx_core.registry import SESSION, forget, kinds, registry

SOURCE = "class Mine:\\n    def __init__(self, config): pass\\n    def __call__(self, x): return x\\n"

@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        from lmx_core.testing.hermetic import Plugins
        Plugins(tmp_path_factory.mktemp("machine"), patch).install("acme-theirs", {"ffn.theirs": "acme_theirs:Mine"}, SOURCE)
        patch.setenv("LMX_DISABLE", "acme-own")
        patch.setenv("LMX_PLUGINS", "acme-theirs")
        forget()
        registry("ffn").register("noted")(registry("ffn").get("theirs"))
        yield
        registry("ffn").unregister("noted")
    forget()

def seen():
    path, modules = list(sys.path), {name for name in sys.modules if name.startswith("acme")}
    refs = {(kind, ref.name, ref.dist) for kind in kinds() for ref in registry(kind).refs() if ref.dist != "lmx-core"}
    return path, modules, refs, {name: os.environ.get(name) for name in ("LMX_PLUGINS", "LMX_DISABLE")}

BEFORE = []

def test_before():
    assert {("ffn", "theirs", "acme-theirs"), ("ffn", "noted", SESSION)} <= seen()[2]
    BEFORE.append(seen())

def test_within(plugins, monkeypatch):
    assert seen()[2] == set()
    site = plugins.install("acme-own", {"ffn.own": "acme_own:Mine"}, SOURCE)
    plugins.install("acme-theirs", {"ffn.new": "acme_theirs:Mine"}, SOURCE)
    plugins.register("ffn", "noted", registry("ffn").get("own"))
    registry("norm").register("stays")(registry("ffn").get("new"))
    monkeypatch.setenv("LMX_DISABLE", "acme-other")
    assert seen()[2] == {
        ("ffn", "own", "acme-own"), ("ffn", "new", "acme-theirs"), ("ffn", "noted", SESSION), ("norm", "stays", SESSION)
    }
    assert sys.modules["acme_theirs"].__file__.startswith(str(plugins.sites[1]))
    plugins.uninstall(site)
    assert "own" not in registry("ffn").names()
    assert "acme_own" not in sys.modules

def test_after():
    assert seen() == BEFORE[0]
    assert registry("ffn").get("noted") is registry("ffn").get("theirs") is sys.modules["acme_theirs"].Mine
"""


def test_a_distribution_is_written(plugins):
    """Its module, its metadata, other files, and what is written there later."""
    site = plugins.install("Acme.Two", {"ffn.two": "acme.parts:Two"}, version="2.5", files={"acme/parts.py": TWO})
    ref = ffn_registry.find("two")
    assert (ref.dist, ref.version, ref.target) == ("acme-two", "2.5", "acme.parts:Two")
    assert ffn_registry.get("two")(None)(3) == 3
    assert (site / "Acme_Two.py").read_text() == ""
    listing = site / "Acme_Two-2.5.dist-info" / "entry_points.txt"
    listing.write_text(listing.read_text().replace("ffn.two", "ffn.second"))
    assert ffn_registry.find("two") == ref
    plugins.forget()
    assert ffn_registry.find("second").dist == "acme-two"
    with pytest.raises(UnknownComponentError):
        ffn_registry.find("two")


TWO = """
class Two:
    def __init__(self, config): pass
    def __call__(self, x): return x
"""
