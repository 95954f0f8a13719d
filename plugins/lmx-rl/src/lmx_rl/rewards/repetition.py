"""Whether a completion says the same again."""

from typing import Any, Literal

import attrs
from attrs import validators

from lmx_core.config import exact_types


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class RepetitionOptions:
    """Options of `reward="repetition"`."""

    length: int = attrs.field(default=3, validator=validators.ge(1))
    """Of what is compared, in units."""
    unit: Literal["words", "characters"] = "words"
    """Words have space around them; characters suit texts without."""


class Repetition:
    """Minus the share of the completion's n-grams that stood in it before: 0 where all differ, near -1 where it goes in
    circles. `-(1 - distinct / all)`, 0 where there are none.
    """

    Options = RepetitionOptions

    def __init__(self, options: RepetitionOptions) -> None:
        self.options = options

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None:
        n = self.options.length
        units = completion.split() if self.options.unit == "words" else completion
        grams = [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
        return (len({*grams}) - len(grams)) / len(grams) if grams else 0.0
