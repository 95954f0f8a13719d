"""Text to token ids and back."""

import base64
import codecs
import importlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from lmx_core.config import exact_types
from lmx_core.errors import CheckpointError, ConfigError, DataError, LmxError, did_you_mean
from lmx_core.files import write_text
from lmx_core.freeze import check_installed, read_records, record
from lmx_core.protocols import Tokenizer
from lmx_core.registry import registry

UNKNOWN = "\N{REPLACEMENT CHARACTER}".encode()
"""The bytes of a token that stands for none: a model's vocabulary may be larger than its tokenizer's."""
BYTES = {token: bytes([token]) for token in range(256)}


class ByteTokenizer:
    """A token for each byte."""

    vocab_size: int = 256

    @classmethod
    def fit(cls, texts: Iterable[str], *options: Any) -> "ByteTokenizer":
        return cls()

    def encode(self, text: str) -> list[int]:
        return list(as_bytes(text))

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        return b"".join([BYTES.get(token, UNKNOWN) for token in tokens])

    def to_dict(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ByteTokenizer":
        return cls()


class CharTokenizer:
    """A token for each character of the texts that it was fitted on, in the order of their code points.

    Other characters have none: `DataError`.
    """

    def __init__(self, characters: str) -> None:
        if not characters:
            raise DataError("a tokenizer of no characters encodes nothing. Fit it on a text.")
        self.characters = characters
        self.vocab_size = len(characters)
        self._bytes = {token: as_bytes(character) for token, character in enumerate(characters)}
        self._tokens = np.full(sys.maxunicode + 1, -1, np.int32)
        self._tokens[code_points(characters)] = np.arange(len(characters))

    @classmethod
    def fit(cls, texts: Iterable[str], *options: Any) -> "CharTokenizer":
        seen = np.zeros(sys.maxunicode + 1, np.bool_)
        for text in texts:
            seen[code_points(text)] = True
        return cls("".join(map(chr, np.flatnonzero(seen))))

    def encode(self, text: str) -> list[int]:
        codes = code_points(text)
        tokens = self._tokens[codes]
        if (unknown := tokens < 0).any():
            raise DataError(self._refusal(codes[unknown]))
        return tokens.tolist()

    def _refusal(self, unknown: NDArray[np.uint32]) -> str:
        codes, counts = np.unique(unknown, return_counts=True)
        shown = [f"{chr(codes[i])!r} ({counts[i]} times)" for i in np.argsort(-counts, kind="stable")[:5]]
        more = ", ..." if len(codes) > 5 else ""
        known = self.characters if self.vocab_size <= 100 else f"{self.characters[:100]}..."
        return (
            f"{len(codes)} of the text's characters have no token: {', '.join(shown)}{more}. "
            f"The tokenizer was fitted on {self.vocab_size}: {known!r}. "
            'Leave the others out, or train with tokenizer "bytes", which knows every text.'
        )

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        return b"".join([self._bytes.get(token, UNKNOWN) for token in tokens])

    def to_dict(self) -> dict[str, Any]:
        return {"characters": self.characters}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "CharTokenizer":
        return cls(data["characters"])


GPT2_PATTERN = r"'(?:[sdmt]|ll|re|ve)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
"""Contractions, words, numbers, signs, spaces; possessive, since backtracking over a long run overflows the stack."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class TiktokenOptions:
    """Options of `tokenizer="tiktoken"`."""

    encoding: str = "gpt2"
    """One of tiktoken's own, which downloads it at first use and keeps a copy."""
    path: str | None = None
    """A rank file to read instead, without a network: lines of a token in base64 and its rank."""
    pattern: str = GPT2_PATTERN
    """With `path`: cuts a text into the pieces within which bytes are merged."""
    special_tokens: Mapping[str, int] = attrs.field(factory=dict[str, int])
    """With `path`: tokens that no text is encoded to, and their ids."""

    def __attrs_post_init__(self) -> None:
        if self.path is None and (self.pattern != GPT2_PATTERN or self.special_tokens):
            raise ConfigError(f"pattern and special_tokens go with path; encoding={self.encoding!r} has its own")


class TiktokenTokenizer:
    """Byte-pair encoding by tiktoken (extra `tiktoken`). The text of a special token is text like any other.

    A rank file is saved with the model; of tiktoken's own encodings the name is.
    """

    Options = TiktokenOptions

    def __init__(self, encoding: Any, saved: Mapping[str, Any]) -> None:
        self._encoding, self._saved = encoding, saved
        self.vocab_size: int = encoding.n_vocab

    @classmethod
    def fit(cls, texts: Iterable[str], *options: TiktokenOptions) -> "TiktokenTokenizer":
        """Reads what the options name; the texts teach it nothing."""
        (chosen,) = options or (TiktokenOptions(),)
        if chosen.path is None:
            return cls.from_dict({"encoding": chosen.encoding})
        try:
            ranks = dict(_rank_lines(Path(chosen.path).expanduser().read_text(encoding="utf-8", errors="replace")))
            special_tokens = dict(chosen.special_tokens)
            return cls.from_dict({"ranks": ranks, "pattern": chosen.pattern, "special_tokens": special_tokens})
        except OSError as error:
            raise DataError(f"cannot read {chosen.path}: {error.strerror}. Correct the tokenizer's path.") from None
        except ValueError as error:
            raise DataError(
                f"{chosen.path} makes no tokenizer: {error}. A rank file has lines of a token in base64 and its rank, "
                "every single byte among them."
            ) from None

    def encode(self, text: str) -> list[int]:
        raw = as_bytes(text)
        tokens: list[int] = []
        for characters, escaped in _parted(text):
            tokens += self._encoding.encode_ordinary(characters)
            tokens += map(self._encoding.encode_single_token, map(BYTES.__getitem__, escaped))
        if (kept := self._encoding.decode_bytes(tokens)) != raw:
            raise DataError(
                f"the tokenizer's pattern leaves out {len(raw) - len(kept)} of {len(raw)} bytes. "
                r"It must match every character; end it in '|\s|.' to be sure."
            )
        return tokens

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        return b"".join(map(self._bytes, tokens))

    def _bytes(self, token: int) -> bytes:
        try:
            return self._encoding.decode_single_token_bytes(token)
        except (KeyError, OverflowError):
            return UNKNOWN

    def to_dict(self) -> Mapping[str, Any]:
        return self._saved

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "TiktokenTokenizer":
        return cls(_named(data["encoding"]) if "encoding" in data else _ranked(**data), data)


def _parted(text: str) -> Iterator[tuple[str, bytes]]:
    """Characters, and the bytes after them that are none."""
    parts = [*re.split("([\udc80-\udcff]+)", text), ""]
    for characters, escaped in zip(parts[::2], parts[1::2], strict=True):
        yield characters, as_bytes(escaped)


def _rank_lines(text: str) -> Iterator[tuple[str, int]]:
    for number, line in enumerate(text.splitlines(), 1):
        try:
            token, rank = line.split()
            base64.b64decode(token, validate=True)
            yield token, int(rank)
        except ValueError:
            raise ValueError(f"line {number} is {line[:60]!r}") from None


def _ranked(ranks: Mapping[str, int], pattern: str, special_tokens: Mapping[str, int]) -> Any:
    """A tiktoken encoding. tiktoken panics, past any `except Exception`, where what is checked here does not hold."""
    tokens = {base64.b64decode(token): rank for token, rank in ranks.items()}
    if missing := BYTES.keys() - {token[0] for token in tokens if len(token) == 1}:
        raise ValueError(f"{len(missing)} of the 256 single bytes have no rank, {BYTES[min(missing)]!r} among them")
    ids = sorted([*tokens.values(), *special_tokens.values()])
    if twice := [a for a, b in itertools.pairwise(ids) if a == b]:
        raise ValueError(f"two tokens have the id {twice[0]}")
    if outside := [token for token in ids if not 0 <= token < 2**31]:
        raise ValueError(f"the id {outside[0]} is not between 0 and {2**31 - 1}")
    return _tiktoken().Encoding("ranks", pat_str=pattern, mergeable_ranks=tokens, special_tokens=dict(special_tokens))


def _named(name: str) -> Any:
    tiktoken = _tiktoken()
    known: list[str] = tiktoken.list_encoding_names()
    if name not in known:
        raise ConfigError(f"tiktoken has no encoding {name!r}. {did_you_mean(name, known)}It has {', '.join(known)}.")
    try:
        return tiktoken.get_encoding(name)
    except (OSError, ValueError) as error:
        raise DataError(
            f"tiktoken could not download its encoding {name!r} ({type(error).__name__}). Go online once, point "
            "TIKTOKEN_CACHE_DIR at a copy of its cache, or train with a rank file: tokenizer option path."
        ) from None


def _tiktoken() -> Any:
    try:
        return importlib.import_module("tiktoken")
    except ImportError:
        raise LmxError('tokenizer "tiktoken" needs a package more: pip install "lmx-core[tiktoken]"') from None


def as_bytes(text: str) -> bytes:
    """The bytes that a str stands for. `DataError` for half a character, which stands for none."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise DataError(
            f"character {error.start} of the text is {half!r}, half a UTF-16 pair and no text. "
            'Read files as bytes.decode("utf-8", "surrogateescape").'
        ) from None


def code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def decode(tokenizer: Tokenizer, tokens: Iterable[int], skip: Container[int] = ()) -> str:
    """Readable text: what is no UTF-8 becomes U+FFFD. The tokens of `skip` are left out."""
    return tokenizer.decode_bytes(token for token in tokens if token not in skip).decode("utf-8", "replace")


def stream_text(tokenizer: Tokenizer, tokens: Iterable[int], skip: Container[int] = ()) -> Iterator[str]:
    """The text of `decode` in pieces, as soon as each token completes a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        if token not in skip and (text := decoder.decode(tokenizer.decode_bytes([token]))):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest


def save_tokenizer(name: str, tokenizer: Tokenizer, path: str | Path) -> None:
    """Write the tokenizer, registered as `name`, to one JSON file."""
    needed = attrs.asdict(record("tokenizer", name))
    write_text(Path(path), json.dumps({**tokenizer.to_dict(), "name": name, "components": [needed]}))


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a file that `save_tokenizer` wrote.

    Nothing that the file names is imported: the name is looked up among the installed tokenizers. `CheckpointError`
    where the file is missing or damaged.
    """
    data = _read(Path(path))
    name, needed = data.pop("name"), read_records(data.pop("components", []), Path(path))
    check_installed(needed, Path(path))
    chosen = needed[0].meant if needed else name
    from_dict: Callable[[Mapping[str, Any]], Tokenizer] = registry("tokenizer").get(chosen).from_dict
    try:
        return from_dict(data)
    except LmxError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from None


def name_of(path: Path) -> str:
    """What the tokenizer of such a file is registered as."""
    return _read(path)["name"]


def _read(path: Path) -> dict[str, Any]:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data["name"], str):
            raise TypeError(f"its name is {data['name']!r}")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}. A run keeps it beside the model.") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from None
    return data


def _damaged(path: str | Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged or no tokenizer of lmx ({type(error).__name__}: {error}). Take another checkpoint's."
    )
