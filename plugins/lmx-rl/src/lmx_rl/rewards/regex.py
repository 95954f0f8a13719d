"""The form of a completion."""

import re
from typing import Any

import attrs

from lmx_core.config import Field, exact_types


def compiles(instance: object, attribute: Field, value: str) -> None:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"'{attribute.name}' is no regular expression ({error}): {value}") from None


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class RegexOptions:
    """Options of `reward="regex"`."""

    pattern: str = attrs.field(validator=compiles)
    r"""In Python's syntax, with its flags in front: in `(?s)\A<think>.*</think>` the dot matches a new line too."""


class Regex:
    """1 where the pattern is found in the completion, 0 where it is not."""

    Options = RegexOptions

    def __init__(self, options: RegexOptions) -> None:
        self.pattern = re.compile(options.pattern)

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None:
        return float(self.pattern.search(completion) is not None)
