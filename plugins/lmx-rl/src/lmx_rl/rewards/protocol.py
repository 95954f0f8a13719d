"""What a reward is: the call that a trainer and a distribution with rewards must agree on. No base class is required."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Reward(Protocol):
    """`Class()` or `Class(options)`: judges one completion at a time.

    `answer` is what the row of data says is right, as it stands there, or None where the row says nothing. A reward that
    cannot judge returns None: the completion is left out of what it takes part in, and never counted as 0.

    It may be `async def __call__`: many calls are then under way at once. `concurrent = True` says that several threads
    may call it. One with a method `all(prompts, completions, answers)`, which returns a list and may be `async` too, is
    called once for many. `close()`, where it has one, ends what it started.
    """

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> Any:
        """A number or None, or what gives it when it is awaited."""
        ...
