"""`lmx data prepare`: a dataset as tokens on disk."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs
import numpy as np

from lmx_core.construct import build
from lmx_core.data import growing
from lmx_core.data.corpus import DataConfig, tokenizer_of
from lmx_core.data.datasets.files import Split
from lmx_core.data.documents import Documents, Example, digest, token_dtype
from lmx_core.data.encoding import encoder
from lmx_core.data.growing import Growing
from lmx_core.data.reading import check_learned, empty, learned_in_part, shares_of
from lmx_core.data.token_files import META, TEXT, TOKENIZER, FileRecord, Meta, array_file
from lmx_core.data.tokenizers import as_bytes, save_tokenizer
from lmx_core.errors import DataError
from lmx_core.files import write_text
from lmx_core.protocols import Tokenizer
from lmx_core.serialize import plain

T = TypeVar("T")
Told = Callable[[Split, int, int], None]
"""Told of a split, and how many documents and tokens of it are written."""

GROUP = 2**20
"""Characters, or tokens, after which documents are written: one task of a worker, and what a kill may cost each of them."""
BEGUN, LOCK = "begun.json", ".lock"


def prepare(
    config: DataConfig,
    out: Path,
    *,
    workers: int = 1,
    tokenizer: Tokenizer | None = None,
    told: Told = lambda split, documents, tokens: None,
) -> Meta:
    """Write the tokens of a dataset into the directory `out`, which appears once it is whole.

    Until then they are in `out` with `.part` behind its name, from where the same call goes on. The result is the same,
    bit for bit, with any number of workers and interruptions.
    """
    if out.exists():
        raise DataError(f"{out} exists. Choose another --out, or remove it.")
    dataset = _to_prepare(config)
    folder = out.with_name(f"{out.name}.part")
    with growing.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        known = _begun(folder, config, tokenizer)
        work = _Work(folder=folder, config=config, dataset=dataset, tokenizer=known, workers=workers, told=told)
        meta = work.done()
        write_text(folder / META, json.dumps(meta.to_dict(), indent=2))
        with growing.explained(folder):
            os.replace(folder, out)
        for name in (BEGUN, LOCK, "train.journal", "validation.journal"):
            (out / name).unlink(missing_ok=True)
    return meta


def _to_prepare(config: DataConfig) -> Any:
    dataset = build("dataset", config.dataset)
    if hasattr(dataset, "parts"):
        raise DataError(
            f"dataset {config.dataset.name} is a mixture. Prepare each of its parts, and mix what that gives: parts are then "
            'datasets such as { name = "tokens", path = "DIR" }.'
        )
    if hasattr(dataset, "prepared"):
        raise DataError(f"dataset {config.dataset} is tokens already. Train with it as it is.")
    return dataset


@contextmanager
def _locked(folder: Path) -> Generator[None, None, None]:
    with growing.explained(folder), (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"another process is preparing {folder}. Wait for it, or stop it.") from None
        yield


def _begun(folder: Path, config: DataConfig, given: Tokenizer | None) -> Tokenizer:
    """The tokenizer, and what is done noted in the folder. `DataError` where the folder was begun for something else."""
    dataset = build("dataset", config.dataset)
    known = tokenizer_of(config, shares_of(dataset, config.dataset), given)
    about = json.dumps({"dataset": plain(config.dataset), "tokenizer": plain(config.tokenizer)}, indent=2)
    fresh = folder / f"new-{TOKENIZER}"
    save_tokenizer(config.tokenizer.name, known, fresh)
    for path, now in ((folder / BEGUN, about), (folder / TOKENIZER, fresh.read_text(encoding="utf-8"))):
        if path.exists() and path.read_text(encoding="utf-8") != now:
            what = "dataset or the tokenizer" if path.name == BEGUN else "text that the tokenizer is fitted on"
            raise DataError(f"{folder} was begun when the {what} was another. Remove it to begin anew.")
    write_text(folder / BEGUN, about)
    os.replace(fresh, folder / TOKENIZER)
    return known


@attrs.frozen(kw_only=True)
class _Work:
    folder: Path
    config: DataConfig
    dataset: Any
    tokenizer: Tokenizer
    workers: int
    told: Told

    def done(self) -> Meta:
        """Write what is missing."""
        train = self._split("train")
        as_text = learned_in_part(self.dataset, self.tokenizer, "validation") is None
        validation = self._text() if as_text else self._split("validation")
        names = [*self._arrays("train"), *self._arrays("validation"), TOKENIZER, *([TEXT] if as_text else [])]
        with growing.explained(self.folder):
            files = {name: FileRecord.of(self.folder / name) for name in names}
        return Meta(
            dataset=plain(self.config.dataset),
            tokenizer=plain(self.config.tokenizer),
            vocab_size=self.tokenizer.vocab_size,
            train=train,
            validation=validation,
            files=files,
        )

    def _split(self, split: Split) -> dict[str, Any]:
        examples = learned_in_part(self.dataset, self.tokenizer, split)
        files = Growing(self.folder, split, token_dtype(self.tokenizer.vocab_size), masked=examples is not None)
        self.told(split, files.documents, files.tokens)
        if examples is None:
            texts = (text for text in self.dataset.documents(split) if text)
            groups = self._missing(files, _grouped(texts), _of_texts)
            with encoder(self.tokenizer, self.folder / TOKENIZER, self.workers) as encode:
                self._written(split, files, ((_of_texts(each), found) for each, found in encode(groups)))
        else:
            groups = self._missing(files, _grouped(examples, lambda each: len(each.tokens)), _of_examples)
            self._written(split, files, ((_of_examples(each), each) for each in groups))
        files.finish()
        return self._counted(split)

    def _missing(
        self, files: Growing, groups: Iterable[Sequence[T]], of: Callable[[Sequence[T]], str]
    ) -> Iterator[Sequence[T]]:
        """The groups that are not written. `DataError` where one that is was made of something else."""
        before, found = list(files.groups), iter(groups)
        for group in before:
            if group.source != of(next(found, ())):
                raise DataError(
                    f"{self.config.dataset} changed since {self.folder} was begun. Remove it to begin anew."
                )
        yield from found

    def _written(self, split: Split, files: Growing, groups: Iterable[tuple[str, Sequence[Example]]]) -> None:
        for source, examples in groups:
            files.append(source, [each for each in examples if len(each.tokens)])
            self.told(split, files.documents, files.tokens)

    def _counted(self, split: Split) -> dict[str, Any]:
        arrays = {name: np.load(self.folder / name, mmap_mode="r") for name in self._arrays(split)}
        tokens, ends = (arrays[array_file(split, "tokens")], arrays[array_file(split, "ends")])
        learn = arrays.get(array_file(split, "learn"))
        check_learned(Documents(tokens, ends, learn), split, self.config.dataset)
        return {"documents": len(ends), "tokens": len(tokens), "sha256": digest(tokens, learn)}

    def _arrays(self, split: Split) -> list[str]:
        names = [array_file(split, "tokens"), array_file(split, "ends"), array_file(split, "learn")]
        return [name for name in names if (self.folder / name).exists()]

    def _text(self) -> dict[str, Any]:
        """The held-out text as it is."""
        ends: list[int] = []
        size, found = 0, hashlib.sha256()
        with growing.explained(self.folder), (self.folder / TEXT).open("wb") as file:
            for raw in map(as_bytes, filter(None, self.dataset.documents("validation"))):
                file.write(raw)
                found.update(raw)
                size += len(raw)
                ends.append(size)
        if not size:
            raise empty("validation", self.config.dataset)
        with growing.explained(self.folder):
            np.save(self.folder / array_file("validation", "ends"), np.array(ends, np.int64))
        return {"documents": len(ends), "bytes": size, "sha256": found.hexdigest()}


def _grouped(items: Iterable[T], size: Callable[[T], int] = len) -> Iterator[Sequence[T]]:  # pyright: ignore[reportArgumentType]
    """Items together that have `GROUP` characters or tokens."""
    group: list[T] = []
    room = GROUP
    for item in items:
        group.append(item)
        room -= size(item)
        if room <= 0:
            yield group
            group, room = [], GROUP
    if group:
        yield group


def _of_texts(texts: Sequence[str]) -> str:
    found = hashlib.sha256()
    for raw in map(as_bytes, texts):
        found.update(len(raw).to_bytes(8))
        found.update(raw)
    return found.hexdigest()


def _of_examples(examples: Sequence[Example]) -> str:
    found = hashlib.sha256()
    for each in examples:
        found.update(digest(each.tokens, each.learn).encode())
    return found.hexdigest()
