"""Where text comes from.

A document is a str that stands for bytes as `bytes.decode("utf-8", "surrogateescape")` reads them, so that any file
comes back exactly.
"""

import glob
import hashlib
import os
import sys
import sysconfig
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypeVar

import attrs
from attrs import validators

from lmx_core.config import Field, exact_types
from lmx_core.errors import CheckpointError, DataError
from lmx_core.files import atomically

T = TypeVar("T")
Split = Literal["train", "validation"]


class PythonStdlib:
    """The sources of the running interpreter's standard library: about 11 MB of Python, without a network.

    The digest of a file's relative path decides on its side, so that a Python version has one split on every machine.
    """

    left_out = (
        *("test", "tests", "idle_test"),
        *("site-packages", "dist-packages", "sitecustomize.py", "config-*", "_sysconfigdata*"),  # the machine's own
        *("pydoc_data", "__pycache__"),  # one generated file of prose, a fifteenth of the whole
    )
    held_out = 0.1
    """Share of the files."""
    least = 500_000
    """Bytes to hold out; a library stripped of some of its files gives a larger share for it."""

    def documents(self, split: Split) -> Iterable[str]:
        root = Path(sysconfig.get_path("stdlib"))
        files = _in_order(filter(_size, _below(root, (".py",), self.left_out)), root) if root.is_dir() else []
        size = sum(map(_size, files))
        if size < 2 * self.least:
            raise DataError(
                f"{root} has {size:,} bytes of Python sources, {2 * self.least:,} are needed: this interpreter carries "
                "its standard library without them. Use a full Python installation, or dataset "
                '"text" with paths of your own.'
            )
        held = count = 0
        while held < self.least or _share(files[count], root) < self.held_out:
            held += _size(files[count])
            count += 1
        return map(_read, _side(split, files[count:], files[:count]))


def _paths(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else value


def _not_empty(instance: object, attribute: Field, value: Sequence[Any]) -> None:
    if not value:
        raise ValueError(f"must name a file, got {value!r}")


def _texts(instance: object, attribute: Field, value: Sequence[Any]) -> None:
    if not all(_paths(value)):
        raise ValueError("expected texts that are not empty, got ''")


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class TextFilesOptions:
    """Options of `dataset="text"`."""

    paths: Sequence[str] | str = attrs.field(converter=_paths, validator=[_not_empty, _texts])
    """Files, globs (`**` for any depth) and directories, or one of them; `~` is the home directory."""
    suffixes: Sequence[str] | str = attrs.field(default=(".txt", ".md", ".py"), converter=_paths, validator=_texts)
    """What is read of a directory, at any depth, hidden files and directories left out."""
    validation_fraction: float = attrs.field(default=0.1, validator=[validators.gt(0), validators.lt(1)])
    """Share of the bytes that is held out."""
    validation_paths: Sequence[str] | str = attrs.field(default=(), converter=_paths, validator=_texts)
    """What is held out instead, and left out of the training split where `paths` names it too."""


class TextFiles:
    """Text of your own: each file is a document.

    Files are held out whole, in an order that depends only on their paths relative to their common directory; of a
    single file the end is, from a line break near it. Empty files are left out.
    """

    Options = TextFilesOptions

    def __init__(self, options: TextFilesOptions) -> None:
        self.options = options

    def documents(self, split: Split) -> Iterable[str]:
        files, fraction = self._found(self.options.paths), self.options.validation_fraction
        if self.options.validation_paths:
            held_out = self._found(self.options.validation_paths)
        elif len(files) == 1:
            text = _read(files[0])
            end = _line_end(text, max(min(round(len(text) * (1 - fraction)), len(text) - 1), 1))
            return [_side(split, text[:end], text[end:])]
        else:
            held_out = _within(files, fraction * sum(map(_size, files)))
        held = set(held_out)
        train = [file for file in files if file not in held]
        if not train:
            raise DataError(f"{self.options} holds out every file. Name more files in paths than in validation_paths.")
        return map(_read, _side(split, train, held_out))

    def _found(self, paths: Sequence[str]) -> list[Path]:
        suffixes = tuple(self.options.suffixes)
        found = [file for path in paths for file in _matches(path, suffixes) if _size(file)]
        if not found:
            raise DataError(f"every file of {', '.join(paths)} is empty. Give files with text.")
        files = {Path(os.path.realpath(file)) for file in found}
        return _in_order(files, Path(os.path.commonpath([file.parent for file in files])))


def _matches(path: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a path or glob. `DataError` where there is none."""
    place = Path(os.path.expanduser(path))
    with _readable(place):
        if place.is_dir():
            files = list(_below(place, suffixes, (".*",)))
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


def _within(files: list[Path], room: float) -> list[Path]:
    """The files, taken in order, that fit into so many bytes; the smallest where none fits."""
    taken: list[Path] = []
    for file in files:
        if _size(file) <= room:
            taken.append(file)
            room -= _size(file)
    return taken or [min(files, key=_size)]


def _line_end(text: str, cut: int) -> int:
    """The line break nearest to `cut`, unless it is further away than half of the rest."""
    ends = (text.rfind("\n", 0, cut) + 1, text.find("\n", cut) + 1)
    near = [end for end in ends if end and 2 * abs(end - cut) < len(text) - cut]
    return min(near, key=lambda end: abs(end - cut), default=cut)


@attrs.frozen(kw_only=True)
class Published:
    """A file as its publisher made it."""

    url: str
    size: int
    sha256: str


SHAKESPEARE = Published(
    url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    size=1_115_394,
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
TIMEOUT = 30
"""Seconds without a byte after which a download has failed."""
ELSEWHERE = 'Without a network, set path to a copy of the file, or take dataset "python-stdlib".'


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ShakespeareOptions:
    """Options of `dataset="shakespeare"`."""

    path: str | None = None
    """A copy of the file, to need no network."""
    url: str = SHAKESPEARE.url
    """Where it is downloaded from at first use."""


class Shakespeare:
    """Tiny Shakespeare: 1.1 MB of plays, the first nine tenths for training. Downloaded once, always checked."""

    Options = ShakespeareOptions

    def __init__(self, options: ShakespeareOptions | None = None) -> None:
        self.options = options or ShakespeareOptions()

    def documents(self, split: Split) -> Iterable[str]:
        text = as_text(self._bytes())
        cut = len(text) * 9 // 10
        return [_side(split, text[:cut], text[cut:])]

    def _bytes(self) -> bytes:
        if self.options.path is not None:
            copy = Path(os.path.expanduser(self.options.path))
            return _checked(_read_bytes(copy), str(copy), 'Other texts are for dataset "text".')
        kept = cache_directory() / "tinyshakespeare.txt"
        if os.path.exists(kept):
            return _checked(_read_bytes(kept), str(kept), "Remove it to download it again.")
        data = _checked(_downloaded(self.options.url), self.options.url, f"Try again. {ELSEWHERE}")
        _keep(data, kept)
        return data


def cache_directory() -> Path:
    """Where downloads are kept: `LMX_CACHE`, or `lmx` in the user's cache directory."""
    if chosen := os.environ.get("LMX_CACHE"):
        return Path(os.path.expanduser(chosen))
    system = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or system)) / "lmx"


def _checked(data: bytes, source: str, way_out: str) -> bytes:
    found, expected = (len(data), hashlib.sha256(data).hexdigest()), (SHAKESPEARE.size, SHAKESPEARE.sha256)
    if found != expected:
        said = [f"{size:,} bytes with sha256 {digest[:16]}..." for size, digest in (found, expected)]
        raise DataError(f"{source} is not tiny Shakespeare: it has {said[0]}, expected {said[1]}. {way_out}")
    return data


def _downloaded(url: str) -> bytes:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=TIMEOUT) as answer:
            return answer.read(SHAKESPEARE.size + 1)  # a server that never ends is wrong after this byte
    except HTTPError as error:
        error.close()
        problem = f"the server answers {error.code} {error.reason}"
    except (OSError, HTTPException, ValueError) as error:
        problem = str(getattr(error, "reason", error))
    raise DataError(f"could not download {url}: {problem}. {ELSEWHERE}")


def _keep(data: bytes, path: Path) -> None:
    try:
        with atomically(path) as temporary:
            temporary.write_bytes(data)
    except (CheckpointError, OSError) as error:
        raise DataError(f"the download cannot be kept: {error} Set LMX_CACHE to a directory for downloads.") from None


def _below(root: Path, suffixes: tuple[str, ...], left_out: tuple[str, ...]) -> Iterator[Path]:
    """The files at any depth with one of the suffixes, apart from names that match `left_out`."""

    def wanted(name: str) -> bool:
        return not any(fnmatchcase(name, pattern) for pattern in left_out)

    def refuse(error: OSError) -> None:
        raise _unreadable(error.filename, error)

    for directory, inner, names in os.walk(root, onerror=refuse):
        inner[:] = filter(wanted, inner)
        yield from (Path(directory, name) for name in filter(wanted, names) if name.endswith(suffixes))


def _in_order(files: Iterable[Path], root: Path) -> list[Path]:
    """An order that is fixed and mixed, by where each file lies below `root`."""
    return sorted(files, key=lambda file: _share(file, root))


def _share(file: Path, root: Path) -> float:
    """Where a file stands among all that could be there, from 0 to 1."""
    path = file.relative_to(root).as_posix().encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(path).digest()[:6]) / 2**48


def _side(split: Split, train: T, validation: T) -> T:
    if split not in ("train", "validation"):
        raise DataError(f"there is no split {split!r}; there are 'train' and 'validation'")
    return train if split == "train" else validation


def as_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _read(file: Path) -> str:
    return as_text(_read_bytes(file))


def _read_bytes(file: Path) -> bytes:
    with _readable(file):
        return file.read_bytes()


def _size(file: Path) -> int:
    with _readable(file):
        return file.stat().st_size


@contextmanager
def _readable(file: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Any, error: OSError) -> DataError:
    return DataError(f"cannot read {file}: {error.strerror}. Correct the path or its permissions, or leave it out.")
