"""What a folder says about its tokenizer beside the vocabulary: special tokens by their roles, chat templates."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from lmx_core.errors import DataError
from lmx_core.files import write_text

CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
ADDED = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
"""What is said about an added token."""
DEFAULT = "default"
"""The name of a chat template that stands alone."""


@attrs.frozen(kw_only=True)
class Settings:
    """Plain data, saved with the tokenizer."""

    roles: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """The texts of special tokens by what they are for: `bos_token`, `eos_token`, `pad_token`, ..."""
    templates: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Chat templates by name."""
    ends: tuple[int, ...] = attrs.field(default=(), converter=tuple[int, ...])
    """The ids that end a generated text by the model's own config."""

    @classmethod
    def read(cls, folder: Path) -> "Settings":
        """`DataError` where one of the folder's files is damaged."""
        config = _json(folder / CONFIG)
        return cls(
            roles=dict(_roles({**_json(folder / "special_tokens_map.json"), **config})),
            templates=_templates(folder, config),
            ends=_ends(folder),
        )

    def write(self, folder: Path) -> None:
        """The files that transformers reads, 4 and 5, for a `tokenizer.json` that is used as it is."""
        config: dict[str, Any] = {**self.roles, "clean_up_tokenization_spaces": False}
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        if set(self.templates) == {DEFAULT}:
            write_text(folder / TEMPLATE, self.templates[DEFAULT])
        elif self.templates:
            config["chat_template"] = [{"name": name, "template": text} for name, text in self.templates.items()]
        write_text(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def added_tokens(folder: Path) -> list[dict[str, Any]]:
    """The tokens that the folder's config has beside those of `tokenizer.json`, in the order of their ids."""
    config = _json(folder / CONFIG)
    listed: dict[str, Any] = config.get("added_tokens_decoder") or {}
    ordered = sorted(listed.items(), key=lambda item: int(item[0]))
    found = [{key: value for key, value in token.items() if key in ADDED} for _, token in ordered]
    names = [*_roles({**_json(folder / "special_tokens_map.json"), **config}).values()]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        names += [_content(each) for each in config.get(key) or () if not isinstance(config[key], Mapping)]
    known = {token["content"] for token in found}
    special = {"special": True, "normalized": False}
    return found + [{"content": name, **special} for name in dict.fromkeys(names) if name and name not in known]


def _roles(config: Mapping[str, Any]) -> dict[str, str]:
    """Also those with names of the model's own, such as `image_token`."""
    named = {**_table(config.get("extra_special_tokens")), **_table(config.get("model_specific_special_tokens"))}
    found = {key: _content(value) for key, value in {**config, **named}.items() if key.endswith("_token")}
    return {key: text for key, text in found.items() if text}


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _content(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Files of their own come first, as transformers has it; a processor's `chat_template.json` last."""
    files = {DEFAULT: folder / TEMPLATE, **{file.stem: file for file in _more(folder)}}
    if found := {name: _text(file) for name, file in files.items() if file.is_file()}:
        return found
    return _named(config.get("chat_template")) or _named(_json(folder / "chat_template.json").get("chat_template"))


def _more(folder: Path) -> Iterator[Path]:
    yield from sorted((folder / "additional_chat_templates").glob("*.jinja"))


def _named(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        return {DEFAULT: value}
    if isinstance(value, Mapping):
        return {str(name): text for name, text in value.items()}
    return {each["name"]: each["template"] for each in value or ()}


def _ends(folder: Path) -> tuple[int, ...]:
    """`eos_token_id` of generation_config.json; where that says nothing, of config.json or the text model in it."""
    config = _json(folder / "config.json")
    for source in (_json(folder / "generation_config.json"), config, _table(config.get("text_config"))):
        found = source.get("eos_token_id")
        ids = [each for each in (found if isinstance(found, list) else [found]) if isinstance(each, int)]
        if ids:
            return tuple(ids)
    return ()


def _json(file: Path) -> dict[str, Any]:
    """A table of a file, or an empty one where there is no such file."""
    if not file.is_file():
        return {}
    try:
        data: Any = json.loads(_text(file))
        if not isinstance(data, dict):
            raise ValueError(f"it holds a {type(data).__name__}, not a table")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is damaged: {error}. Download it again.") from None
    return data


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}. Correct its permissions, or download it again.") from None
