"""Imports point down, and core never compares the name of a component."""

import ast
import re
from pathlib import Path

import pytest

import lmx_core
from lmx_core.builtin import BUILTIN

ROOT = Path(lmx_core.__file__).parent
LAYERS = [
    ["chinchilla", "chunks", "errors", "lengths", "quantities", "randomness", "shapes"],
    ["backend", "files", "losses", "metadata", "protocols"],
    ["config", "contracts"],
    ["ref"],
    ["hookspecs", "builtin", "exactly"],
    ["catalogue", "plugins"],
    ["hooks"],
    ["registry"],
    ["inventory"],
    ["factories"],
    ["serialize", "overrides"],
    ["parts"],
    ["construct", "describe"],
    ["components", "schema", "document"],
    ["block", "objective"],
    ["mup", "quantised", "recompute"],
    ["model"],
    ["architectures", "census", "freeze", "sampling"],
    ["checkpoint", "flops", "wiring", "prompt_cache"],
    ["data", "decoding", "picture"],
    ["generation", "continuations"],
    ["opening"],
    ["evaluate"],
    ["train"],
    ["testing", "scaffold"],
    ["cli"],
    ["__main__"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(ROOT.rglob("*.py"))


def part(file):
    relative = file.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imports(file):
    """What a file imports of core, inside of functions too, but not for type checkers alone."""
    tree = ast.parse(file.read_text())
    for_checkers = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_checkers:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lmx_core"):
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "lmx_core" else [node.module]
            )
            yield from (name.split(".")[1] for name in names)


def test_every_file_has_its_layer():
    assert {part(file) for file in FILES} - {"__init__"} == set(LEVEL)


@pytest.mark.parametrize(
    "file", [file for file in FILES if part(file) != "__init__"], ids=lambda f: str(f.relative_to(ROOT))
)
def test_imports_point_down(file):
    own = part(file)
    for name in set(imports(file)) - {"__version__"}:
        assert name == own or LEVEL[name] < LEVEL[own], f"{own} imports {name}"


def test_the_plan_of_layers_would_notice():
    """The test above reads imports as they are written."""
    assert "model" in set(imports(ROOT / "checkpoint.py"))
    assert "cli" in set(imports(ROOT / "__main__.py"))


def test_no_name_of_a_component_is_compared():
    """`== "rope"` and `in ("rope", ...)` are questions for the object."""
    names = "|".join(
        sorted({key.partition(".")[2] for key in BUILTIN if not key.startswith("command")}, key=len, reverse=True)
    )
    compared = re.compile(
        rf"""(?:[=!]=|\bin) *[(\[{{]?["'](?:{names})["']|["'](?:{names})["'] *(?:[=!]=|\bin\b)|case ["'](?:{names})["']"""
    )
    found = [
        f"{file.name}: {line.strip()}"
        for file in FILES
        for line in file.read_text().splitlines()
        if compared.search(line)
    ]
    assert found == []
    assert compared.search('if config.position == "rope":')
    assert compared.search('if name in ("rope", "alibi"):')


def test_the_backport_is_imported_in_one_place():
    found = [file.name for file in FILES if "import importlib_metadata" in file.read_text()]
    assert found == ["metadata.py"]
