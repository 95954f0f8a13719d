"""Rows of JSON Lines files, each of which knows where it stands."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from lmx_core.data.answers import Said
from lmx_core.data.datasets.files import pieces, size_of
from lmx_core.data.tokenizers import as_bytes
from lmx_core.errors import DataError, did_you_mean

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@attrs.frozen
class Row:
    """A table, and the place that messages name."""

    place: str
    fields: Mapping[str, Any]
    """By role: what stands in a field that has another name is here under its role's."""
    names: Mapping[str, str]
    """Fields that are called otherwise, by role."""

    def __contains__(self, role: str) -> bool:
        return role in self.fields

    def error(self, problem: str) -> DataError:
        return DataError(f"{self.place}: {problem}")

    def text(self, role: str) -> str:
        value = self.value(role, "a text")
        if not isinstance(value, str):
            raise self._other(role, "a text")
        self._check(role, value)
        return value

    def messages(self, role: str) -> list[Any]:
        expected = "a list of messages, each with a role and a content"
        value = self.value(role, expected)
        if not _is_conversation(value):
            raise self._other(role, expected)
        return value

    def said(self, role: str) -> Said:
        """A text, or messages."""
        expected = "a text, or a list of messages, each with a role and a content"
        value = self.value(role, expected)
        if isinstance(value, str):
            return self.text(role)
        if not _is_conversation(value):
            raise self._other(role, expected)
        return value

    def answer(self, role: str) -> Said:
        """What is not empty."""
        value = self.said(role)
        said = value if isinstance(value, str) else value[-1].get("content") or value[-1].get("tool_calls")
        if not said:
            raise self.error(
                f"{self._named(role)} is empty, and from an empty answer nothing is learned. Leave it out."
            )
        return value

    def flag(self, role: str) -> bool:
        value = self.value(role, "true or false")
        if not isinstance(value, bool):
            raise self._other(role, "true or false")
        return value

    def value(self, role: str, expected: str) -> Any:
        if role not in self.fields:
            others = ", ".join(self.fields) or "no other"
            near = did_you_mean(self._named(role), [*self.fields])
            raise self.error(
                f"{self._named(role)} is missing, which is to be {expected}. {near}The row has {others}; columns = "
                f'{{ {role} = "..." }} names another field.'
            )
        return self.fields[role]

    def _named(self, role: str) -> str:
        return self.names.get(role, role)

    def _other(self, role: str, expected: str) -> DataError:
        value = self.fields[role]
        return self.error(f"{self._named(role)} is {value!r:.60} ({type(value).__name__}), not {expected}")

    def _check(self, role: str, text: str) -> None:
        try:
            as_bytes(text)
        except DataError as error:
            raise self.error(f"{self._named(role)}: {error}") from None


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_message(each) for each in value)


def _is_message(value: Any) -> bool:
    known = isinstance(value, dict) and isinstance(value.get("role"), str)
    return known and ("content" in value or "tool_calls" in value)


def rows_of(files: Iterable[Path], names: Mapping[str, str]) -> Iterator[Row]:
    """The tables of files, in order; blank lines are none. `DataError` names the line that is none."""
    roles = {name: role for role, name in names.items()}
    hidden = names.keys() - names.values()  # another field plays the role of these
    for file in files:
        for number, raw in enumerate(pieces(file, b"\n", 0, size_of(file)), 1):
            line = raw.removeprefix(BYTE_ORDER_MARK) if number == 1 else raw
            if line.strip():
                place = f"{file}, line {number}"
                table = _table(line, place)
                fields = {roles.get(name, name): value for name, value in table.items() if name not in hidden}
                yield Row(place, fields, names)


def _table(line: bytes, place: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}: byte {error.start + 1} is {line[error.start : error.start + 1]!r}, which is no UTF-8. Save the file "
            "as UTF-8."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{place} is no JSON ({error}): {line.decode().strip():.60}. Each line is one table: "
            '{"prompt": "...", "completion": "..."}.'
        ) from None
    if not isinstance(value, dict):
        raise DataError(f"{place} is {value!r:.60} ({type(value).__name__}), not a table of fields")
    return value
