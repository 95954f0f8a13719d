"""Problems in files, one a line: JSON Lines."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lmx_core.data.datasets.files import readable
from lmx_core.errors import DataError
from lmx_core.files import write_text
from lmx_rl.problems.problem import Problem

HANDWRITTEN = "handwritten"
"""What stands for the problems that this package comes with, in place of a file."""


def problems_of(place: str | Path) -> list[Problem]:
    """Those of a file, or of the word `handwritten`."""
    if str(place) == HANDWRITTEN:
        from lmx_rl.problems.handwritten import handwritten

        return handwritten()
    return read_problems(place)


def read_problems(path: str | Path) -> list[Problem]:
    """The problems of a file in their order. `DataError` names the file, the line and the field that is wrong."""
    file = Path(path).expanduser()
    with readable(file):
        lines = file.read_bytes().splitlines()
    found: dict[str, Problem] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            problem = Problem.read(_row(line))
            if problem.task_id in found:
                raise DataError(f"problem.task_id: {problem.task_id!r} is that of another line; give each its own")
        except DataError as error:
            raise DataError(f"{file}, line {number}: {str(error).removeprefix('problem.')}") from None
        found[problem.task_id] = problem
    if not found:
        raise DataError(f"{file} has no problems. Write one a line, as JSON with task_id, prompt, function and tests.")
    return [*found.values()]


def write_problems(path: str | Path, problems: Iterable[Problem]) -> None:
    """The file that `read_problems` reads."""
    write_text(Path(path), "".join(f"{json.dumps(each.plain())}\n" for each in problems))


def unique(problems: Sequence[Problem]) -> Sequence[Problem]:
    """The same, if no two have one `task_id`."""
    seen: set[str] = set()
    for each in problems:
        if each.task_id in seen:
            raise DataError(
                f"two problems have the task_id {each.task_id!r}. Name each file once, and give each its own."
            )
        seen.add(each.task_id)
    return problems


def _row(line: bytes) -> Any:
    try:
        return json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is no JSON ({error})") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
