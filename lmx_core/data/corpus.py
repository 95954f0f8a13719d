"""A corpus, read and tokenized."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from lmx_core.config import ComponentSpec, exact_types, optional_slot, slot
from lmx_core.construct import build, filled
from lmx_core.data.documents import Documents, Example, Tokens, joined
from lmx_core.data.reading import HeldOutPart, Share, beginning, shares_of, tokens_of
from lmx_core.data.tokenizers import as_bytes
from lmx_core.errors import DataError, LmxError
from lmx_core.protocols import Tokenizer
from lmx_core.registry import registry
from lmx_core.serialize import plain, structure


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class DataConfig:
    """`[data]`: what is read, and how it becomes tokens."""

    dataset: ComponentSpec = slot("dataset", "python-stdlib")
    tokenizer: ComponentSpec = slot("tokenizer", "bytes")
    source: ComponentSpec = slot("source", "windows")
    """How documents become training samples."""
    curriculum: ComponentSpec | None = optional_slot("curriculum")
    """In what order, or at what length; none unless given."""


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
    parts: tuple[tuple[Documents, float], ...]
    """What is trained on, each with its share of the training tokens: one with share 1, unless it is a mixture."""
    validation: HeldOut | Documents
    """What the last evaluation reads; documents where they are learned in part."""
    glimpse: HeldOut | Documents
    """What the evaluations before it read: the beginning of `validation`, in a mixture of each of its parts."""
    sizes: tuple[int, int]
    """How many bytes of both were asked for."""

    @property
    def train(self) -> Documents:
        """What is trained on where it is no mixture; `DataError` of one, which has `parts`."""
        documents, *others = [documents for documents, _ in self.parts]
        if others:
            raise DataError(f"this corpus is a mixture of {len(self.parts)} parts. Read its parts.")
        return documents

    @property
    def train_sha256(self) -> str:
        """Of the tokens, so that it stands for the text and for the tokenizer; of a mixture also for the shares."""
        if len(self.parts) == 1:
            return self.parts[0][0].sha256
        listed = [f"{documents.sha256} {share!r}\n" for documents, share in self.parts]
        return hashlib.sha256("".join(listed).encode()).hexdigest()

    @property
    def identity(self) -> str:
        """A digest of the tokens, the shares and where documents end: what a resumed run must find again."""
        digest = hashlib.sha256(self.train_sha256.encode())
        for documents, _ in self.parts:
            digest.update(np.ascontiguousarray(documents.ends).data)
        return digest.hexdigest()

    @property
    def held_out(self) -> dict[str, str]:
        """Digests of what evaluations read, by how many bytes were asked for."""
        glimpsed, validated = self.sizes
        return {str(glimpsed): self.glimpse.sha256, str(validated): self.validation.sha256}

    @property
    def beginning(self) -> list[int]:
        """The first tokens that are held out."""
        return self.glimpse.tokens[:8].tolist()

    def fingerprint(self) -> dict[str, Any]:
        """What identifies it, for the summary of a run."""
        held = self.validation
        size = {"validation_bytes": held.size} if isinstance(held, HeldOut) else {"validation_tokens": len(held.tokens)}
        return {
            "train_tokens": sum(len(documents.tokens) for documents, _ in self.parts),
            "train_sha256": self.train_sha256,
            **size,
            "validation_sha256": held.sha256,
        }


def read_corpus(
    config: DataConfig, validation_bytes: int, glimpse_bytes: int, tokenizer: Tokenizer | None = None
) -> Corpus:
    """Read, fit the tokenizer unless there is one, and encode. `DataError` where a split is empty.

    Tokens on disk stay there, and bring their own tokenizer: another one is a `DataError`.
    """
    shares = shares_of(build("dataset", config.dataset), config.dataset)
    known = tokenizer_of(config, shares, tokenizer, validation_bytes)
    held = [share.held_out(known, validation_bytes) for share in shares]
    seen = [share.shortened(part, known, glimpse_bytes) for part, share in zip(held, shares, strict=True)]
    return Corpus(
        tokenizer=known,
        parts=tuple((share.train(known), share.weight) for share in shares),
        validation=_held_out(known, held),
        glimpse=_held_out(known, seen),
        sizes=(glimpse_bytes, validation_bytes),
    )


def with_own_tokenizer(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table `[data]` with the tokenizer that its dataset brings, where it brings one and the table names none.

    A table with mistakes is returned as it is: whoever reads it reports them.
    """
    if "tokenizer" in data:
        return data
    try:
        chosen = structure(data, DataConfig, "data", installed=True).dataset
        own = [share.own() for share in _with_tokens(shares_of(build("dataset", chosen), chosen))]
    except LmxError:
        return data
    return {**data, "tokenizer": plain(own[0])} if own else data


def tokenizer_of(
    config: DataConfig, shares: Sequence[Share], given: Tokenizer | None, validation_bytes: int | None = None
) -> Tokenizer:
    """The tokenizer of the datasets: one that is given, that of tokens on disk, or one that is fitted.

    It is fitted on the training text and on the first `validation_bytes` of what is held out, on all unless given.
    """
    with_tokens = _with_tokens(shares)
    if not with_tokens:
        return _fitted(config.tokenizer, _texts(shares, validation_bytes)) if given is None else given
    first = with_tokens[0]
    own, made_by = first.dataset.own_tokenizer, first.dataset.tokenizer_spec
    named = f"dataset {first.path or config.dataset}"
    for share in with_tokens[1:]:
        if not _same(share.dataset.own_tokenizer, own):
            raise DataError(f"{share.path}: its tokens were made with another tokenizer than those of {named}")
    problem = None
    if given is not None and not _same(given, own):
        problem = "the model that training starts from has another one"
    elif given is None and not _alike(config.tokenizer, made_by):
        problem = f"data.tokenizer has {config.tokenizer}"
    if problem:
        raise DataError(
            f"the tokens of {named} were made with tokenizer {made_by}, and {problem}. Leave data.tokenizer out, or prepare "
            "the text again."
        )
    return own


def _with_tokens(shares: Sequence[Share]) -> list[Share]:
    return [share for share in shares if share.own() is not None]


def _texts(shares: Sequence[Share], validation_bytes: int | None) -> Iterator[str]:
    for share in shares:
        with share.told():
            yield from share.dataset.documents("train")
            held: Iterable[str] = share.dataset.documents("validation")
            yield from held if validation_bytes is None else [beginning(held, share.of(validation_bytes))]


def _fitted(chosen: ComponentSpec, texts: Iterable[str]) -> Tokenizer:
    component = registry("tokenizer").get(chosen.name)
    return component.fit(texts, *filled("tokenizer", component, chosen))


def _alike(one: ComponentSpec, other: ComponentSpec) -> bool:
    """Whether two specs mean the same tokenizer."""
    found = [registry("tokenizer").find(each.name) for each in (one, other)]
    if found[0].qualified != found[1].qualified:
        return False
    component = registry("tokenizer").get(one.name)
    return filled("tokenizer", component, one) == filled("tokenizer", component, other)


def _same(one: Tokenizer, other: Tokenizer) -> bool:
    return type(one) is type(other) and one.to_dict() == other.to_dict()


def _held_out(tokenizer: Tokenizer, parts: Sequence[HeldOutPart]) -> HeldOut | Documents:
    """A text where all parts are text, and else documents."""
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) == len(parts):
        return _text_held_out(tokenizer, "".join(texts))
    listed = [[Example(tokens_of(tokenizer, part))] if isinstance(part, str) else part for part in parts]
    return joined(itertools.chain.from_iterable(listed), tokenizer.vocab_size)


def _text_held_out(tokenizer: Tokenizer, text: str) -> HeldOut:
    raw = as_bytes(text)
    tokens = tokens_of(tokenizer, text)
    if len(tokens) < 2:
        raise DataError(
            f"{len(raw)} bytes of held-out text are {len(tokens)} token; an evaluation needs 2. Give it more text."
        )
    scored = len(raw) - len(tokenizer.decode_bytes(tokens[:1].tolist()))
    return HeldOut(tokens=tokens, size=len(raw), scored=scored, sha256=hashlib.sha256(raw).hexdigest())
