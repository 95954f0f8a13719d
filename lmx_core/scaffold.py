"""A new plugin as a folder: a component that works, its test, and what publishes it."""

import datetime
import importlib.util
import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template

import attrs

from lmx_core import __version__
from lmx_core.builtin import BUILTIN
from lmx_core.config import BlockConfig
from lmx_core.data.corpus import DataConfig
from lmx_core.errors import ConfigError, did_you_mean
from lmx_core.files import atomically
from lmx_core.plugins import CORE
from lmx_core.train.config import TrainConfig

TEMPLATES = resources.files("lmx_core") / "templates"
NAME, COMPONENT = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*"), re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
SECTIONS = {"model.block": BlockConfig, "data": DataConfig, "train": TrainConfig}
FUNCTIONS = {"config": "_config", "command": "_command"}
"""Kinds whose components are functions, and how these are called after the component."""


def scaffold(name: str, kind: str, component: str | None = None, directory: Path = Path()) -> Path:
    """Write the plugin `name` below a directory, whole or not at all; its folder.

    `ConfigError` for a name that would not do, and for a folder that exists.
    """
    component = name.partition("-")[2].replace("-", "_") or name if component is None else component
    _must_do(name, kind, component)
    target = directory / name
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target} exists. Choose another name or --directory.")
    package, module = name.replace("-", "_"), component.replace("-", "_")
    source = f"src/{package}/__init__.py"
    words = {
        "dist": name,
        "package": package,
        "kind": kind,
        "component": component,
        "module": module,
        "attribute": _attribute(kind, module),
        "usage": _usage(kind, component),
        "where": f"`{source}`",
        "core": ".".join(__version__.split(".")[:2]),
        "year": str(datetime.date.today().year),
    }
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "LICENSE": "LICENSE",
        ".gitignore": "gitignore",
        ".github/workflows/tests.yml": "tests.yml",
        f"tests/test_{module}.py": "test.py",
        source: f"kinds/{kind}.py",
    }
    with atomically(target) as folder:
        for file, template in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            text = TEMPLATES.joinpath(f"{template}.in").read_text(encoding="utf-8")
            (folder / file).write_text(Template(text).substitute(words), encoding="utf-8")
    return target


def kinds() -> list[str]:
    """The kinds that there is a template for: all of core's."""
    return sorted(file.name.removesuffix(".py.in") for file in TEMPLATES.joinpath("kinds").iterdir())


def _must_do(name: str, kind: str, component: str) -> None:
    if kind not in kinds():
        raise ConfigError(
            f"no kind of component named {kind!r}. {did_you_mean(kind, kinds())}Kinds: {', '.join(kinds())}."
        )
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a plugin: small letters, digits and hyphens, such as acme-relu2")
    if not COMPONENT.fullmatch(component):
        raise ConfigError(
            f"{component!r} is no name for a component: small letters, digits and _, such as --component relu2"
        )
    package = name.replace("-", "_")
    if name == CORE or keyword.iskeyword(package) or importlib.util.find_spec(package):
        raise ConfigError(
            f"{name!r} will not do: {package} is a name of Python's or of a package that is installed here"
        )
    if keyword.iskeyword(_attribute(kind, component.replace("-", "_"))):
        raise ConfigError(f"{component!r} is a word of Python's. Choose another one with --component.")
    if f"{kind}.{component}" in BUILTIN:
        raise ConfigError(f"{kind} {component!r} is one of core's names. Choose another one with --component.")


def _attribute(kind: str, module: str) -> str:
    """What the component is called in its package."""
    if kind in FUNCTIONS:
        return f"{module}{FUNCTIONS[kind]}"
    return "".join(part.capitalize() for part in module.split("_"))


def _usage(kind: str, component: str) -> str:
    """How a config names it, or how it is called."""
    slots = {
        field.metadata["kind"]: f'[{section}]\n{field.alias} = "{component}"'
        for section, cls in SECTIONS.items()
        for field in attrs.fields(cls)
        if "kind" in field.metadata
    }
    slots["config"] = f'[model]\nfactory = "{component}"'
    slots["scaling"] = f'[model.block]\nposition = {{ name = "rope", scaling = "{component}" }}'
    if kind == "cache":
        return f'```python\nmodel.make_cache("{component}")\n```'
    return f"```toml\n{slots[kind]}\n```" if kind in slots else f"```sh\nlmx {component} --help\n```"
