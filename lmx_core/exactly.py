"""Plain data as values of a type, exactly: nothing is converted, and every problem is found, each with its path."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from types import UnionType
from typing import Any, Union, get_args, get_origin

import cattrs

from lmx_core.config import ComponentSpec, type_problem
from lmx_core.errors import LmxError

NONE = "none"
"""How a file writes None, which TOML lacks, where None is not the default."""


class Problems(Exception):
    """What is wrong below one place: (path, message) pairs."""

    def __init__(self, *found: tuple[str, str]) -> None:
        super().__init__(found)
        self.found = found

    def below(self, key: str) -> list[tuple[str, str]]:
        return [
            (f"{key}.{path}" if key and path and not path.startswith("[") else f"{key}{path}", message)
            for path, message in self.found
        ]


def exact_converter() -> cattrs.Converter:
    """A converter for numbers, texts, choices, lists and tables; whoever takes it adds records."""
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook_func(lambda _: True, exactly)
    for exact in (int, float, bool, str):
        converter.register_structure_hook(exact, exactly)
    converter.register_structure_hook_factory(_is_union, lambda kind: _choices(converter, kind))
    converter.register_structure_hook_factory(_is_list, lambda kind: _items(converter, kind))
    converter.register_structure_hook_factory(_is_table, lambda kind: _values(converter, kind))
    return converter


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in (tuple, list, Sequence)


def _is_table(kind: Any) -> bool:
    return get_origin(kind) in (dict, Mapping)


def exactly(data: Any, kind: Any) -> Any:
    if problem := type_problem(data, kind):
        raise Problems(("", problem))
    return data


def _choices(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    """The first choice that the data is, and None where a file writes it."""
    choices = [choice for choice in get_args(kind) if choice is not type(None)]
    optional = len(choices) < len(get_args(kind))
    a_name = ComponentSpec in choices  # of components one may be called so

    def read(data: Any, _: Any) -> Any:
        if optional and (data is None or (data == NONE and not a_name)):
            return None
        problems: list[Problems] = []
        for choice in choices:
            try:
                return converter.structure(data, choice)
            except Problems as found:
                problems.append(found)
        inside = [found for found in problems if any(path for path, _ in found.found)]
        raise inside[0] if inside else Problems(("", type_problem(data, kind) or problems[0].found[0][1]))

    return read


def _items(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    """A list stays one where the type says so; other sequences become tuples."""
    inner, make = get_args(kind), list if get_origin(kind) is list else tuple
    fixed = get_origin(kind) is tuple and inner[-1] is not ...

    def read(data: Any, _: Any) -> Any:
        if not isinstance(data, list | tuple) or (fixed and len(data) != len(inner)):
            return exactly(data, kind)
        kinds = inner if fixed else [inner[0]] * len(data)
        with all_of() as problems:
            values: list[Any] = []
            for i, (item, one) in enumerate(zip(data, kinds, strict=True)):
                with collecting(problems, f"[{i}]"):
                    values.append(converter.structure(item, one))
        return make(values)

    return read


def _values(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    one = get_args(kind)[1]

    def read(data: Any, _: Any) -> Any:
        if not isinstance(data, Mapping):
            return exactly(data, kind)
        values: dict[Any, Any] = {}
        with all_of() as problems:
            for key, item in data.items():
                with collecting(problems, str(key)):
                    values[key] = converter.structure(item, one)
        return exactly(values, kind)

    return read


@contextmanager
def all_of() -> Generator[list[tuple[str, str]], None, None]:
    """Collect problems within, and raise them together at the end."""
    problems: list[tuple[str, str]] = []
    yield problems
    if problems:
        raise Problems(*problems)


@contextmanager
def collecting(problems: list[tuple[str, str]], key: str) -> Generator[None, None, None]:
    """Note what is wrong below `key`, and go on with the next one."""
    try:
        yield
    except Problems as found:
        problems += found.below(key)
    except LmxError as error:
        problems.append((key, str(error)))
