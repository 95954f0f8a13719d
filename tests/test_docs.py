"""Every code block of the README and the docs runs; what is written twice is the same."""

import inspect
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


def run_tests_of(namespace, request):
    """Tests in a page are run as pytest would, with fixtures, or over what they are parametrised with."""
    for name, function in list(namespace.items()):
        if name.startswith("test_"):
            rows = [value.values for mark in getattr(function, "pytestmark", []) for value in mark.args[1]]
            fixtures = [] if rows else inspect.signature(function).parameters
            for row in rows or [[request.getfixturevalue(fixture) for fixture in fixtures]]:
                function(*row)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_runs(page, capsys, request):
    """The blocks of a page one after the other, its tests included."""
    namespace = {"__name__": page.stem}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), namespace)
    run_tests_of(namespace, request)
    if page.name == "README.md":
        assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_toml_is_toml(page):
    for block in blocks(page, "toml"):
        tomllib.loads(block)


def test_the_first_example_is_short():
    """Ten lines of Python show the whole."""
    assert len([line for line in blocks(PAGES[0], "python")[0].splitlines() if line.strip()]) <= 10


def test_commands_of_the_readme_exist():
    """Every `lmx verb` is a verb."""
    from lmx_core.registry import registry

    verbs = set(re.findall(r"(?:`|run )lmx ([a-z]+)", PAGES[0].read_text(encoding="utf-8")))
    assert {"train", "list", "info", "count", "diff", "doctor", "init"} <= verbs <= set(registry("command").names())


def test_the_two_commands_are_what_ci_runs():
    text = PAGES[0].read_text(encoding="utf-8")
    (command,) = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("python3 -m pip")]
    assert command in text
    assert "python3 -m pip install uv && python3 -m uv run lmx train examples/tiny-llama.toml" in text


def test_constraints_are_written_once():
    """`uv run` reads pyproject.toml, nox constraints.txt: one list."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pins = (ROOT / "constraints.txt").read_text().split()
    assert project["tool"]["uv"]["constraint-dependencies"] == pins
    assert all(re.fullmatch(r"[a-z0-9.-]+==[0-9][\w.]*", pin) for pin in pins)


def test_the_examples_are_those_of_the_package():
    """`lmx init` and the checkout's examples/ are the same files."""
    assert (ROOT / "examples").resolve() == ROOT / "lmx_core" / "examples"
    assert sorted(file.name for file in (ROOT / "examples").iterdir()) == [
        "tiny-block.toml",
        "tiny-gpt.toml",
        "tiny-llama.toml",
    ]


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.toml")), ids=lambda file: file.name)
def test_examples_are_whole_configs(file):
    from lmx_core.serialize import read_file, structure
    from lmx_core.train.config import RunConfig

    config = structure(read_file(file), RunConfig, str(file), installed=True)
    assert config.train.max_seconds <= 180
    assert config.train.final_eval_bytes == 500_000


def test_one_version():
    import lmx_core

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == lmx_core.__version__


def test_changes_are_told():
    """A fragment is one line for people who use lmx."""
    for file in (ROOT / "changelog").glob("*.md"):
        assert len(file.read_text(encoding="utf-8").strip().splitlines()) == 1


def test_the_page_of_configs_is_whole():
    """Every key stands in docs/config.md with its default, and nothing else does."""
    import attrs

    from lmx_core.config import BlockConfig, ModelConfig
    from lmx_core.data.corpus import DataConfig
    from lmx_core.train.config import TrainConfig

    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    sections = {"model": ModelConfig, "model.block": BlockConfig, "data": DataConfig, "train": TrainConfig}
    for section, cls in sections.items():
        table = text.split(f"## `[{section}]`")[1].split("\n## ")[0]
        listed = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.M))
        expected = {
            field.alias: "a `BlockConfig`"
            if field.alias == "block"
            else "none"
            if field.default is None
            # as TOML writes it
            else f'"{field.default}"'
            if isinstance(field.default, str)
            else str(field.default).lower()
            for field in attrs.fields(cls)
        }
        assert listed == expected
