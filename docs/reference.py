"""The generated pages: what the registry, click and the docstrings say, as Markdown."""

import importlib
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from typing import Any

import click

from lmx_core.describe import REQUIRED, Description, Option, describe
from lmx_core.inventory import entries
from lmx_core.plugins import CORE
from lmx_core.registry import registry

WIDTH, LONG = 90, 40


def catalogue(distributions: Sequence[str]) -> str:
    """These distributions with their components."""
    offered = [entry for entry in entries() if entry.state != "refused"]
    return "\n".join(
        _distribution(name, [(each.kind, each.name) for each in offered if each.distribution == name])
        for name in distributions
    )


def _distribution(name: str, components: Sequence[tuple[str, str]]) -> str:
    summary = metadata.metadata(name)["Summary"]
    extra = "" if name == CORE else f"\n`pip install {name}`\n"
    sections = [_component(name, kind, each) for kind, each in components if kind != "command"]
    return f"\n## {name}\n{summary}.\n{extra}" + "".join(sections)


def _component(dist: str, kind: str, name: str) -> str:
    about = describe(registry(kind).get(f"{dist}/{name}"))
    return f"\n### {kind} `{name}`\n{_linked(about.summary)}\n{_papers(about)}{_sizes(about)}{_options(about.options)}"


def _papers(about: Description) -> str:
    """Those that the rest of its docstring names."""
    others = [paper for paper in about.papers if paper not in about.summary]
    return f"\nSource: {_linked(', '.join(others))}.\n" if others else ""


def _sizes(about: Description) -> str:
    return f"\nSizes: {', '.join(f'`{size}`' for size in about.sizes)}.\n" if about.sizes else ""


def _options(options: Sequence[Option]) -> str:
    if not options:
        return ""
    ruled, told = any(each.rule for each in options), any(each.doc for each in options)
    header = ["option", "type", "default", *(["rule"] if ruled else []), *([""] if told else [])]
    rows = [
        [
            f"`{each.name}`",
            each.type,
            _default(each.default),
            *([each.rule] if ruled else []),
            *([_linked(each.doc)] if told else []),
        ]
        for each in options
    ]
    return "\n" + "".join(
        f"| {' | '.join(_cell(cell) for cell in row)} |\n" for row in [header, ["---"] * len(header), *rows]
    )


def _default(value: Any) -> str:
    """As TOML writes it."""
    if value is REQUIRED:
        return "required"
    if value is None:
        return "none"
    text = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
    return f"`{text}`" if len(text) <= LONG else "long: `lmx plugins show` has it"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _linked(text: str) -> str:
    """Papers as links, and RST's double backticks as single ones."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def command_line() -> str:
    """The help of core's verbs, and of the verbs below them."""
    from lmx_core.cli import lmx

    refs = sorted((ref for ref in registry("command").refs() if ref.dist == CORE), key=lambda ref: ref.name)
    settings = {**lmx.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    root = click.Context(lmx, info_name="lmx", **settings)
    found = [text for ref in refs for text in _helps(registry("command").get(ref.name), ref.name, root)]
    return "".join(found)


def _helps(command: click.Command, name: str, above: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=above, terminal_width=WIDTH, max_content_width=WIDTH)
    text = re.sub(r"\[(\[[\w|]+\])\]", r"\1", command.get_help(context))  # click before 8.2 writes the brackets twice
    yield f"\n## {context.command_path}\n```text\n{text}\n```\n"
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            below = command.get_command(context, each)
            assert below is not None
            yield from _helps(below, each, context)


def python_api() -> str:
    return "".join(f"\n## {module}\n{''.join(_exported(module))}" for module in ("lmx_core", "lmx_core.testing"))


def _exported(name: str) -> Iterator[str]:
    module = importlib.import_module(name)
    for each in sorted(module.__all__, key=str.lower):
        value = getattr(module, each)
        if inspect.isclass(value) or inspect.isfunction(value):
            yield f"\n### {each}\n```text\n{_signature(each, value)}\n```\n{_text(value)}\n"
            yield from _methods(value)


def _methods(cls: Any) -> Iterable[str]:
    """Its own public methods and properties, those of a protocol's bases left out."""
    if not inspect.isclass(cls) or issubclass(cls, Exception):
        return
    for name, value in vars(cls).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if name[0] != "_" and inspect.isfunction(function) and function.__doc__:
            call = f".{name}" if isinstance(value, property) else _signature(f".{name}", function)
            yield f"\n- `{call}`: {textwrap.indent(_text(function), '    ').lstrip()}\n"


def _signature(name: str, value: Any) -> str:
    """Its parameters and defaults; the types, shapes most of them, are in the source."""
    if inspect.isclass(value) and issubclass(value, BaseException):
        return f"{name}(message)"
    signature = inspect.signature(value)
    parameters = [each.replace(annotation=each.empty) for each in signature.parameters.values() if each.name != "self"]
    line = f"{name}{signature.replace(parameters=parameters, return_annotation=signature.empty)}"
    line = line.replace("=NOTHING", "=...")  # attrs makes the default anew each time
    return textwrap.fill(line, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _text(value: Any) -> str:
    return _linked(inspect.cleandoc(value.__doc__ or ""))


def hooks() -> str:
    from lmx_core import hookspecs

    found = [(name, value) for name, value in vars(hookspecs).items() if name.startswith("lmx_")]
    return "".join(f"\n### {name}\n```text\n{_signature(name, value)}\n```\n{_text(value)}\n" for name, value in found)


def errors() -> str:
    from lmx_core import errors

    found = [value for value in vars(errors).values() if inspect.isclass(value) and value.__module__ == errors.__name__]
    return "".join(f"- `{each.__name__}`: {' '.join(_text(each).split())}\n" for each in found)
