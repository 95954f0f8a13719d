"""Prompts, and answers to them: what trainers read that learn from comparisons and rewards."""

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]


@attrs.frozen(eq=False, kw_only=True)
class Prompt:
    """What a policy is asked, as it is asked: with what begins every text, or as a chat template writes it."""

    tokens: Ints
    text: str
    """What rewards are told was asked."""
    answer: Any = None
    """What the row of data says is right, as it stands there."""
    about: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """What else the row has: a `kind`, a `difficulty`."""


@attrs.frozen(eq=False)
class Judged:
    """A prompt and one answer, which was found good or bad."""

    prompt: Ints
    completion: Ints
    good: bool


@attrs.frozen(eq=False)
class Pair:
    """A prompt and two answers, of which the first is the better one; each ends as a text of the model does."""

    prompt: Ints
    chosen: Ints
    rejected: Ints

    def apart(self) -> tuple[Judged, Judged]:
        """The chosen answer as a good one, and the rejected one as another."""
        return Judged(self.prompt, self.chosen, good=True), Judged(self.prompt, self.rejected, good=False)
