"""A corpus, read and tokenized."""

import hashlib
from typing import Any

import attrs
import numpy as np

from lmx_core.config import ComponentSpec, exact_types, slot
from lmx_core.construct import build, filled
from lmx_core.data.batches import Tokens
from lmx_core.errors import DataError
from lmx_core.registry import registry


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class DataConfig:
    """`[data]`: what is read, and how it becomes tokens."""

    dataset: ComponentSpec = slot("dataset", "python-stdlib")
    tokenizer: ComponentSpec = slot("tokenizer", "bytes")


@attrs.frozen(kw_only=True, eq=False)
class Corpus:
    """Two token streams, and what identifies them."""

    tokenizer: Any
    train: Tokens
    validation: Tokens
    """A fixed piece of the held-out documents: their first bytes."""
    validation_bytes: int
    validation_sha256: str
    train_sha256: str

    def fingerprint(self) -> dict[str, Any]:
        """What a resumed run compares."""
        names = ("validation_bytes", "validation_sha256", "train_sha256")
        return {"train_tokens": len(self.train)} | {name: getattr(self, name) for name in names}


def read_corpus(config: DataConfig, validation_bytes: int) -> Corpus:
    """Read, fit the tokenizer where it is fitted, and encode. `DataError` where a split is empty."""
    dataset = build("dataset", config.dataset)
    texts = ["".join(dataset.documents("train")), _beginning("".join(dataset.documents("validation")), validation_bytes)]
    for text, split in zip(texts, ("training", "validation"), strict=True):
        if not text:
            raise DataError(f"the {split} split of dataset {config.dataset} is empty. Give it more files or more text.")
    component = registry("tokenizer").get(config.tokenizer.name)
    tokenizer = component.fit(texts, *filled("tokenizer", component, config.tokenizer))
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    train, validation = (np.asarray(tokenizer.encode(text), dtype) for text in texts)
    if len(validation) < 2:
        raise DataError(f"the validation split of dataset {config.dataset} has {len(validation)} token; it needs 2.")
    held_out = _raw(texts[1])
    return Corpus(
        tokenizer=tokenizer,
        train=train,
        validation=validation,
        validation_bytes=len(held_out),
        validation_sha256=hashlib.sha256(held_out).hexdigest(),
        train_sha256=hashlib.sha256(_raw(texts[0])).hexdigest(),
    )


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _beginning(text: str, size: int) -> str:
    """The first `size` bytes, less a character that they would cut."""
    raw = _raw(text)
    while 0 < size < len(raw) and raw[size] & 0xC0 == 0x80:
        size -= 1
    return raw[:size].decode("utf-8", "surrogateescape")
