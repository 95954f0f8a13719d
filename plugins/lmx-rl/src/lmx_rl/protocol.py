"""What a reward is: the call that a trainer and a distribution with rewards must agree on. No base class is required."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Reward(Protocol):
    """`Class()` or `Class(options)`: judges one completion at a time.

    `answer` is what the row of data says is right, as it stands there, or None where the row says nothing. A reward that
    cannot judge returns None: the completion is left out of what it takes part in, and never counted as 0.
    """

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None: ...
