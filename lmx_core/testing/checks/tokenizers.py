"""What holds for tokenizers."""

import random
import tempfile
from pathlib import Path
from typing import Any

from lmx_core.data.tokenizers import as_bytes, load_tokenizer, save_tokenizer
from lmx_core.testing.candidate import Candidate
from lmx_core.testing.subjects import current_seed

TEXTS = (
    "The quick brown fox jumps over the lazy dog, 0123456789 times.\n\n\tIt's done!  \r\n",
    "Zwölf Boxkämpfer, Ελληνικά, Кириллица, עברית, 日本語, 한국어, é as two: e\u0301.",
    "🙂👩‍👩‍👧‍👦 \N{ZERO WIDTH JOINER}\N{REPLACEMENT CHARACTER}\N{NO-BREAK SPACE}\N{LINE SEPARATOR}\x00\x7f",
    bytes(range(256)).decode("utf-8", "surrogateescape"),  # half of these are no UTF-8
)
"""What a tokenizer is fitted on, and what it then gives back."""


def _fitted(tokenizer: Candidate) -> Any:
    return tokenizer.component.fit(TEXTS, *tokenizer.options())


def _samples() -> list[str]:
    """The texts it was fitted on, and others of the same characters: runs of spaces, a long one, any."""
    draw = random.Random(current_seed())
    # Two escaped bytes in a row may be one character, which it was not fitted on.
    spaced = "".join(f"{space * n}x" for space in " \t\n" for n in range(2, 21))
    long = " ".join(TEXTS[:3] * 40)
    whole = [*"".join(TEXTS[:-1]), *(f"{chr(byte)}\n" for byte in range(0xDC80, 0xDD00))]
    return ["", *TEXTS, spaced, long, *("".join(draw.choices(whole, k=k)) for k in (1, 10, 200))]


def text_comes_back(tokenizer: Candidate) -> None:
    """`decode_bytes(encode(text))` is the text to the byte, also where it is no UTF-8."""
    fitted = _fitted(tokenizer)
    for text in _samples():
        back = fitted.decode_bytes(fitted.encode(text))
        assert back == as_bytes(text), f"{as_bytes(text)[:80]!r} became {back[:80]!r}"


def tokens_are_decoded_one_by_one(tokenizer: Candidate) -> None:
    """The bytes of a sequence are those of its tokens, joined: generation writes them as they come."""
    fitted = _fitted(tokenizer)
    for text in _samples():
        tokens = fitted.encode(text)
        joined = b"".join(fitted.decode_bytes([token]) for token in tokens)
        assert joined == fitted.decode_bytes(tokens), f"token by token {text[:40]!r} is {joined[:80]!r}"


def ids_are_below_vocab_size(tokenizer: Candidate) -> None:
    """Every token is an int from 0 to `vocab_size - 1`: a model has a row for each."""
    fitted = _fitted(tokenizer)
    for text in _samples():
        for token in fitted.encode(text):
            assert type(token) is int, f"a token is a {type(token).__name__}"
            assert 0 <= token < fitted.vocab_size, f"token {token} of a vocabulary of {fitted.vocab_size}"


def every_token_is_decoded(tokenizer: Candidate) -> None:
    """Whatever a model writes has bytes, also a token beyond the vocabulary: a model's may be larger."""
    fitted = _fitted(tokenizer)
    last = fitted.vocab_size - 1
    for token in (*range(min(last, 300)), last, last + 1, last + 1000):
        found = fitted.decode_bytes([token])
        assert type(found) is bytes, f"token {token} is decoded to {found!r}"


def fitting_comes_again(tokenizer: Candidate) -> None:
    """Fitted twice on the same texts, of which one pass is possible, it is the same tokenizer."""
    one, other = (tokenizer.component.fit(iter(TEXTS), *tokenizer.options()) for _ in range(2))
    assert one.to_dict() == other.to_dict(), "two fits are saved differently"
    assert one.to_dict() == _fitted(tokenizer).to_dict(), "a list and an iterator of the same texts differ"


def encoding_comes_again(tokenizer: Candidate) -> None:
    """A text has the same tokens each time, whatever came before it."""
    fitted = _fitted(tokenizer)
    before = [fitted.encode(text) for text in _samples()]
    after = [fitted.encode(text) for text in reversed(_samples())][::-1]
    assert before == after, "a text has other tokens the second time"


def saved_tokenizers_are_the_same(tokenizer: Candidate) -> None:
    """Saved as JSON and loaded, it encodes and decodes as before."""
    fitted = _fitted(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tokenizer.json")
        save_tokenizer(tokenizer.name, fitted, file)
        loaded: Any = load_tokenizer(file)
    assert loaded.vocab_size == fitted.vocab_size, f"vocab_size {fitted.vocab_size} became {loaded.vocab_size}"
    assert loaded.to_dict() == fitted.to_dict(), "it would be saved differently"
    for text in _samples():
        tokens = fitted.encode(text)
        assert loaded.encode(text) == tokens, f"{text[:40]!r} has other tokens"
        assert loaded.decode_bytes(tokens) == fitted.decode_bytes(tokens), f"{text[:40]!r} is decoded differently"
