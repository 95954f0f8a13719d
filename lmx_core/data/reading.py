"""What the datasets of a corpus give: documents to train on, and the beginning of what is held out."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import numpy as np

from lmx_core.config import ComponentSpec
from lmx_core.data.datasets.files import Split
from lmx_core.data.documents import Documents, Example, joined, learned, token_dtype
from lmx_core.data.tokenizers import as_bytes
from lmx_core.errors import DataError
from lmx_core.protocols import Tokenizer

HeldOutPart = str | Sequence[Example]


@attrs.frozen(kw_only=True)
class Share:
    """One dataset of a corpus."""

    dataset: Any
    weight: float
    """Its share of the training tokens; those of a corpus add up to 1."""
    named: object
    """What messages call it."""
    path: str
    """Where in a mixture it stands; empty where it is the whole."""

    @contextmanager
    def told(self) -> Generator[None, None, None]:
        """Errors of its data say which part of a mixture it is."""
        try:
            yield
        except DataError as error:
            if not self.path:
                raise
            raise DataError(f"{self.path}: {error}") from None

    def own(self) -> ComponentSpec | None:
        """What made its tokens, where it is tokens already."""
        with self.told():
            return getattr(self.dataset, "tokenizer_spec", None)

    def train(self, tokenizer: Tokenizer) -> Documents:
        """Its training documents. `DataError` where nothing of them is learned."""
        with self.told():
            found = getattr(self.dataset, "prepared", None)
            if found is None:
                found = joined(examples_of(self.dataset, tokenizer, "train"), tokenizer.vocab_size)
            check_learned(found, "train", self.named)
            return found

    def held_out(self, tokenizer: Tokenizer, size: int) -> HeldOutPart:
        """The beginning of its held-out documents, its share of `size` bytes: a text, or documents learned in part."""
        size = self.of(size)
        with self.told():
            encoded = learned_in_part(self.dataset, tokenizer, "validation")
            if encoded is None:
                found = beginning(self.dataset.documents("validation"), size)
                if not found:
                    raise empty("validation", self.named)
                return found
            examples = list(_fitting(encoded, tokenizer, size))
            check_learned(joined(examples, tokenizer.vocab_size), "validation", self.named)
            return examples

    def shortened(self, part: HeldOutPart, tokenizer: Tokenizer, size: int) -> HeldOutPart:
        """The beginning of what is held out of it, its share of `size` bytes."""
        whole = isinstance(part, str)
        return beginning([part], self.of(size)) if whole else list(_fitting(part, tokenizer, self.of(size)))

    def of(self, size: int) -> int:
        return max(round(size * self.weight), 1)


def shares_of(dataset: Any, named: object, weight: float = 1.0, path: str = "") -> list[Share]:
    """The datasets that a dataset is mixed of, in mixtures of mixtures too; itself where it is none."""
    parts: Sequence[tuple[Any, float]] | None = getattr(dataset, "parts", None)
    if parts is None:
        return [Share(dataset=dataset, weight=weight, named=named, path=path)]
    total = sum(each for _, each in parts)
    paths = [f"{path}.parts[{i}].dataset".lstrip(".") for i in range(len(parts))]
    return [
        share
        for place, (part, own) in zip(paths, parts, strict=True)
        for share in shares_of(part, type(part).__name__, weight * own / total, place)
    ]


def examples_of(dataset: Any, tokenizer: Tokenizer, split: Split) -> Iterator[Example]:
    """Each document of a dataset as tokens, one by one."""
    encoded = learned_in_part(dataset, tokenizer, split)
    texts: Iterable[str] = dataset.documents(split) if encoded is None else ()
    yield from encoded or ()
    yield from (Example(tokens_of(tokenizer, text)) for text in texts if text)


def learned_in_part(dataset: Any, tokenizer: Tokenizer, split: Split) -> Iterator[Example] | None:
    """The examples of a dataset whose documents are learned in part, each saying what is; None where they are text."""
    encoded = getattr(dataset, "encoded", None)
    found: Iterable[Example] | None = encoded(tokenizer, split) if encoded else None
    if found is None:
        return None
    return (attrs.evolve(each, learn=learned([each])) for each in found if len(each.tokens))


def tokens_of(tokenizer: Tokenizer, text: str) -> Any:
    return np.asarray(tokenizer.encode(text), token_dtype(tokenizer.vocab_size))


def empty(split: Split, named: object) -> DataError:
    which = {"train": "training", "validation": "validation"}[split]
    return DataError(f"the {which} split of dataset {named} is empty. Give it more files or more text.")


def check_learned(documents: Documents, split: Split, named: object) -> None:
    """`DataError` where there is nothing to learn."""
    if not len(documents.tokens):
        raise empty(split, named)
    if documents.learn is not None and not documents.learn.any():
        raise DataError(
            f"nothing in the {len(documents)} documents of the {split} split of dataset {named} is learned: no document has "
            "an answer. Correct what marks them (a chat template, the roles of messages, the columns)."
        )


def beginning(texts: Iterable[str], size: int) -> str:
    """The first `size` bytes of texts, less a character that they would cut; no more texts are asked for than needed."""
    raw = bytearray()
    for text in texts:
        raw += as_bytes(text)
        if len(raw) >= size:
            break
    while 0 < size < len(raw) and raw[size] & 0xC0 == 0x80:
        size -= 1
    return raw[:size].decode("utf-8", "surrogateescape")


def _fitting(examples: Iterable[Example], tokenizer: Tokenizer, size: int) -> Iterator[Example]:
    """As many whole documents, the first in any case, as have `size` bytes of text."""
    for i, example in enumerate(examples):
        size -= len(tokenizer.decode_bytes(example.tokens.tolist()))
        if i and size < 0:
            return
        yield example
