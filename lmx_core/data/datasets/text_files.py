"""Text of your own."""

import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import validators

from lmx_core.config import Field, exact_types
from lmx_core.data.datasets.files import Split, as_text, in_order, matching, pieces, read_text, side, size_of
from lmx_core.data.tokenizers import as_bytes
from lmx_core.errors import DataError


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
    separator: str | None = attrs.field(default=None, validator=validators.optional(validators.min_len(1)))
    """What ends a document within a file, as part of its text: "<|endoftext|>" or two line breaks. Files are then read
    document by document, however large they are; unless given each file is a document."""


class TextFiles:
    """Text of your own: each file is a document, or several that a separator ends.

    Files are held out whole, in an order that depends only on their paths relative to their common directory; of a
    single file the end is, from a line break near it or from a document on. Empty files are left out.
    """

    Options = TextFilesOptions

    def __init__(self, options: TextFilesOptions) -> None:
        self.options = options

    def documents(self, split: Split) -> Iterable[str]:
        files, fraction = self._found(self.options.paths), self.options.validation_fraction
        separator = as_bytes(self.options.separator or "")
        if self.options.validation_paths:
            held_out = self._found(self.options.validation_paths)
        elif len(files) == 1 and separator:
            size = size_of(files[0])
            cut = _document_end(files[0], separator, round(size * (1 - fraction)), size)
            return map(as_text, pieces(files[0], separator, *side(split, (0, cut), (cut, size))))
        elif len(files) == 1:
            text = read_text(files[0])
            end = _line_end(text, max(min(round(len(text) * (1 - fraction)), len(text) - 1), 1))
            return [side(split, text[:end], text[end:])]
        else:
            held_out = _within(files, fraction * sum(map(size_of, files)))
        held = set(held_out)
        train = [file for file in files if file not in held]
        if not train:
            raise DataError(f"{self.options} holds out every file. Name more files in paths than in validation_paths.")
        chosen = side(split, train, held_out)
        if not separator:
            return map(read_text, chosen)
        return (as_text(piece) for file in chosen for piece in pieces(file, separator, 0, size_of(file)))

    def _found(self, paths: Sequence[str]) -> list[Path]:
        suffixes = tuple(self.options.suffixes)
        found = [file for path in paths for file in matching(path, suffixes) if size_of(file)]
        if not found:
            raise DataError(f"every file of {', '.join(paths)} is empty. Give files with text.")
        files = {Path(os.path.realpath(file)) for file in found}
        return in_order(files, Path(os.path.commonpath([file.parent for file in files])))


def _within(files: list[Path], room: float) -> list[Path]:
    """The files, taken in order, that fit into so many bytes; the smallest where none fits."""
    taken: list[Path] = []
    for file in files:
        if size_of(file) <= room:
            taken.append(file)
            room -= size_of(file)
    return taken or [min(files, key=size_of)]


def _document_end(file: Path, separator: bytes, near: int, size: int) -> int:
    """The end of the document in which a file of so many bytes has byte `near`; of the one before, where it is the last."""
    start = max(near - len(separator), 0)
    end = start + len(next(pieces(file, separator, start, size), b""))
    if end < size:
        return end
    ends = [*itertools.accumulate(map(len, pieces(file, separator, 0, size)))]
    if len(ends) < 2:
        raise DataError(
            f"{file} is one document: it has no {separator!r} before its end. Give a separator that it has."
        )
    return ends[-2]


def _line_end(text: str, cut: int) -> int:
    """The line break nearest to `cut`, unless it is further away than half of the rest."""
    ends = (text.rfind("\n", 0, cut) + 1, text.find("\n", cut) + 1)
    near = [end for end in ends if end and 2 * abs(end - cut) < len(text) - cut]
    return min(near, key=lambda end: abs(end - cut), default=cut)
