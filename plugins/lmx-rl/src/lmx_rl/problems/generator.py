"""Easy problems without end, the same for the same seed."""

import copy
import textwrap
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from random import Random
from typing import Any

from lmx_core.errors import ConfigError, did_you_mean
from lmx_rl.problems.kinds import KINDS, LEVELS, Draft
from lmx_rl.problems.problem import Problem
from lmx_rl.rewards.code_task import Case

EXAMPLES = 2
"""Calls that the docstring shows."""
TESTS = 10
"""Calls that it does not show."""
WIDTH = 96
"""Characters of a line of the docstring."""
TRIES = 100
"""Draws for each problem after which a kind has no more of them."""


def generate(
    *, kinds: Sequence[str] = ("*",), per_kind: int = 12, difficulties: Sequence[int] = (1, 2, 3), seed: int = 0
) -> list[Problem]:
    """So many problems of each kind, of the difficulties in turn, no two alike.

    `kinds` are names or patterns, as `lists.*`. A problem depends on its kind, its difficulty, its number and the seed alone.
    """
    for level in difficulties:
        if not 1 <= level <= LEVELS:
            raise ConfigError(f"difficulties: there is no {level}; there are 1 to {LEVELS}")
    levels = [difficulties[i % len(difficulties)] for i in range(per_kind)]
    return [
        problem
        for name in matching(kinds, [*KINDS])
        for level in dict.fromkeys(difficulties)
        for problem in _several(name, level, levels.count(level), seed)
    ]


def matching(patterns: Sequence[str], known: Sequence[str]) -> list[str]:
    """The kinds that any of the patterns means, in their order. `ConfigError` for a pattern that means none."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise ConfigError(f"no kind {pattern!r}. {did_you_mean(pattern, known)}Kinds: {', '.join(known)}.")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _several(name: str, level: int, count: int, seed: int) -> list[Problem]:
    found: dict[str, Problem] = {}
    draws = (Random(f"{seed}/{name}/{level}/{i}") for i in range(count * TRIES))
    while len(found) < count:
        if (draw := next(draws, None)) is None:
            raise ConfigError(f"per_kind: {name} has no {count} problems of difficulty {level}. Ask for fewer.")
        problem = drawn(name, level, len(found), draw)
        if problem is not None:
            found.setdefault(problem.prompt, problem)
    return [*found.values()]


def drawn(name: str, level: int, number: int, draw: Random) -> Problem | None:
    """One problem of a kind; None where what was drawn needs no work."""
    draft = KINDS[name](draw, level)
    solution = textwrap.indent(draft.body, "    ") + "\n"
    solve = _function(f"def {draft.signature}:\n{solution}", draft.function)
    calls = _calls(draft, draw)
    cases = [Case(args=each, expected=solve(*copy.deepcopy(each))) for each in calls]
    examples, tests = cases[:EXAMPLES], cases[EXAMPLES:]
    if needs_no_work(tests):
        return None
    return Problem(
        task_id=f"{name}/{level}/{number}",
        prompt=_prompt(draft, examples),
        function=draft.function,
        tests=tests,
        kind=name,
        difficulty=level,
        solution=solution,
    )


def needs_no_work(tests: Sequence[Case]) -> bool:
    """Whether a constant, or one of the arguments as it is, passes them all."""
    expected = [repr(each.expected) for each in tests]
    given = zip(*([repr(argument) for argument in each.args] for each in tests), strict=True)
    return len({*expected}) == 1 or any([*argument] == expected for argument in given)


def _calls(draft: Draft, draw: Random) -> Sequence[tuple[Any, ...]]:
    """Arguments, all different: of the examples, and of the tests, which begin with the edges."""
    edges = {repr(each): each for each in draft.edges}
    others: dict[str, tuple[Any, ...]] = {}
    while len(others) + len(edges) < EXAMPLES + TESTS:
        arguments = draft.arguments(draw)
        if repr(arguments) not in edges:
            others[repr(arguments)] = arguments
    found = [*others.values()]
    return [*found[:EXAMPLES], *edges.values(), *found[EXAMPLES:]]


def _prompt(draft: Draft, examples: Sequence[Case]) -> str:
    return "\n".join([f"def {draft.signature}:", *_docstring(draft, examples), ""])


def _docstring(draft: Draft, examples: Sequence[Case]) -> Iterator[str]:
    indent = " " * 4
    yield from textwrap.wrap(f'"""{draft.says}', WIDTH, initial_indent=indent, subsequent_indent=indent)
    yield ""
    for each in examples:
        yield f"{indent}>>> {draft.function}({', '.join(map(repr, each.args))})"
        yield f"{indent}{each.expected!r}"
    yield f'{indent}"""'


def _function(source: str, name: str) -> Callable[..., Any]:
    """One of our own solutions, to say what its tests expect."""
    found: dict[str, Any] = {}
    exec(source, found)
    return found[name]
