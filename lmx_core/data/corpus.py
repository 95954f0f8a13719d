"""A corpus, read and tokenized."""

import hashlib
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from lmx_core.config import ComponentSpec, exact_types, slot
from lmx_core.construct import build, filled
from lmx_core.data.batches import Tokens
from lmx_core.data.tokenizers import as_bytes
from lmx_core.errors import DataError
from lmx_core.protocols import Tokenizer
from lmx_core.registry import registry


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class DataConfig:
    """`[data]`: what is read, and how it becomes tokens."""

    dataset: ComponentSpec = slot("dataset", "python-stdlib")
    tokenizer: ComponentSpec = slot("tokenizer", "bytes")


@attrs.frozen(kw_only=True, eq=False)
class HeldOut:
    """The beginning of the held-out documents, always the same."""

    tokens: Tokens
    size: int
    """Bytes of text behind the tokens."""
    scored: int
    """Of these, the bytes that are predicted: all but the first token's."""
    sha256: str


@attrs.frozen(kw_only=True, eq=False)
class Corpus:
    """What a run reads, as tokens."""

    tokenizer: Any
    train: Tokens
    train_sha256: str
    """Of the tokens, so that it stands for the text and for the tokenizer."""
    validation: HeldOut
    """What the last evaluation reads."""
    glimpse: HeldOut
    """What the evaluations before it read: the beginning of `validation`."""

    def fingerprint(self) -> dict[str, Any]:
        """What identifies it, for the summary of a run."""
        return {
            "train_tokens": len(self.train),
            "train_sha256": self.train_sha256,
            "validation_bytes": self.validation.size,
            "validation_sha256": self.validation.sha256,
        }


def read_corpus(
    config: DataConfig, validation_bytes: int, glimpse_bytes: int, tokenizer: Tokenizer | None = None
) -> Corpus:
    """Read, fit the tokenizer unless there is one, and encode. `DataError` where a split is empty."""
    dataset = build("dataset", config.dataset)
    text, rest = ("".join(dataset.documents(split)) for split in ("train", "validation"))
    for found, split in ((text, "training"), (rest, "validation")):
        if not found:
            raise DataError(f"the {split} split of dataset {config.dataset} is empty. Give it more files or more text.")
    validation = _beginning(rest, validation_bytes)
    if tokenizer is None:
        tokenizer = _fitted(config.tokenizer, [text, validation])
    train = _tokens(tokenizer, text)
    return Corpus(
        tokenizer=tokenizer,
        train=train,
        train_sha256=hashlib.sha256(train.tobytes()).hexdigest(),
        validation=_held_out(tokenizer, validation),
        glimpse=_held_out(tokenizer, _beginning(validation, glimpse_bytes)),
    )


def _fitted(chosen: ComponentSpec, texts: Sequence[str]) -> Tokenizer:
    component = registry("tokenizer").get(chosen.name)
    return component.fit(texts, *filled("tokenizer", component, chosen))


def _held_out(tokenizer: Tokenizer, text: str) -> HeldOut:
    raw = as_bytes(text)
    tokens = _tokens(tokenizer, text)
    if len(tokens) < 2:
        raise DataError(
            f"{len(raw)} bytes of held-out text are {len(tokens)} token; an evaluation needs 2. Give it more text."
        )
    scored = len(raw) - len(tokenizer.decode_bytes(tokens[:1].tolist()))
    return HeldOut(tokens=tokens, size=len(raw), scored=scored, sha256=hashlib.sha256(raw).hexdigest())


def _tokens(tokenizer: Tokenizer, text: str) -> Tokens:
    return np.asarray(tokenizer.encode(text), np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)


def _beginning(text: str, size: int) -> str:
    """The first `size` bytes, less a character that they would cut."""
    raw = as_bytes(text)
    while 0 < size < len(raw) and raw[size] & 0xC0 == 0x80:
        size -= 1
    return raw[:size].decode("utf-8", "surrogateescape")
