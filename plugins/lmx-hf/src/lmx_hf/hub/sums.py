"""Checksums of fetched files."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmx_core.data.datasets import cache_directory
from lmx_hf.progress import Progress

SHA256, GIT = 64, 40
"""Hexadecimal digits: of a large file's name in the cache, and of a small one's."""


def damaged(files: Sequence[Path], listed: Callable[[], Mapping[str, str]]) -> list[Path]:
    """Those whose bytes are not what the hub says they are; they are removed from the cache, so that they are fetched anew.

    huggingface_hub checks lengths alone. The cache names a blob by its SHA-256, or a small one by its git hash; where it
    cannot hold links, `listed()` says the sum of each name, and what it does not know is not checked. A file that is right
    is remembered by path, size and time in `LMX_CACHE`, and not read again: the first load of 100 GB reads them once more,
    which takes one core about a minute (1.4 GB/s where it has instructions for SHA, a third of that elsewhere) or as long
    as the disk needs, and later loads read nothing. Bytes that rot on the disk afterwards are not noticed.
    """
    sums = {file: _name_of_blob(file) for file in files}
    if not all(sums.values()):
        known = listed()
        sums |= {file: known.get(file.name) for file, found in sums.items() if found is None}
    pending = {file: total for file, total in sums.items() if total and not _marker(file, total).exists()}
    wrong: list[Path] = []
    with Progress("checking", sum(file.stat().st_size for file in pending)) as progress:
        for file, total in pending.items():
            if _sum(file, len(total), progress.advance) == total:
                _remember(_marker(file, total))
            else:
                wrong.append(file)
    for file in wrong:
        _remove(file)
    return wrong


def _name_of_blob(file: Path) -> str | None:
    """A snapshot holds links to blobs, and a blob may be a link into a store of the whole cache."""
    name = Path(os.readlink(file)).name if file.is_symlink() else ""
    return name if len(name) in (SHA256, GIT) else None


def _sum(file: Path, digits: int, advance: Callable[[int], None]) -> str:
    size = file.stat().st_size
    hashed = hashlib.sha256() if digits == SHA256 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with file.open("rb", buffering=0) as opened:
        for part in _parts(opened):
            hashed.update(part)
            advance(len(part))
    return hashed.hexdigest()


def _parts(opened: Any) -> Iterator[memoryview]:
    """The same MiB again and again, which stays in the processor's cache."""
    buffer = memoryview(bytearray(2**20))
    while size := opened.readinto(buffer):
        yield buffer[:size]


def _marker(file: Path, total: str) -> Path:
    """An empty file that is there if these bytes were found right: its name is made of path, size, time and sum."""
    blob = file.resolve()
    stat = blob.stat()
    key = "\0".join([str(blob), str(stat.st_size), str(stat.st_mtime_ns), total])
    return cache_directory() / "checked" / hashlib.sha256(os.fsencode(key)).hexdigest()


def _remember(marker: Path) -> None:
    with suppress(OSError):  # then it is read again next time
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()


def _remove(file: Path) -> None:
    while file.is_symlink():
        target = file.parent / os.readlink(file)
        file.unlink()
        file = target
    file.unlink(missing_ok=True)
