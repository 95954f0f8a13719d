r"""Where in a text the answer stands: within a tag, after a marker, in the last `\boxed{}`."""

import re
from collections.abc import Callable

import attrs
from attrs import validators

from lmx_core.config import exact_types

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
"""Braces, and what is escaped, so that `\\{` is none."""
Part = Callable[[str], str | None]
TAG = r"[A-Za-z][\w-]*"

name_of_tag = validators.optional(validators.matches_re(TAG))
some_text = validators.optional(validators.min_len(1))


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ExtractionOptions:
    """Which part of a text is its answer, all of it unless given; of several that are given, each looks in the part before.

    A completion without that part has no answer. The row's own answer is read alike, as far as it has such parts; it may
    be bare.
    """

    inside: str | None = attrs.field(default=None, validator=name_of_tag)
    """A tag, without brackets: with `"answer"` the answer is what stands in the last `<answer>...</answer>`."""
    after: str | None = attrs.field(default=None, validator=some_text)
    """A marker such as `"####"`: the answer is what follows the last one."""
    boxed: bool = False
    r"""Whether the answer is what stands in the last `\boxed{}`."""

    @property
    def given(self) -> bool:
        """Whether it is a part."""
        return bool(self._parts())

    def of_completion(self, text: str) -> str | None:
        """None where the completion has no such part."""
        found: str | None = text
        for part in self._parts():
            found = None if found is None else part(found)
        return found

    def of_answer(self, text: str) -> str:
        """What the text lacks of these is not looked for in it."""
        for part in self._parts():
            found = part(text)
            text = text if found is None else found
        return text

    def _parts(self) -> list[Part]:
        inside, after = self.inside, self.after
        parts: list[Part] = []
        if inside is not None:
            parts.append(lambda text: last_inside(text, inside))
        if after is not None:
            parts.append(lambda text: last_after(text, after))
        return [*parts, last_boxed] if self.boxed else parts


def last_inside(text: str, tag: str) -> str | None:
    """What the last closing tag closes; None where there is none, or nothing opens it."""
    before, _, _ = text.rpartition(f"</{tag}>")
    _, opening, found = before.rpartition(f"<{tag}>")
    return found if opening else None


def last_after(text: str, marker: str) -> str | None:
    _, found, rest = text.rpartition(marker)
    return rest if found else None


def last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{}` or `\fbox{}`, with the braces in it; None where it is not closed."""
    boxes = [*BOX.finditer(text)]
    if not boxes:
        return None
    start, depth = boxes[-1].end(), 1
    for brace in BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if not depth:
            return text[start : brace.start()]
    return None
