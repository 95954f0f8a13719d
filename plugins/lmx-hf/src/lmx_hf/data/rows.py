"""Rows of a dataset in a fixed order, checked, in chunks that can be read again from any of them on."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeGuard

import attrs
import numpy as np

from lmx_core.data.datasets.rows import share
from lmx_core.errors import DataError, did_you_mean

Format = Literal["text", "prompt", "messages", "preference", "judged", "question"]
Wanted = Format | Literal["auto"]
Row = dict[str, Any]
"""What a row holds, by role: `{"text": ...}`, whatever its columns are called."""
Position = dict[str, Any]
"""Where a chunk begins, as plain data."""

ROLES: Mapping[Format, tuple[str, ...]] = {
    "preference": ("chosen", "rejected"),
    "messages": ("messages",),
    "prompt": ("prompt", "completion"),
    "judged": ("prompt", "completion", "label"),
    "text": ("text",),
    "question": ("prompt",),
}
"""What a row of each format must have. The first whose columns are all there is a dataset's own."""
OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "preference": ("prompt", "tools"),
    "messages": ("tools",),
    "prompt": ("tools", "label"),
    "judged": ("tools",),
    "question": ("tools", "answer"),
}
EXPECTED: Mapping[Format, str] = {
    "text": "a text",
    "messages": "a list of messages, each with a role and a content",
    "prompt": "a text or a list of messages",
    "preference": "a text or a list of messages",
    "judged": "a text or a list of messages",
    "question": "a text or a list of messages",
}
NOT_EMPTY: Mapping[str, tuple[str, ...]] = {"preference": ("chosen", "rejected"), "judged": ("completion",)}
CHUNK = 1000
"""Rows that are read, and become tokens, together."""


def is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def is_position(value: Any) -> TypeGuard[Position]:
    """Whether it may be one: `source` is what `datasets` says of its own, or None at the beginning."""
    if not isinstance(value, Mapping):
        return False
    source = value.get("source")
    numbers = all(is_count(each) for key, each in value.items() if key != "source")
    return numbers and (source is None or (isinstance(source, Mapping) and bool(source)))


@attrs.frozen
class Columns:
    """Which column of a dataset holds what."""

    format: Format
    of: Mapping[str, str]
    """Columns by role."""
    others: Sequence[str] = ()
    """The other columns, where they are wanted: what questions are about."""

    @classmethod
    def found(cls, wanted: Wanted, names: Mapping[str, str], there: Sequence[str], where: str) -> "Columns":
        """For a format or "auto"; `names` are those of columns that are called other than their roles."""
        formats: list[Format] = [*ROLES] if wanted == "auto" else [wanted]
        for each in formats:
            if all(names.get(role, role) in there for role in ROLES[each]):
                roles = [*ROLES[each], *(role for role in OPTIONAL.get(each, ()) if names.get(role, role) in there)]
                of = {role: names.get(role, role) for role in roles}
                others = [name for name in there if name not in of.values()] if each == "question" else []
                return cls(each, of, others)
        listed = ", ".join(there)
        if wanted == "auto":
            kinds = "; ".join(" and ".join(ROLES[each]) for each in ROLES)
            raise DataError(
                f"{where} has the columns {listed}, none of the sets that lmx knows: {kinds}. Say which column holds "
                f'what: columns = {{ text = "{there[0] if there else "..."}" }}.'
            )
        missing = next(names.get(role, role) for role in ROLES[wanted] if names.get(role, role) not in there)
        raise DataError(
            f"{where} has no column {missing!r}. {did_you_mean(missing, there)}Its columns: {listed}. Rows of format "
            f'"{wanted}" have {" and ".join(ROLES[wanted])}; columns = {{ {ROLES[wanted][0]} = "..." }} names another.'
        )

    def rows(self, batch: Mapping[str, Sequence[Any]]) -> Iterator[Row]:
        count = len(next(iter(batch.values())))
        values = [batch.get(column) or [None] * count for column in (*self.of.values(), *self.others)]
        for row in zip(*values, strict=True):
            about = {"about": dict(zip(self.others, row[len(self.of) :], strict=True))}
            yield dict(zip(self.of, row, strict=False)) | (about if self.format == "question" else {})

    def problem(self, row: Row) -> str | None:
        """What is wrong with a row, or None."""
        for role, column in self.of.items():
            if problem := self._problem(role, row[role]):
                return f"its {column} is {problem}"
        return None

    def _problem(self, role: str, value: Any) -> str | None:
        shown = f"{value!r:.60} ({type(value).__name__})"
        if role == "tools":
            why = _is_no_json(value) if isinstance(value, str) else None
            return f"{value!r:.60}, which is no JSON ({why})" if why else None
        if role == "label" and self.format == "judged":
            return None if isinstance(value, bool) else f"{shown}, not true or false"
        if role in ("answer", "label"):
            return None
        if not value and role in NOT_EMPTY.get(self.format, ()):
            return f"{shown}, empty"
        if self.format != "messages" and isinstance(value, str):
            return None
        return None if self.format != "text" and _is_conversation(value) else f"{shown}, not {EXPECTED[self.format]}"


def _is_no_json(text: str) -> Exception | None:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return error
    return None


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_message(each) for each in value)


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict) and isinstance(value.get("role"), str) and ("content" in value or "tool_calls" in value)
    )


@attrs.frozen(kw_only=True)
class Rows:
    """The rows of one split, in the order of its files, or shuffled within blocks by a seed."""

    opened: Callable[[], Any]
    """Gives a `datasets.IterableDataset`."""
    where: str
    """What messages call it."""
    format: Wanted
    names: Mapping[str, str]
    keep: Callable[[float], bool] | None
    """Whether a row belongs here by its share, from 0 to 1, which its content alone decides; None takes all."""
    block: int = 0
    """How many rows are shuffled together; 0 leaves them in order."""
    seed: int = 0
    epochs: int | None = 1

    def chunks(self, position: Position) -> Iterator[tuple[Position, Columns, list[Row]]]:
        """From a position on: `{}` is the beginning, and each chunk says where it begins.

        Rows are counted from 0 in messages. `DataError` for rows that are of another kind than their format says.
        """
        epoch = position.get("epoch", 0)
        while self.epochs is None or epoch < self.epochs:
            empty = True
            for place, columns, rows in self._blocks(position):
                order = self._order(len(rows), epoch, place["block"])
                first = position.get("row", 0) if place["block"] == position.get("block", 0) else 0
                if first and first >= len(rows):
                    break
                for start in range(first, len(rows), CHUNK):
                    empty = False
                    chosen = [rows[i] for i in order[start : start + CHUNK]]
                    yield {"epoch": epoch, "row": start, **place}, columns, chosen
            if empty and position:
                raise DataError(
                    f"{self.where} has no row at the position {position!r:.200}: give one of the same data."
                )
            if empty:
                raise DataError(f"{self.where} has no rows. Give it more text, or correct the split.")
            epoch, position = epoch + 1, {}

    def _order(self, count: int, epoch: int, block: int) -> Sequence[int]:
        if not self.block:
            return range(count)
        return np.random.default_rng([self.seed, epoch, block]).permutation(count).tolist()

    def _blocks(self, position: Position) -> Iterator[tuple[Position, Columns, list[Row]]]:
        dataset, source = self.opened(), position.get("source")
        if source is not None:
            self._go_on(dataset, source)
        read, number = position.get("read", 0), position.get("block", 0)
        batches = dataset.iter(batch_size=self.block or CHUNK)
        columns: Columns | None = None
        while (batch := self._next(batches, read)) is not None:
            columns = columns or Columns.found(self.format, self.names, list(batch), self.where)
            rows = [*self._checked(columns, batch, read)]
            yield {"block": number, "read": read, "source": source}, columns, rows
            read, number, source = read + len(next(iter(batch.values()))), number + 1, dataset.state_dict()

    def _go_on(self, dataset: Any, source: Any) -> None:
        try:
            dataset.load_state_dict(source)
        except Exception as error:  # it expects what it gave
            raise DataError(
                f"{self.where} has no position {source!r:.200} ({type(error).__name__}: {error}). Give what state_dict() "
                "gave."
            ) from None

    def _next(self, batches: Iterator[Any], read: int) -> Any:
        try:
            return next(batches, None)
        except Exception as error:  # of the many readers of files
            raise DataError(
                f"{self.where} cannot be read after row {read}: {type(error).__name__}: {error}. Mend the file there, or "
                "leave it out."
            ) from None

    def _checked(self, columns: Columns, batch: Mapping[str, Sequence[Any]], read: int) -> Iterator[Row]:
        for i, row in enumerate(columns.rows(batch), read):
            if problem := columns.problem(row):
                raise DataError(
                    f"row {i} of {self.where}: {problem}. Leave such rows out, or name another column: columns = "
                    f'{{ {next(iter(columns.of))} = "..." }}.'
                )
            if row != {"text": ""} and (self.keep is None or self.keep(share(row))):
                yield row
