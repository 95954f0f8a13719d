"""The parts of a completion, in tags."""

import re
from collections.abc import Sequence
from typing import Any

import attrs

from lmx_core.config import Field, as_tuple, exact_types
from lmx_rl.rewards.extraction import TAG


def names_of_tags(instance: object, attribute: Field, value: Sequence[str]) -> None:
    if not value or len({*value}) < len(value) or not all(re.fullmatch(TAG, name) for name in value):
        raise ValueError(f"expected names of tags without brackets, none of them twice, got {list(value)!r}")


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class FormatOptions:
    """Options of `reward="format"`."""

    tags: tuple[str, ...] = attrs.field(default=("think", "answer"), converter=as_tuple, validator=names_of_tags)
    """Names of the parts, in order."""
    partial: bool = False
    """Whether there is credit for less: of n parts, 1 / (n + 1) for each whose two tags are there once, the opening one
    first, and as much where that is all there is, in order."""


class Format:
    """1 where the completion is `<think>...</think><answer>...</answer>`: each tag once, in order, outside only space.

    A prompt that ends in the first tag, as some chat templates write it, has begun the first part.
    """

    Options = FormatOptions

    def __init__(self, options: FormatOptions) -> None:
        self.options = options
        self.opening = f"<{options.tags[0]}>"
        self.expected = [tag for name in options.tags for tag in (f"<{name}>", f"</{name}>")]
        self.tag = re.compile(f"({'|'.join(self.expected)})")

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None:
        begun = self.opening if prompt.rstrip().endswith(self.opening) else ""
        pieces = self.tag.split(begun + completion)
        tags, outside = pieces[1::2], pieces[::4]
        if tags == self.expected and not any(text.strip() for text in outside):
            return 1.0
        return self._share(tags) if self.options.partial else 0.0

    def _share(self, tags: list[str]) -> float:
        """Of the parts that are there, wherever they stand."""
        pairs = [*zip(self.expected[::2], self.expected[1::2], strict=True)]
        whole = [pair for pair in pairs if tuple(tag for tag in tags if tag in pair) == pair]
        return len(whole) / (len(pairs) + 1)
