"""What a kind of generated problem is: a function of a level and of what is drawn, which gives a draft."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs

LEVELS = 3
"""Every kind has so many, the easiest being 1."""

Arguments = tuple[Any, ...]


@attrs.frozen
class Draft:
    """A problem before examples and tests are drawn for it."""

    signature: str
    """As in `double(x: int) -> int`."""
    says: str
    """What the docstring asks for."""
    body: str
    """Lines that solve it."""
    arguments: Callable[[Random], Arguments]
    """Draws those of one call."""
    edges: Sequence[Arguments] = ()
    """Calls that are always among the tests: of nothing, of one, of equals."""

    @property
    def function(self) -> str:
        return self.signature.partition("(")[0]


Kind = Callable[[Random, int], Draft]
KINDS: dict[str, Kind] = {}
"""The kinds that there are, by name: `arithmetic.digits`."""


def kind(name: str) -> Callable[[Kind], Kind]:
    """Add a function to `KINDS`."""

    def add(make: Kind) -> Kind:
        KINDS[name] = make
        return make

    return add


def integers(low: int, high: int, count: int = 1) -> Callable[[Random], Arguments]:
    """So many whole numbers, each from `low` to `high`."""
    return lambda draw: tuple(draw.randint(low, high) for _ in range(count))


def list_of(low: int, high: int, longest: int = 7) -> Callable[[Random], Arguments]:
    """A list of up to `longest` whole numbers."""
    return lambda draw: (numbers(draw, low, high, longest),)


def numbers(draw: Random, low: int, high: int, longest: int = 7) -> list[int]:
    return [draw.randint(low, high) for _ in range(draw.randint(1, longest))]


def word(draw: Random, letters: str = "abcde", longest: int = 7) -> str:
    return "".join(draw.choice(letters) for _ in range(draw.randint(1, longest)))


def word_of(letters: str = "abcde", longest: int = 7) -> Callable[[Random], Arguments]:
    return lambda draw: (word(draw, letters, longest),)


def sentence(draw: Random, longest: int = 5) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, longest)))


def sentence_of(longest: int = 5) -> Callable[[Random], Arguments]:
    return lambda draw: (sentence(draw, longest),)


WORDS = (
    *(
        "apple",
        "bird",
        "cloud",
        "door",
        "echo",
        "field",
        "green",
        "house",
        "ice",
        "jar",
        "kite",
        "lamp",
        "moon",
        "north",
    ),
    *(
        "ocean",
        "paper",
        "quiet",
        "river",
        "stone",
        "tree",
        "under",
        "violet",
        "water",
        "yellow",
        "zero",
        "level",
        "noon",
    ),
)
