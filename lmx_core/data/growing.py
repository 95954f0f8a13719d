"""Arrays of documents in files that grow, so that a process goes on where a killed one stopped."""

import hashlib
import io
import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from lmx_core.data.datasets.files import Split
from lmx_core.data.documents import Example, learned
from lmx_core.data.token_files import array_file
from lmx_core.errors import DataError
from lmx_core.files import write_text

HEADER = 128
"""Bytes before the numbers of a `.npy` file with one axis, whatever its length."""


@attrs.frozen(kw_only=True)
class Group:
    """Documents that were written together, as the journal notes them."""

    source: str
    """sha256 of what they were made of."""
    documents: int
    """Documents up to its end,"""
    tokens: int
    """and tokens."""
    sha256: str
    """Of what was written."""


class Growing:
    """The tokens, the ends and, where `masked`, what is learned of one split's documents.

    What the journal does not confirm is cut off when they are opened again.
    """

    def __init__(self, folder: Path, split: Split, dtype: Any, masked: bool) -> None:
        self.journal = folder / f"{split}.journal"
        types = {"tokens": np.dtype(dtype), "ends": np.dtype(np.int64)}
        types |= {"learn": np.dtype(bool)} if masked else {}
        self.types: dict[Any, np.dtype[Any]] = types
        self.paths = {what: folder / array_file(split, what) for what in self.types}
        self.groups = self._whole_groups()
        self._cut()

    @property
    def documents(self) -> int:
        return self.groups[-1].documents if self.groups else 0

    @property
    def tokens(self) -> int:
        return self.groups[-1].tokens if self.groups else 0

    def append(self, source: str, examples: Sequence[Example]) -> None:
        arrays = self._arrays(examples)
        with explained(self.journal.parent):
            for what, array in arrays.items():
                with self.paths[what].open("ab") as file:
                    file.write(array.data)
            group = Group(
                source=source,
                documents=self.documents + len(examples),
                tokens=self.tokens + len(arrays["tokens"]),
                sha256=_digest(arrays),
            )
            with self.journal.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(attrs.asdict(group))}\n")
        self.groups.append(group)

    def finish(self) -> None:
        """Say in each file how long it is."""
        with explained(self.journal.parent):
            for what, path in self.paths.items():
                with path.open("r+b") as file:
                    file.write(_header(self.types[what], self._count(what, self.documents, self.tokens)))

    def _arrays(self, examples: Sequence[Example]) -> dict[str, NDArray[Any]]:
        dtype = self.types["tokens"]
        tokens: Any = np.concatenate([np.zeros(0, dtype), *(each.tokens.astype(dtype) for each in examples)])
        lengths = np.array([len(each.tokens) for each in examples], np.int64)
        arrays = {"tokens": tokens, "ends": self.tokens + np.cumsum(lengths)}
        return arrays | ({"learn": learned(examples)} if "learn" in self.types else {})

    def _whole_groups(self) -> list[Group]:
        """The groups whose bytes are those that were written, up to the first that is not whole."""
        found: list[Group] = []
        with suppress(OSError, ValueError, TypeError):
            for line in self.journal.read_text(encoding="utf-8").splitlines():
                group = Group(**json.loads(line))
                if _digest(self._written(found[-1] if found else None, group)) != group.sha256:
                    break
                found.append(group)
        return found

    def _written(self, before: Group | None, group: Group) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {}
        for what, path in self.paths.items():
            start = self._count(what, before.documents, before.tokens) if before else 0
            count = self._count(what, group.documents, group.tokens) - start
            offset = HEADER + start * self.types[what].itemsize
            arrays[what] = np.fromfile(path, self.types[what], count, offset=offset)
        return arrays

    def _cut(self) -> None:
        """Leave of the files what whole groups have written."""
        with explained(self.journal.parent):
            for what, path in self.paths.items():
                count = self._count(what, self.documents, self.tokens)
                with path.open("r+b" if path.exists() else "w+b") as file:
                    file.write(_header(self.types[what], count))
                    file.truncate(HEADER + count * self.types[what].itemsize)
            write_text(self.journal, "".join(f"{json.dumps(attrs.asdict(group))}\n" for group in self.groups))

    def _count(self, what: str, documents: int, tokens: int) -> int:
        return documents if what == "ends" else tokens


@contextmanager
def explained(folder: Path) -> Generator[None, None, None]:
    """A disk that is full, or that cannot be written, as an error for people."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"could not write {error.filename or folder}: {error.strerror}. What is finished is kept: make room, and give "
            "the same command again."
        ) from None


def _header(dtype: np.dtype[Any], count: int) -> bytes:
    """The beginning of a `.npy` file."""
    buffer = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(buffer, about)
    assert len(buffer.getvalue()) == HEADER
    return buffer.getvalue()


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    found = hashlib.sha256()
    for array in arrays.values():
        found.update(array.data)
    return found.hexdigest()
