"""Any `tokenizer.json` behind core's protocol."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from lmx_core.config import exact_types
from lmx_core.data.tokenizers import as_bytes
from lmx_core.errors import DataError
from lmx_hf.pieces import Pieces

FILE = "tokenizer.json"


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class HFTokenizerOptions:
    """Options of `tokenizer="hf"`."""

    path: str
    """A `tokenizer.json`, or a folder with one, such as a downloaded model's."""
    lossy: bool = False
    """Whether a text may come back changed. Losses in bits per byte then count other bytes than the model predicts."""


class HFTokenizer:
    """A tokenizer of Hugging Face's library `tokenizers`, saved with the model as a whole.

    Tokens are those of `Tokenizer.encode(text, add_special_tokens=False)`, and the text of a special token is text like any
    other. Of the file's settings, truncation and padding are left out: a text keeps its length.

    A tokenizer that starts every text with a space (LLaMA 2) gives it back with that space. One that changes a text in any
    other way (lower case, unknown words) raises `DataError`, unless it may be `lossy`.
    """

    Options = HFTokenizerOptions

    def __init__(self, data: Mapping[str, Any], lossy: bool = False) -> None:
        from tokenizers import Tokenizer

        self._data, self._lossy = {**data, "truncation": None, "padding": None}, lossy
        try:
            self._tokenizer: Any = Tokenizer.from_str(json.dumps(self._data))
        except Exception as error:  # it raises no other kind
            raise DataError(f"tokenizers cannot read it: {error}") from None
        self._tokenizer.encode_special_tokens = True
        self._pieces = Pieces(self._tokenizer, self._data)
        self.vocab_size: int = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @classmethod
    def fit(cls, texts: Iterable[str], *options: HFTokenizerOptions) -> "HFTokenizer":
        """Reads the file that the options name; the texts teach it nothing."""
        (chosen,) = options
        path = Path(chosen.path).expanduser()
        file = path / FILE if path.is_dir() else path
        try:
            return cls(json.loads(file.read_text(encoding="utf-8")), chosen.lossy)
        except OSError as error:
            raise DataError(f"cannot read {file}: {error.strerror}. Correct the tokenizer's path.") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is no tokenizer.json ({type(error).__name__}: {error})") from None
        except DataError as error:
            raise DataError(f"{file}: {error}") from None

    def encode(self, text: str) -> list[int]:
        tokens = [token for part in _parted(text) for token in self._encoded(part)]
        if not self._lossy:
            self._check(as_bytes(text), self.decode_bytes(tokens))
        return tokens

    def _encoded(self, part: str | bytes) -> Iterable[int]:
        if isinstance(part, str):
            return self._tokenizer.encode(part, add_special_tokens=False).ids
        return [self._of_byte(byte) for byte in part]

    def _of_byte(self, byte: int) -> int:
        token = self._pieces.of_byte(byte)
        if token is None:
            raise DataError(
                f"the text is no UTF-8 and the tokenizer has no token for its byte 0x{byte:02X}. Leave such files out, "
                'or train with tokenizer "bytes", which knows every text.'
            )
        return token

    def _check(self, text: bytes, back: bytes) -> None:
        if back in (text, b" " + text):
            return
        back = back.removeprefix(b" ") if not text.startswith(b" ") else back
        start = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
        before, after = (part[max(start - 10, 0) : start + 20].decode("utf-8", "replace") for part in (text, back))
        raise DataError(
            f"the tokenizer changes the text: {before!r} comes back as {after!r}. Bits per byte would be wrong; take one "
            "that keeps every byte, or accept the change with its option lossy = true."
        )

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        return b"".join(map(self._pieces.__getitem__, tokens))

    def to_dict(self) -> dict[str, Any]:
        return {"tokenizer": self._data, "lossy": self._lossy}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "HFTokenizer":
        return cls(data["tokenizer"], data["lossy"])


def _parted(text: str) -> Iterator[str | bytes]:
    """Characters, and between them the bytes that are none."""
    for part in re.split("([\udc80-\udcff]+)", text):
        if part:
            yield as_bytes(part) if "\udc80" <= part[0] <= "\udcff" else part
