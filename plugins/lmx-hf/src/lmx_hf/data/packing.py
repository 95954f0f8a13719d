"""Streams of examples, and of rows of one length, that go on exactly where they were left."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import attrs
import numpy as np

from lmx_core.data.documents import Bools, Example, learned
from lmx_core.data.prompts import Ints
from lmx_core.errors import DataError
from lmx_hf.data.examples import Encoder
from lmx_hf.data.rows import Format, Position, Rows, is_count, is_position

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Source:
    """Chunks of encoded rows, from any position on."""

    rows: Rows
    encode: Encoder
    formats: tuple[Format, ...]
    """Those that this stream is for."""
    signature: Mapping[str, Any]
    """What must be the same for a position to mean the same."""

    def chunks(self, position: Position) -> Iterator[tuple[Position, list[Any]]]:
        """The next chunk is made in another thread while this one is used."""
        made = self._made(position)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="lmx-rows") as worker:
            following = worker.submit(next, made, None)
            while (chunk := following.result()) is not None:
                following = worker.submit(next, made, None)
                yield chunk

    def _made(self, position: Position) -> Iterator[tuple[Position, list[Any]]]:
        for place, columns, rows in self.rows.chunks(position):
            if columns.format not in self.formats:
                raise DataError(
                    f'{self.rows.where} has rows of format "{columns.format}"; these are made of '
                    f"{' or '.join(self.formats)}. Preference rows become pairs(...), questions prompts(...), others "
                    "packed(...) and examples(...)."
                )
            yield place, self.encode(columns.format, rows)

    def state(self, position: Position, offset: int) -> dict[str, Any]:
        return {"of": dict(self.signature), "position": position, "offset": offset}

    def read(self, state: Any) -> tuple[Position, int]:
        """`DataError` for a state of other data, or of other settings, and for one that is damaged."""
        parts: Mapping[str, Any] = state if isinstance(state, Mapping) else {}
        saved, position, offset = (parts.get(name) for name in ("of", "position", "offset"))
        if not isinstance(saved, Mapping) or not is_position(position) or not is_count(offset):
            raise DataError(f"this is no position of a stream: {state!r:.200}. Give what state_dict() gave.")
        for key in {**saved, **self.signature}:
            before, now = saved.get(key), self.signature.get(key)
            if before != now:
                raise DataError(
                    f"the position was saved with {key}={before!r} and this stream has {now!r}. Go on with the same data "
                    "and settings, or start anew."
                )
        return position, offset

    def check(self, offset: int, length: int) -> None:
        """`DataError` for an offset behind what it counts."""
        if offset > length:
            raise DataError(
                f"{self.rows.where} has {length} where the position counts {offset}. Give what state_dict() gave, of the "
                "same data."
            )


class Stream(Generic[T]):
    """Examples, or pairs, one by one. `state_dict()` is plain data that JSON keeps."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._start({}, 0)

    def _start(self, position: Position, offset: int) -> None:
        self._chunks = self._source.chunks(position)
        self._position, self._chunk, self._offset, self._skip = position, list[T](), offset, offset

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        while self._offset >= len(self._chunk):
            self._position, self._chunk = next(self._chunks)
            self._source.check(self._skip, len(self._chunk))
            self._offset, self._skip = self._skip, 0
        self._offset += 1
        return self._chunk[self._offset - 1]

    def state_dict(self) -> dict[str, Any]:
        return self._source.state(self._position, self._offset)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what came after this state. `DataError` where it was saved with other data or settings."""
        self._start(*self._source.read(state))


@attrs.frozen(eq=False)
class PackedRow:
    """`seq_len` tokens of one document after another, cut where the row ends: each array (seq_len,)."""

    tokens: Ints
    learn: Bools
    """Which tokens the loss counts, as what is to be predicted."""
    documents: Ints
    """The number of each token's document within the row, for masks that keep documents apart."""


class PackedRows:
    """Rows of one length without padding; what does not fill the last one is left out.

    `state_dict()` is plain data that JSON keeps: where the first document that is not used up begins, and how many of its
    chunk's tokens were used.
    """

    def __init__(self, source: Source, seq_len: int) -> None:
        if seq_len < 1:
            raise DataError(f"seq_len={seq_len}: a row has at least 1 token")
        self._source, self._seq_len = source, seq_len
        self._start({}, 0)

    def _start(self, position: Position, offset: int) -> None:
        self._chunks = self._source.chunks(position)
        self._begin, self._offset, self._buffer = position, offset, deque[tuple[Position, _Flat]]()

    def __iter__(self) -> Iterator[PackedRow]:
        return self

    def __next__(self) -> PackedRow:
        while sum(len(flat.tokens) for _, flat in self._buffer) - self._offset < self._seq_len:
            position, examples = next(self._chunks)
            self._buffer.append((position, _Flat.of(examples)))
            self._source.check(self._offset, len(self._buffer[0][1].tokens))
        row = _Flat.joined([part for part in self._taken() if len(part.tokens)])
        return PackedRow(row.tokens, row.learn, np.cumsum(row.starts, dtype=np.int32) - np.int32(row.starts[0]))

    def _taken(self) -> Iterator["_Flat"]:
        """The parts of one row. The last chunk stays, used up or not: the position is told by it."""
        missing = self._seq_len
        while missing:
            flat = self._buffer[0][1].cut(self._offset, self._offset + missing)
            yield flat
            self._offset, missing = self._offset + len(flat.tokens), missing - len(flat.tokens)
            if missing:
                self._buffer.popleft()
                self._offset = 0

    def state_dict(self) -> dict[str, Any]:
        begin = self._buffer[0][0] if self._buffer else self._begin
        return self._source.state(begin, self._offset)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the row after this state. `DataError` where it was saved with other data or settings."""
        self._start(*self._source.read(state))


@attrs.frozen(eq=False)
class _Flat:
    """Examples one after another."""

    tokens: Ints
    learn: Bools
    starts: Bools
    """Where a document begins."""

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "_Flat":
        lengths = np.array([len(each.tokens) for each in examples])
        starts = np.zeros(lengths.sum(), np.bool_)
        starts[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
        tokens = np.concatenate([each.tokens for each in examples]).astype(np.int32)
        return cls(tokens, learned(examples), starts)

    @classmethod
    def joined(cls, parts: Sequence["_Flat"]) -> "_Flat":
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("tokens", "learn", "starts")))

    def cut(self, start: int, stop: int) -> "_Flat":
        return type(self)(self.tokens[start:stop], self.learn[start:stop], self.starts[start:stop])
