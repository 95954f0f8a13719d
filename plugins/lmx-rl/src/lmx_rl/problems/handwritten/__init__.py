"""Problems written by hand, as functions with their solutions; of each module `CASES` has their difficulty and tests."""

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType

from lmx_rl.problems.handwritten import lists, numbers, texts
from lmx_rl.problems.problem import Problem
from lmx_rl.rewards.code_task import Case


def handwritten() -> list[Problem]:
    """All of them, of three kinds."""
    return [problem for module in (numbers, texts, lists) for problem in _of(module)]


def _of(module: ModuleType) -> Iterator[Problem]:
    kind = f"handwritten.{module.__name__.rpartition('.')[2]}"
    source = inspect.getsource(module)
    lines = source.splitlines(keepends=True)
    for function in ast.parse(source).body:
        if isinstance(function, ast.FunctionDef):
            difficulty, cases = module.CASES[function.name]
            docstring = function.body[0].end_lineno or function.lineno
            yield Problem(
                task_id=f"{kind}/{function.name}",
                prompt="".join(lines[function.lineno - 1 : docstring]),
                function=function.name,
                tests=[Case(args=args, expected=expected) for args, expected in cases],
                kind=kind,
                difficulty=difficulty,
                solution="".join(lines[docstring : function.end_lineno]),
            )
