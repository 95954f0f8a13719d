"""Whether an error is about what Python has and Monty has not."""

import builtins
import re
import sys
from collections.abc import Callable


def _of_library(module: str, *_: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def _of_type(name: str, attribute: str) -> bool:
    kind = getattr(builtins, name, None)
    return isinstance(kind, type) and hasattr(kind, attribute)


def _of_program(name: str) -> bool:
    return not hasattr(builtins, name) and name != "NoneType"


def _always(*_: str) -> bool:
    return True


SAYS: list[tuple[str, Callable[..., bool]]] = [
    (r"NotImplementedError: The monty syntax parser", _always),
    (r"\w+: Internal error in monty", _always),
    (r"\w+: '[\w.]+' is not supported in this environment", _always),
    (r"ModuleNotFoundError: No module named '([\w.]+)'", _of_library),
    (r"ImportError: cannot import name '\w+' from '([\w.]+)'", _of_library),
    (r"AttributeError: 'module' object has no attribute '\w+' and no __dict__", _always),
    (r"AttributeError: module '([\w.]+)' has no attribute", _of_library),
    (r"AttributeError: '(\w+)' object has no attribute '(\w+)'", _of_type),
    (r"AttributeError: type object '(\w+)' has no attribute '(\w+)'", _of_type),
    (r"NameError: name '(\w+)' is not defined", lambda name: hasattr(builtins, name)),
    (r"\w+: .*\b(?:is not yet supported|does not yet support)\b", _always),
    (r"TypeError: 'list' object is not an iterator", _always),  # what `map`, `zip` and generator expressions give there
    (r"TypeError: '[<>]=?' not supported between instances of '(\w+)'", _of_program),  # methods that it does not call
    (r"TypeError: object of type '(\w+)' has no len", _of_program),
    (r"TypeError: set\.\w+\(\) takes exactly one argument", _always),
    (r"ValueError: pow\(\) 2nd argument cannot be negative", _always),
]


def lacking(error: str) -> bool:
    """By its text. A program may say the same of itself, and is then as unknown as one that uses what is lacking."""
    return any((found := re.match(pattern, error)) and holds(*found.groups()) for pattern, holds in SAYS)
