"""The answer, as a number."""

import re
from decimal import Decimal, localcontext
from typing import Any

import attrs
from attrs import validators

from lmx_core.config import exact_types
from lmx_rl.rewards.extraction import ExtractionOptions

NUMBER = re.compile(
    r"""(?:(?<![\w.)])[-\u2013\u2212])?                  # a sign, unless something stands before it: 7-3 ends in 3
        (?:
            (?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9]) | [0-9]+)  # 1,234 or 1234
            (?:\.[0-9]+)?
            | (?<![\w.)])\.[0-9]+                          # .5, which v1.2.5 does not end in
        )
        (?:[eE][-+\u2013\u2212]?[0-9]{1,3}(?![0-9]))?       # no larger exponent: Decimal would refuse it
    """,
    re.VERBOSE,
)
PLAIN = str.maketrans({",": None, "\u2013": "-", "\u2212": "-"})
"""As `Decimal` reads it what is typeset with a dash or a minus sign."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class NumericOptions(ExtractionOptions):
    """Options of `reward="numeric"`."""

    tolerance: float = attrs.field(default=0.0, validator=validators.ge(0))
    """How far off a number may be, as a share of the right one."""


class Numeric:
    """1 where the last number in the completion is the last one in the answer, 0 where it is another or there is none.

    Compared as decimal numbers, so that 3, 3.0 and 3e0 are one, and 0.1 is a tenth; commas may part thousands. None where
    the answer has no number.
    """

    Options = NumericOptions

    def __init__(self, options: NumericOptions) -> None:
        self.options = options
        self.tolerance = Decimal(str(options.tolerance))

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None:
        right = last_number(self.options.of_answer(str(answer)))
        if right is None:
            return None
        given = last_number(self.options.of_completion(completion) or "")
        return float(given is not None and self._equal(given, right))

    def _equal(self, given: Decimal, right: Decimal) -> bool:
        if not self.tolerance:
            return given == right
        with localcontext(Emax=10**9, Emin=-(10**9)):
            return abs(given - right) <= self.tolerance * abs(right)


def last_number(text: str) -> Decimal | None:
    """The last number that a text mentions."""
    found = NUMBER.findall(text)
    return Decimal(found[-1].translate(PLAIN)) if found else None
