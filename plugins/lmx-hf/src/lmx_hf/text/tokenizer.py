"""Any tokenizer of a Hugging Face folder behind core's protocol."""

import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from lmx_core.config import exact_types
from lmx_core.data.tokenizers import as_bytes
from lmx_core.errors import DataError
from lmx_core.files import write_text
from lmx_hf.lazily import library
from lmx_hf.text import chat
from lmx_hf.text.chat import Messages
from lmx_hf.text.pieces import Pieces
from lmx_hf.text.settings import DEFAULT, Settings, added_tokens

FILE = "tokenizer.json"
OTHERS = ("vocab.json", "vocab.txt", "*.model", "*.tiktoken", "tekken.json")
"""What a tokenizer may be kept in instead, for `transformers.AutoTokenizer` to read."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class HFTokenizerOptions:
    """Options of `tokenizer="hf"`."""

    path: str
    """A `tokenizer.json`, or a folder with a tokenizer, such as a downloaded model's."""
    lossy: bool = False
    """Whether a text may come back changed. Losses in bits per byte then count other bytes than the model predicts."""


class HFTokenizer:
    """A tokenizer of Hugging Face's library `tokenizers`, saved with the model as a whole, chat template included.

    Tokens are those of `Tokenizer.encode(text, add_special_tokens=False)`, and the text of a special token is text like any
    other; `encode_prompt`, `encode_special` and chat templates know special tokens. Of the file's settings, truncation and
    padding are left out: a text keeps its length.

    A tokenizer that starts every text with a space (LLaMA 2) gives it back with that space. One that changes a text in any
    other way (lower case, unknown words) raises `DataError`, unless it may be `lossy`.
    """

    Options = HFTokenizerOptions

    def __init__(self, data: Mapping[str, Any], lossy: bool = False, settings: Settings | None = None) -> None:
        self._data, self._lossy = {**data, "truncation": None, "padding": None}, lossy
        self._settings = settings or Settings()
        self._tokenizer = _built(self._data)
        self._tokenizer.encode_special_tokens = True
        self._pieces = Pieces(self._tokenizer, self._data)
        self.vocab_size: int = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        added: dict[int, Any] = self._tokenizer.get_added_tokens_decoder()
        self.special_tokens = frozenset(token for token, each in added.items() if each.special)
        """The ids of tokens that are no text: `lmx generate` does not print them."""
        self.bos_token, self.eos_token = map(self._of_role, ("bos_token", "eos_token"))
        ends = [*([] if self.eos_token is None else [self.eos_token]), *self._settings.ends]
        self.eos_tokens: tuple[int, ...] = tuple(dict.fromkeys(ends))
        """The ids before which generation ends: the tokenizer's own `eos_token`, then those of the model's config."""

    @classmethod
    def read(cls, folder: str | Path) -> "HFTokenizer | None":
        """The tokenizer of a model's folder, or None where there is none; lossy, since a model is to be used as it is.

        `tokenizer.json` is read as it is; `vocab.json` and `merges.txt`, SentencePiece models and tiktoken's files by
        `transformers.AutoTokenizer`, which runs none of the folder's code.
        """
        folder = Path(folder)
        if not (folder / FILE).is_file() and not any(found for name in OTHERS for found in folder.glob(name)):
            return None
        return cls._of(folder, lossy=True)

    @classmethod
    def fit(cls, texts: Iterable[str], *options: HFTokenizerOptions) -> "HFTokenizer":
        """Reads the file that the options name; the texts teach it nothing."""
        (chosen,) = options
        return cls._of(Path(chosen.path).expanduser(), chosen.lossy)

    @classmethod
    def _of(cls, path: Path, lossy: bool) -> "HFTokenizer":
        whole = path.is_dir()
        file = path / FILE if whole else path
        try:
            if whole and not file.is_file() and any(found for name in OTHERS for found in path.glob(name)):
                return cls(*_converted(path, lossy))
            data = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(data, dict):
                raise TypeError(f"it holds a {type(data).__name__}, not a table")
            return cls(_completed(data, path), lossy, Settings.read(path)) if whole else cls(data, lossy)
        except OSError as error:
            raise DataError(f"cannot read {file}: {error.strerror}. Correct the tokenizer's path.") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{file} is no tokenizer.json ({type(error).__name__}: {error})") from None
        except DataError as error:
            raise DataError(f"{file}: {error}") from None

    def encode(self, text: str) -> list[int]:
        tokens = [token for part in _parted(text) for token in self._encoded(part)]
        if not self._lossy:
            self._check(as_bytes(text), self.decode_bytes(tokens))
        return tokens

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Many texts in parallel, as `encode` but that none is refused because it would come back changed."""
        try:
            return [found.ids for found in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        except (TypeError, UnicodeError):  # one holds bytes that are no character
            return [[token for part in _parted(text) for token in self._encoded(part)] for text in texts]

    def encode_special(self, text: str) -> list[int]:
        """The text of a special token becomes that token, as in what a chat template writes."""
        return self._knowing.encode(text, add_special_tokens=False).ids

    def encode_prompt(self, text: str) -> list[int]:
        """What a model continues: `prefix` and then the text, in which special tokens are known.

        A text that begins with the first token's name is left to begin so.
        """
        tokens, prefix = self.encode_special(text), self.prefix
        return tokens if prefix and tokens[:1] == prefix[:1] else [*prefix, *tokens]

    @functools.cached_property
    def prefix(self) -> list[int]:
        """What the tokenizer's post-processor puts before every text, such as `<s>`."""
        found = self._tokenizer.encode("a", add_special_tokens=True)
        before = itertools.takewhile(lambda pair: pair[1], zip(found.ids, found.special_tokens_mask, strict=True))
        return [token for token, _ in before]

    @functools.cached_property
    def _knowing(self) -> Any:
        """A second one, since the first may be at work in another thread."""
        return _built(self._data)

    @property
    def chat_template(self) -> str | None:
        """The template of conversations without tools, if there is one."""
        templates = self._settings.templates
        return chat.chosen(templates, None) if templates else None

    def with_chat_template(self, template: str) -> "HFTokenizer":
        """The same tokenizer with this chat template (Jinja) alone."""
        return type(self)(self._data, self._lossy, attrs.evolve(self._settings, templates={DEFAULT: template}))

    def render_chat(
        self,
        messages: Messages,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        chat_template: str | None = None,
        **variables: Any,
    ) -> str:
        """A conversation as text, as transformers' `apply_chat_template(tokenize=False)` gives it.

        `messages` are tables with a role and a content; `tools` JSON schemas, or functions whose docstrings tell what
        arguments are for; `chat_template` a template or the name of one of several; the template sees `variables`.
        `DataError` where there is no template, or it refuses the messages.
        """
        template = chat.chosen(self._settings.templates, tools, chat_template)
        given = {**self._settings.roles, **variables, "add_generation_prompt": add_generation_prompt}
        return chat.rendered(template, messages, tools=tools, **given)

    def apply_chat_template(
        self,
        messages: Messages,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> list[int]:
        """The tokens of `render_chat`, which writes the first one itself where the model has one."""
        return self.encode_special(self.render_chat(messages, tools, add_generation_prompt, **variables))

    def encode_chat(
        self, messages: Messages, tools: Sequence[Any] | None = None, **variables: Any
    ) -> tuple[list[int], list[bool]]:
        """The tokens of a whole conversation, and of each whether it begins in what the assistant says.

        The token that ends a turn is the assistant's; the headers are not. `DataError` as in `lmx_hf.text.chat.turns`.
        """
        template = chat.chosen(self._settings.templates, tools, variables.pop("chat_template", None))
        ends = [each.content for each in self._tokenizer.get_added_tokens_decoder().values()]
        given = {**self._settings.roles, "add_generation_prompt": False, **variables}
        text, spans = chat.turns(template, messages, ends, tools=tools, **given)
        found = self._knowing.encode(text, add_special_tokens=False)
        return found.ids, [any(a <= start < b for a, b in spans) for start, _ in found.offsets]

    def write(self, folder: str | Path) -> None:
        """`tokenizer.json`, `tokenizer_config.json` and the chat template, as transformers and mlx-lm read them."""
        folder = Path(folder)
        write_text(folder / FILE, json.dumps(self._data, ensure_ascii=False))
        self._settings.write(folder)

    def _of_role(self, role: str) -> int | None:
        text = self._settings.roles.get(role)
        return None if text is None else self._tokenizer.token_to_id(text)

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
        return {"tokenizer": self._data, "lossy": self._lossy, "settings": attrs.asdict(self._settings)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "HFTokenizer":
        """Also of what was saved before there were settings."""
        return cls(data["tokenizer"], data["lossy"], Settings(**data.get("settings", {})))


def _built(data: Mapping[str, Any]) -> Any:
    try:
        return library("tokenizers").Tokenizer.from_str(json.dumps(data))
    except Exception as error:  # it raises no other kind
        raise DataError(f"tokenizers cannot read it: {error}") from None


def _completed(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`tokenizer.json` with the added tokens that the folder's config alone names, as transformers adds them."""
    known = {token["content"] for token in data.get("added_tokens") or ()}
    missing = [token for token in added_tokens(folder) if token["content"] not in known]
    if not missing:
        return data
    tokenizer, added_token = _built(data), library("tokenizers").AddedToken
    tokenizer.add_tokens([added_token(**token) for token in missing])
    return json.loads(tokenizer.to_str())


def _converted(folder: Path, lossy: bool) -> tuple[dict[str, Any], bool, Settings]:
    """What `AutoTokenizer` makes of the other kinds of files; it knows which special tokens their kind has."""
    auto = library("transformers").AutoTokenizer
    try:
        found = auto.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever the many kinds of files make it raise
        raise DataError(
            f"transformers cannot read its tokenizer ({type(error).__name__}: {error}). SentencePiece models may need pip "
            "install sentencepiece protobuf, rank files pip install tiktoken; or put a tokenizer.json into the folder."
        ) from None
    backend = getattr(found, "backend_tokenizer", None)
    if backend is None:
        raise DataError(f"its tokenizer, {type(found).__name__}, has no tokenizer.json. Put one into the folder.")
    settings = Settings.read(folder)
    roles = {role: text for role, text in found.special_tokens_map.items() if isinstance(text, str)}
    return json.loads(backend.to_str()), lossy, attrs.evolve(settings, roles={**roles, **settings.roles})


def _parted(text: str) -> Iterator[str | bytes]:
    """Characters, and between them the bytes that are none."""
    for part in re.split("([\udc80-\udcff]+)", text):
        if part:
            yield as_bytes(part) if "\udc80" <= part[0] <= "\udcff" else part
