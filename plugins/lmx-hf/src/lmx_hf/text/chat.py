"""Conversations as the text that a model was trained on, by the chat template of its tokenizer.

Templates are rendered by transformers: in a sandbox, with what it offers them.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lmx_core.errors import DataError
from lmx_hf.lazily import library
from lmx_hf.text.settings import DEFAULT

Messages = Sequence[Any]
"""Tables, each with a role and a content."""
Spans = list[tuple[int, int]]

NO_TEMPLATE = (
    "the tokenizer has no chat template. Put a chat_template.jinja beside the tokenizer.json that it is read from, or write "
    "the prompt as the model's card says and leave --chat out. In Python, chat_template=... gives a template, and "
    "encode_prompt encodes a prompt without one."
)


def chosen(templates: Mapping[str, str], tools: Any, template: str | None = None) -> str:
    """A template's text: the one given, by name or as it is, or the tokenizer's, for tools where it has such a one."""
    if template is not None:
        return templates.get(template, template)
    if not templates:
        raise DataError(NO_TEMPLATE)
    name = "tool_use" if tools is not None and "tool_use" in templates else DEFAULT
    if name not in templates and len(templates) > 1:
        raise DataError(
            f"none of the chat templates is the default: {', '.join(templates)}. Put the one to be used into a "
            "chat_template.jinja beside the tokenizer.json, or in Python name it, chat_template=..."
        )
    return templates[name] if name in templates else next(iter(templates.values()))


def rendered(template: str, messages: Messages, **variables: Any) -> str:
    """The text of a conversation. `DataError` where the template refuses the messages, with what it says."""
    return _rendered(template, messages, False, **variables)[0]


def _rendered(template: str, messages: Messages, spans: bool, **variables: Any) -> tuple[str, Spans]:
    jinja2, utilities = library("jinja2"), library("transformers.utils.chat_template_utils")
    said = [{key: value for key, value in message.items() if value is not None} for message in _checked(messages)]
    try:
        texts, found = utilities.render_jinja_template(
            conversations=[said], chat_template=template, return_assistant_tokens_mask=spans, **variables
        )
    except jinja2.TemplateError as error:
        raise DataError(f"the chat template refuses this conversation: {error}") from None
    except Exception as error:  # a template is a program, and may fail as any does
        raise DataError(f"the chat template fails on this conversation: {type(error).__name__}: {error}") from None
    return texts[0], found[0] if spans else []


def _checked(messages: Messages) -> Messages:
    if isinstance(messages, str) or not messages:
        raise DataError(f'messages={messages!r:.60}: give a list such as [{{"role": "user", "content": "Hello"}}]')
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise DataError(f"message {i} is {message!r:.60}: each is a table with a role and a content")
    return messages


def turns(template: str, messages: Messages, ends: Sequence[str], **variables: Any) -> tuple[str, Spans]:
    """The text of a conversation, and where in it the assistant speaks, as (start, end) of characters.

    A template with `{% generation %}` says so itself. Of another, the text up to a turn with the header that calls for it
    and the text up to its end are compared: what comes between is the assistant's, with one of the tokens `ends` after it
    and without the white space after that. `DataError` where the whole conversation does not begin with them, or a template
    marks nothing although the assistant speaks.
    """
    if re.search(r"\{%[-+]?\s*generation\b", template):
        text, spans = _rendered(template, messages, True, **variables)
        if not spans and any(message["role"] == "assistant" for message in messages):
            raise DataError(
                "the chat template has {% generation %} and marks nothing that the assistant says in this conversation. "
                "Put it around the assistant's turns."
            )
        return text, spans
    text, spans = rendered(template, messages, **variables), []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = rendered(template, messages[:i], **{**variables, "add_generation_prompt": True}) if i else ""
        after = rendered(template, messages[: i + 1], **variables)
        if not text.startswith(after) or not after.startswith(before):
            raise DataError(
                f"message {i} of {len(messages)} is written in another way once more follow, so that the assistant's "
                "tokens cannot be told. Take a template that marks them with {% generation %}, or end conversations at "
                "their first answer."
            )
        spans.append((len(before), _end(after, ends)))
    return text, spans


def _end(text: str, ends: Sequence[str]) -> int:
    stripped = text.rstrip()
    return len(stripped) if stripped.endswith(tuple(ends)) else len(text)
