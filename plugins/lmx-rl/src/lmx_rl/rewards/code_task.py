"""A function to be written, and the calls that it is tested with: as objects, and as the JSON that rows of data hold."""

import ast
import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from lmx_core.config import as_tuple
from lmx_core.errors import DataError
from lmx_rl.rewards.code_text import program_text
from lmx_rl.sandbox.protocol import Call, Outcome, Program

LITERAL = "python"
"""The key of a JSON object that stands for a value which JSON lacks: `{"python": "(1, 2)"}`."""


@attrs.frozen(kw_only=True)
class Case:
    """Arguments, and what the function should return for them."""

    args: Sequence[Any] = attrs.field(default=(), converter=as_tuple)
    kwargs: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    expected: Any

    @classmethod
    def read(cls, data: Any, where: str) -> "Case":
        """From `{"args": [...], "kwargs": {...}, "expected": ...}`; `DataError` says which field is wrong."""
        row = table(data, where, {"args", "kwargs", "expected"})
        if "expected" not in row:
            raise DataError(f"{where}.expected: is missing; write null where the function should return None")
        args, kwargs = row.get("args", []), row.get("kwargs", {})
        if not isinstance(args, list | tuple):
            raise DataError(f"{where}.args: expected a list of arguments, got {args!r:.60}")
        return cls(
            args=[value_of(each, f"{where}.args[{i}]") for i, each in enumerate(args)],
            kwargs={
                name: value_of(each, f"{where}.kwargs.{name}")
                for name, each in table(kwargs, f"{where}.kwargs").items()
            },
            expected=value_of(row["expected"], f"{where}.expected"),
        )

    def plain(self) -> dict[str, Any]:
        """What `read` reads."""
        found: dict[str, Any] = {"args": [plain_value(each) for each in self.args]}
        if self.kwargs:
            found["kwargs"] = {name: plain_value(each) for name, each in self.kwargs.items()}
        return {**found, "expected": plain_value(self.expected)}

    @property
    def call(self) -> Call:
        return Call(args=self.args, kwargs=self.kwargs)


@attrs.frozen(kw_only=True)
class CodeTask:
    """What decides on a completion: the beginning of the function, its name, and its tests."""

    prompt: str
    function: str
    tests: Sequence[Case] = attrs.field(converter=as_tuple)

    @classmethod
    def read(cls, data: Any, where: str = "answer") -> "CodeTask":
        """From a table with these fields, others left alone; `DataError` says which field is wrong."""
        row = table(data, where)
        prompt, function = (text(row, name, where) for name in ("prompt", "function"))
        if not function.isidentifier():
            raise DataError(f"{where}.function: expected the name of a function, got {function!r:.60}")
        tests = row.get("tests")
        if not isinstance(tests, list | tuple) or not tests:
            raise DataError(f"{where}.tests: expected a list of calls, at least one, got {tests!r:.60}")
        cases = [Case.read(each, f"{where}.tests[{i}]") for i, each in enumerate(tests)]
        return cls(prompt=prompt, function=function, tests=cases)

    def plain(self) -> dict[str, Any]:
        """What `read` reads."""
        return {"prompt": self.prompt, "function": self.function, "tests": [each.plain() for each in self.tests]}

    def program(self, completion: str) -> Program:
        """What runs: of a completion the code, with the prompt before it where it only goes on with that."""
        source = program_text(self.prompt, completion, self.function)
        return Program(source=source, function=self.function, calls=[each.call for each in self.tests])

    def passed(self, outcome: Outcome) -> int | None:
        """How many tests it passed; None where the sandbox cannot say."""
        from lmx_rl.sandbox import equal

        if not outcome.known:
            return None
        made = zip(self.tests, outcome.returned, strict=False)  # it may have ended before the last
        return sum(each.error is None and equal(each.value, case.expected) for case, each in made)


def value_of(data: Any, where: str) -> Any:
    """The Python value that JSON stands for. `DataError` for a literal that is none."""
    if isinstance(data, Mapping):
        items: Mapping[Any, Any] = data
        if [*items] == [LITERAL] and isinstance(items[LITERAL], str):
            return _literal(items[LITERAL], where)
        return {key: value_of(each, f"{where}.{key}") for key, each in items.items()}
    if isinstance(data, list | tuple):
        several: Sequence[Any] = data
        return [value_of(each, f"{where}[{i}]") for i, each in enumerate(several)]
    return data


def plain_value(value: Any) -> Any:
    """The JSON for a value. `DataError` where no literal makes it."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and not math.isnan(value):
        return value if math.isfinite(value) else {LITERAL: "1e999" if value > 0 else "-1e999"}
    if type(value) is list:
        several: list[Any] = value
        return [plain_value(each) for each in several]
    if type(value) is dict and all(type(key) is str for key in value) and [*value] != [LITERAL]:
        items: dict[str, Any] = value
        return {key: plain_value(each) for key, each in items.items()}
    written = repr(value)
    if _literal(written, "a value") != value:
        raise DataError(f"{written:.60} has no literal that is equal to it")
    return {LITERAL: written}


def _literal(written: str, where: str) -> Any:
    try:
        return ast.literal_eval(written)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise DataError(
            f"{where}: {written!r:.60} is no Python literal; write one such as '(1, 2)' or '{{1, 2}}'"
        ) from None


def table(data: Any, where: str, known: set[str] | None = None) -> Mapping[str, Any]:
    """`data`, if it is a table with text as keys, and with none but the known ones."""
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):  # pyright: ignore[reportUnknownVariableType]
        raise DataError(f"{where}: expected a table, got {data!r:.60}")
    row: Mapping[str, Any] = data
    for key in row.keys() - (row.keys() if known is None else known):
        raise DataError(f"{where}.{key}: unknown field; there are {', '.join(sorted(known or ()))}")
    return row


def text(row: Mapping[str, Any], name: str, where: str) -> str:
    """A field that must be there and hold text."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        problem = "is missing" if name not in row else f"expected a text, got {value!r:.60}"
        raise DataError(f"{where}.{name}: {problem}")
    return value
