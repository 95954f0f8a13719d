"""Documents as tokens, one after another."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.integer]
Ends = NDArray[np.int64]
Bools = NDArray[np.bool_]

AT_ONCE = 2**22
"""Numbers of a file that are looked at together; a multiple of 8, so that bits are packed alike however many there are."""


@attrs.frozen(eq=False)
class Example:
    """One document as tokens."""

    tokens: Tokens
    learn: Bools | None = None
    """Where the loss counts: the completion, what the assistant says; everywhere unless given."""


@attrs.frozen(eq=False)
class Documents:
    """Documents as one array of tokens, which may be a file that is mapped into memory."""

    tokens: Tokens
    ends: Ends
    """Document i is `tokens[ends[i - 1] : ends[i]]`, the first from 0 on. None is empty."""
    learn: Bools | None = None
    """Of each token, whether the loss counts it as a target; all unless given."""
    sha256: str = ""
    """Of the tokens (and of what is learned), so that it stands for the text and for the tokenizer."""

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def starts(self) -> Ends:
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    def __getitem__(self, i: int) -> Example:
        """Document `i`, counted from 0."""
        part = slice(int(self.ends[i - 1]) if i else 0, int(self.ends[i]))
        return Example(self.tokens[part], None if self.learn is None else self.learn[part])

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))


def token_dtype(vocab_size: int) -> Any:
    """The smallest type of numbers that holds every token."""
    return np.uint16 if vocab_size <= 2**16 else np.uint32


def joined(examples: Iterable[Example], vocab_size: int) -> Documents:
    """Documents in memory; empty ones are left out."""
    dtype = token_dtype(vocab_size)
    found = [attrs.evolve(each, tokens=each.tokens.astype(dtype)) for each in examples if len(each.tokens)]
    tokens: Any = np.concatenate([np.zeros(0, dtype), *(each.tokens for each in found)], dtype=dtype)
    ends = np.cumsum([len(each.tokens) for each in found], dtype=np.int64)
    learn = learned(found) if any(each.learn is not None for each in found) else None
    return Documents(tokens, ends, learn, digest(tokens, learn))


def learned(examples: Sequence[Example]) -> Bools:
    """Of each token of several documents, whether it is learned."""
    whole = [np.ones(len(each.tokens), bool) if each.learn is None else each.learn for each in examples]
    return np.concatenate(whole or [np.zeros(0, bool)])


def digest(tokens: Tokens, learn: Bools | None = None) -> str:
    """sha256 of the tokens, and of what is learned as bits, in memory that does not grow with a mapped file."""
    found = hashlib.sha256()
    for part in _pieces(tokens):
        found.update(np.ascontiguousarray(part).data)
    for part in _pieces(learn) if learn is not None else ():
        found.update(np.packbits(part).data)
    return found.hexdigest()


def _pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (array[i : i + AT_ONCE] for i in range(0, len(array), AT_ONCE))
