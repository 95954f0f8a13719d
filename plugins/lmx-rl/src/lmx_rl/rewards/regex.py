"""The form of a completion."""

import re
from pathlib import Path
from typing import Any

import attrs
from attrs import validators

from lmx_core.config import Field, exact_types
from lmx_rl.rewards.maths import Worker

PROGRAM = Path(__file__).with_name("regex_program.py")


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
    time_limit: float = attrs.field(default=1.0, validator=validators.gt(0))
    """Seconds of computing that looking for it in one completion may take."""


class Regex:
    """1 where the pattern is found in the completion, 0 where it is not, or not within the time limit.

    It is looked for in a process of its own: for a pattern with one repetition in another, a model may find a text that takes
    Python longer than anyone waits.
    """

    Options = RegexOptions

    def __init__(self, options: RegexOptions) -> None:
        self.options, self.worker = options, Searcher()

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None:
        return self.worker.judge(float(self.options.time_limit), self.options.pattern, completion)

    def close(self) -> None:
        """End the process."""
        self.worker.end()


class Searcher(Worker):
    """A process that looks for patterns, and its successors."""

    what = "the search for a pattern"

    def _program(self) -> Path:
        return PROGRAM
