"""The answer, letter by letter."""

from typing import Any

import attrs

from lmx_core.config import exact_types


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ExactMatchOptions:
    """Options of `reward="exact_match"`."""

    ignore_case: bool = False
    """Whether capital letters are like small ones."""


class ExactMatch:
    """1 where the completion is the answer, but for space around it, and 0 otherwise. None without an answer."""

    Options = ExactMatchOptions

    def __init__(self, options: ExactMatchOptions) -> None:
        self.ignore_case = options.ignore_case

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None:
        return None if answer is None else float(self._bare(completion) == self._bare(str(answer)))

    def _bare(self, text: str) -> str:
        return text.strip().casefold() if self.ignore_case else text.strip()
