"""The bytes behind each token of a `tokenizer.json`."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lmx_core.data.tokenizers import UNKNOWN
from lmx_core.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DECODERS = ("BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece")
"""Those that say the same about a token wherever it stands, but for a space that they take from the first."""


def byte_level_alphabet() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary (GPT-2): itself, if it can be seen."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in visible else next(others)) for byte in range(256)]


ALPHABET = byte_level_alphabet()
BYTE_OF = {character: byte for byte, character in enumerate(ALPHABET)}


class Pieces:
    """Token by token what a sequence is, so that it can be written as it comes.

    `Tokenizer.decode` knows whole sequences alone: it drops the first space, and bytes that are no character yet.
    """

    def __init__(self, tokenizer: "Tokenizer", data: Mapping[str, Any]) -> None:
        parts = [*_parts(data.get("decoder"))]
        decoders = {part["type"] for part in parts}
        if unknown := decoders.difference(DECODERS):
            raise DataError(
                f"its decoder is {' and '.join(sorted(unknown))}, which says nothing about single tokens. "
                f"lmx-hf reads {', '.join(DECODERS)}."
            )
        self._tokenizer = tokenizer
        self._added = set(tokenizer.get_added_tokens_decoder())
        self._byte_level, self._byte_fallback = "ByteLevel" in decoders, "ByteFallback" in decoders
        self._suffix = next((part["suffix"] for part in parts if part["type"] == "BPEDecoder"), None)
        self._known: dict[int, bytes] = {}

    def __getitem__(self, token: int) -> bytes:
        if token not in self._known:
            self._known[token] = self._read(token)
        return self._known[token]

    def _read(self, token: int) -> bytes:
        text = self._tokenizer.id_to_token(token) if 0 <= token < 2**32 else None
        if text is None:
            return UNKNOWN
        if self._byte_level:  # all but the added ones are spelled in its alphabet
            spelled = token not in self._added and all(character in BYTE_OF for character in text)
            return bytes(map(BYTE_OF.__getitem__, text)) if spelled else text.encode()
        if self._suffix:  # a word ends with it; the library leaves the space after the last word out
            return text.replace(self._suffix, " ").encode()
        if self._byte_fallback and re.fullmatch("<0x[0-9A-Fa-f]{2}>", text):
            return bytes.fromhex(text[3:5])
        once, twice = (self._tokenizer.decode([token] * n, skip_special_tokens=False) for n in (1, 2))
        return twice[len(once) :].encode()  # as it is after another one

    def of_byte(self, byte: int) -> int | None:
        """The token that stands for one byte, if there is one."""
        text = ALPHABET[byte] if self._byte_level else f"<0x{byte:02X}>"
        return self._tokenizer.token_to_id(text) if self._byte_level or self._byte_fallback else None


def _parts(decoder: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for part in decoder["decoders"]:
            yield from _parts(part)
    else:
        yield decoder
