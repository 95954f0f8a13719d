"""What a sandbox is: the call that a reward and a distribution with sandboxes must agree on."""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Literal, Protocol, runtime_checkable

import attrs


class Isolation(IntEnum):
    """How much of the machine a program can reach; a higher one reaches less."""

    NONE = 0
    """Whatever this process can."""
    PROCESS = 1
    """A process of its own with limits on time, memory and output; files and the network are there."""
    SYSTEM = 2
    """The kernel also keeps it from files, the network and other processes."""
    INTERPRETER = 3
    """It is not run by CPython at all: the language it is written in has no files, network and processes."""


@attrs.frozen(kw_only=True)
class Call:
    """Arguments for a function: None, bool, int, float, str, bytes, and lists, tuples, sets and tables of these."""

    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = attrs.field(factory=dict[str, Any])


@attrs.frozen(kw_only=True)
class Program:
    """A source that defines a function, and what to call it with. What is expected of it is not said to it."""

    source: str
    function: str
    calls: Sequence[Call]


@attrs.frozen(kw_only=True)
class Returned:
    """What one call gave: a value of the types of `Call`, or the error that it ended with."""

    value: Any = None
    error: str | None = None


Status = Literal["done", "failed", "time", "memory", "output", "unsupported", "broken"]


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of a program.

    `done`: every call was made; `returned` has what each gave. The program's own fault: `failed` (it could not be loaded,
    crashed or left), `time`, `memory`, `output` (a limit was passed). Not its fault, so that nothing is known of its worth:
    `unsupported` (the sandbox lacks what it uses), `broken` (the sandbox itself failed).
    """

    status: Status
    returned: Sequence[Returned] = ()
    """Of the calls that were made before it ended, in order."""
    detail: str = ""
    """For people: the error, the limit, what is not supported."""

    @property
    def known(self) -> bool:
        """Whether it says something about the program."""
        return self.status not in ("unsupported", "broken")


@runtime_checkable
class Sandbox(Protocol):
    """`Class()` or `Class(options)`, of kind `sandbox`. It is built without running anything."""

    isolation: Isolation
    """What it obtains on this machine."""

    def run(self, programs: Sequence[Program]) -> list[Outcome]:
        """What becomes of each, in order; several run at once. Never raises for what a program does."""
        ...

    def close(self) -> None:
        """End its workers. It may be used again, and then starts new ones."""
        ...
