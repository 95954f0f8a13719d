"""Tokens on disk, as `lmx data prepare` writes them: read without being loaded, however many there are.

A directory holds `train.tokens.npy`, `train.ends.npy` (where documents end) and, where documents are learned in part,
`train.learn.npy`; of what is held out the same, or as text `validation.txt` with `validation.ends.npy`, in bytes; the
tokenizer; and `meta.json`, written last.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import attrs
import numpy as np

from lmx_core.config import ComponentSpec, exact_types
from lmx_core.data.datasets import as_text
from lmx_core.data.datasets.files import Split
from lmx_core.data.documents import Bools, Documents, Ends, Example, Tokens
from lmx_core.data.tokenizers import load_tokenizer
from lmx_core.errors import DataError
from lmx_core.protocols import Tokenizer
from lmx_core.serialize import structure

META, TOKENIZER, TEXT = "meta.json", "tokenizer.json", "validation.txt"
FORMAT = 1
"""Version of the layout of such a directory."""
EDGE = 2**16
"""Bytes at the beginning and at the end of a file that are compared whenever it is opened."""
AGAIN = "Prepare the text again with lmx data prepare."


def array_file(split: Split, what: Literal["tokens", "ends", "learn"]) -> str:
    return f"{split}.{what}.npy"


@attrs.frozen(kw_only=True)
class FileRecord:
    """What a file was when it was written."""

    size: int
    edges: str
    """sha256 of its first and last `EDGE` bytes."""
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        with path.open("rb") as file:
            return cls(size=path.stat().st_size, edges=_edges(file), sha256=_digest(file))


@attrs.frozen(kw_only=True)
class Meta:
    """What `meta.json` says."""

    dataset: Any
    """What was read, as a config writes it."""
    tokenizer: Any
    vocab_size: int
    train: Mapping[str, Any]
    """`documents`, `tokens` and `sha256`, that of a run's summary."""
    validation: Mapping[str, Any]
    """The same, or as text `documents`, `bytes` and `sha256`."""
    files: Mapping[str, FileRecord]

    def to_dict(self) -> dict[str, Any]:
        return {"lmx_format": FORMAT, **attrs.asdict(self)}

    @classmethod
    def read(cls, folder: Path) -> "Meta":
        """`DataError` where there is none, or one of another version."""
        path = folder / META
        try:
            found: Any = json.loads(path.read_text(encoding="utf-8"))
            version = found.pop("lmx_format")
            if version != FORMAT:
                raise DataError(f"{path} has lmx_format {version!r}; this version reads {FORMAT}. {AGAIN}")
            files = {name: FileRecord(**record) for name, record in found.pop("files").items()}
            return cls(**found, files=files)
        except OSError as error:
            raise DataError(
                f"cannot read {path}: {error.strerror}. Give a directory that lmx data prepare wrote."
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path} is damaged ({type(error).__name__}: {error}). {AGAIN}") from None

    @property
    def tokenizer_spec(self) -> ComponentSpec:
        return structure(self.tokenizer, ComponentSpec, META, "tokenizer")


def opened(folder: Path) -> Meta:
    """What a directory holds, its files held to their sizes, beginnings and ends. `DataError` where one is another."""
    meta = Meta.read(folder)
    for name, record in meta.files.items():
        with _reading(folder / name) as file:
            size = (folder / name).stat().st_size
            if size != record.size:
                raise DataError(f"{folder / name} has {size:,} bytes and was written with {record.size:,}. {AGAIN}")
            if _edges(file) != record.edges:
                raise DataError(f"{folder / name} is another file than was written: its edges differ. {AGAIN}")
    return meta


def verified(folder: Path) -> Meta:
    """As `opened`, every byte compared."""
    meta = opened(folder)
    for name, record in meta.files.items():
        with _reading(folder / name) as file:
            if _digest(file) != record.sha256:
                raise DataError(f"{folder / name} is another file than was written: its sha256 differs. {AGAIN}")
    return meta


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class TokenFilesOptions:
    """Options of `dataset="tokens"`."""

    path: str
    """A directory that `lmx data prepare` wrote."""


class TokenFiles:
    """Tokens that `lmx data prepare` wrote. They stay on disk, and bring their tokenizer."""

    Options = TokenFilesOptions

    def __init__(self, options: TokenFilesOptions) -> None:
        self.path = Path(options.path).expanduser()

    @cached_property
    def meta(self) -> Meta:
        return opened(self.path)

    @cached_property
    def own_tokenizer(self) -> Tokenizer:
        return load_tokenizer(self._file(TOKENIZER))

    @property
    def tokenizer_spec(self) -> ComponentSpec:
        return self.meta.tokenizer_spec

    @cached_property
    def prepared(self) -> Documents:
        """The training documents, mapped into memory."""
        return self._documents("train")

    def documents(self, split: Split) -> Iterable[str]:
        if split not in ("train", "validation"):
            raise DataError(f"there is no split {split!r}; there are 'train' and 'validation'")
        if split == "validation" and self._is_text:
            return self._held_out_texts()
        return (
            as_text(self.own_tokenizer.decode_bytes(each.tokens.tolist()))
            for each in (self.prepared if split == "train" else self._documents(split))
        )

    def encoded(self, tokenizer: Tokenizer, split: Split) -> Iterable[Example] | None:
        """The held-out documents, or those to train on, where they are learned in part."""
        return None if self._is_text else iter(self._documents(split))

    @property
    def _is_text(self) -> bool:
        return TEXT in self.meta.files

    def _held_out_texts(self) -> Iterator[str]:
        ends, start = self._array(array_file("validation", "ends")), 0
        with _reading(self._file(TEXT)) as file:
            for end in ends.tolist():
                yield as_text(file.read(end - start))
                start = end

    def _documents(self, split: Split) -> Documents:
        about = self.meta.train if split == "train" else self.meta.validation
        tokens: Tokens = self._array(array_file(split, "tokens"))
        ends: Ends = self._array(array_file(split, "ends"))
        name = array_file(split, "learn")
        learn: Bools | None = self._array(name) if name in self.meta.files else None
        return Documents(tokens, ends, learn, about["sha256"])

    def _array(self, name: str) -> Any:
        path = self._file(name)
        try:
            return np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {error}. {AGAIN}") from None

    def _file(self, name: str) -> Path:
        if name not in self.meta.files:
            raise DataError(f"{self.path / META} is damaged: it names no {name}. {AGAIN}")
        return self.path / name


def _reading(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}. {AGAIN}") from None


def _edges(file: BinaryIO) -> str:
    size = file.seek(0, 2)
    file.seek(0)
    found = hashlib.sha256(file.read(EDGE))
    file.seek(max(size - EDGE, 0))
    found.update(file.read(EDGE))
    return found.hexdigest()


def _digest(file: Any) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()
