"""The answer, letter by letter."""

from typing import Any

import attrs

from lmx_core.config import exact_types
from lmx_rl.rewards.extraction import ExtractionOptions


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ExactMatchOptions(ExtractionOptions):
    """Options of `reward="exact_match"`."""

    ignore_case: bool = False
    """Whether capital letters are like small ones."""


class ExactMatch:
    """1 where the completion is the answer, but for space around it, and 0 otherwise. None without an answer."""

    Options = ExactMatchOptions

    def __init__(self, options: ExactMatchOptions) -> None:
        self.options = options

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None:
        if answer is None:
            return None
        given = self.options.of_completion(completion)
        return float(given is not None and self._bare(given) == self._bare(self.options.of_answer(str(answer))))

    def _bare(self, text: str) -> str:
        return text.strip().casefold() if self.options.ignore_case else text.strip()
