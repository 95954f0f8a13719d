"""Files as documents: found in an order that is the same everywhere, and read with errors for people."""

import glob
import hashlib
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypeVar

from lmx_core.errors import DataError

T = TypeVar("T")
Split = Literal["train", "validation"]
BLOCK = 2**20
"""Bytes of a file that are read at once."""


def below(root: Path, suffixes: tuple[str, ...], left_out: tuple[str, ...]) -> Iterator[Path]:
    """The files at any depth with one of the suffixes, apart from names that match `left_out`."""

    def wanted(name: str) -> bool:
        return not any(fnmatchcase(name, pattern) for pattern in left_out)

    def refuse(error: OSError) -> None:
        raise unreadable(error.filename, error)

    for directory, inner, names in os.walk(root, onerror=refuse):
        inner[:] = filter(wanted, inner)
        yield from (Path(directory, name) for name in filter(wanted, names) if name.endswith(suffixes))


def matching(path: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a path or glob, or those with one of the suffixes below a directory. `DataError` where there is none."""
    place = Path(os.path.expanduser(path))
    with readable(place):
        if place.is_dir():
            files = list(below(place, suffixes, (".*",)))
            problem = f"has no files that end in {', '.join(suffixes)}. Set suffixes, or write a glob"
        elif place.exists():
            files = [place] if place.is_file() else []
            problem = "is neither a file nor a directory. Copy what it gives into a file"
        else:
            files = [file for file in map(Path, glob.iglob(str(place), recursive=True)) if file.is_file()]
            where = "" if place.is_absolute() else f" in {Path.cwd()}"
            problem = f"matches no file{where}. Correct the path; in a glob '**/' looks into directories"
    if not files:
        raise DataError(f"{path} {problem}.")
    return files


def in_order(files: Iterable[Path], root: Path) -> list[Path]:
    """An order that is fixed and mixed, by where each file lies below `root`."""
    return sorted(files, key=lambda file: share(file, root))


def share(file: Path, root: Path) -> float:
    """Where a file stands among all that could be there, from 0 to 1."""
    path = file.relative_to(root).as_posix().encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(path).digest()[:6]) / 2**48


def side(split: Split, train: T, validation: T) -> T:
    if split not in ("train", "validation"):
        raise DataError(f"there is no split {split!r}; there are 'train' and 'validation'")
    return train if split == "train" else validation


def as_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def read_text(file: Path) -> str:
    return as_text(read_bytes(file))


def read_bytes(file: Path) -> bytes:
    with readable(file):
        return file.read_bytes()


def pieces(file: Path, separator: bytes, start: int, end: int) -> Iterator[bytes]:
    """What lies in a file between two offsets, cut behind each separator, and read as it is asked for."""
    with readable(file), file.open("rb") as opened:
        opened.seek(start)
        left, held, sought = end - start, bytearray(), 0
        while block := opened.read(min(BLOCK, left)):
            left, first = left - len(block), 0
            held += block
            while (found := held.find(separator, sought)) >= 0:
                sought = found + len(separator)
                yield bytes(held[first:sought])
                first = sought
            del held[:first]
            sought = max(len(held) - len(separator) + 1, 0)
        if held:
            yield bytes(held)


def size_of(file: Path) -> int:
    with readable(file):
        return file.stat().st_size


@contextmanager
def readable(file: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        raise unreadable(file, error) from None


def unreadable(file: Any, error: OSError) -> DataError:
    return DataError(f"cannot read {file}: {error.strerror}. Correct the path or its permissions, or leave it out.")
