"""Prompts and what answers them, as tokens: texts, or messages that a chat template writes."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import numpy as np

from lmx_core.data.documents import Example
from lmx_core.data.prompts import Ints, Pair
from lmx_core.data.tokenizers import decode
from lmx_core.errors import DataError

Said = str | Sequence[Any]
"""A text, or messages: tables, each with a role and a content."""
Continued = tuple[list[int], list[int]]
"""The tokens of a prompt, and those of an answer."""


@attrs.frozen
class Answers:
    """How a tokenizer writes prompts and answers."""

    tokenizer: Any
    begin: Sequence[int]
    """The tokens before a prompt that is text. A chat template writes its own."""
    end: Sequence[int]
    """The tokens after an answer that is text."""

    @classmethod
    def of(cls, tokenizer: Any, end: str = "") -> "Answers":
        """With what the tokenizer puts before every text, and its first `eos_tokens` after an answer; `end` without one."""
        ends = getattr(tokenizer, "eos_tokens", ())[:1] or (tokenizer.encode(end) if end else [])
        return cls(tokenizer, [*getattr(tokenizer, "prefix", ())], [*ends])

    def answered(self, rows: Sequence[tuple[Said | None, Said, Any]]) -> list[Continued]:
        """Prompts and answers, many at once: each a prompt, an answer, and the tools of a conversation.

        Of texts, the prompt's tokens are those that it has alone, as when a model is asked; the answer is encoded as what
        follows it, or by itself where a token would span both. If one is messages, the answer is the last turn of the
        assistant's and the prompt what comes before it: an answer may be a text, that turn, or the whole conversation.
        """
        texts = self._texts([(prompt or "", answer) for prompt, answer, _ in rows if _are_texts(prompt, answer)])
        return [next(texts) if _are_texts(*row[:2]) else self._last_turn(*row) for row in rows]

    def pairs(self, rows: Sequence[tuple[Said | None, Said, Said, Any]]) -> list[Pair]:
        """As `answered`, of rows with two answers. `DataError` for two whole conversations that begin differently."""
        alike = [row if _are_texts(*row[:3]) else (row[0], _turn(row[1]), _turn(row[2]), row[3]) for row in rows]
        chosen = self.answered([(prompt, better, tools) for prompt, better, _, tools in alike])
        rejected = self.answered([(prompt, worse, tools) for prompt, _, worse, tools in alike])
        found: list[Pair] = []
        for row, (prompt, better), (other, worse) in zip(rows, chosen, rejected, strict=True):
            if prompt != other:
                raise DataError(f"the answers of a preference row have different prompts: {row[1:3]!r:.200}")
            found.append(Pair(ints(prompt), ints(better), ints(worse)))
        return found

    def _texts(self, pairs: Sequence[tuple[Any, Any]]) -> Iterator[Continued]:
        prompts = self.encoded([prompt for prompt, _ in pairs])
        both = self.encoded([prompt + answer for prompt, answer in pairs])
        alone = self.encoded([answer for _, answer in pairs])
        for prompt, whole, answer in zip(prompts, both, alone, strict=True):
            rest = whole[len(prompt) :] if whole[: len(prompt)] == prompt else answer
            yield [*self.begin, *prompt], [*rest, *self.end]

    def _last_turn(self, prompt: Said | None, answer: Said, tools: Any) -> Continued:
        tokens, learn = self.chat(_conversation(prompt, _turn(answer)), tools)
        if not any(learn):
            raise DataError(f"the assistant says nothing in {answer!r:.200}. Leave such rows out.")
        stop = len(learn) - learn[::-1].index(True)
        start = stop - sum(1 for _ in itertools.takewhile(bool, reversed(learn[:stop])))
        return tokens[:start], tokens[start:stop]

    def asked(self, prompt: Said, tools: Any = None) -> tuple[list[int], str]:
        """A prompt as a model is asked it, and as a text: of messages, what the last one says."""
        if isinstance(prompt, str):
            return [*self.begin, *self.tokenizer.encode(prompt)], prompt
        tokens = self._chatting("apply_chat_template")(prompt, _table(tools))
        content = prompt[-1].get("content")
        return tokens, content if isinstance(content, str) else decode(self.tokenizer, tokens)

    def chat(self, messages: Sequence[Any], tools: Any = None) -> tuple[list[int], list[bool]]:
        """The tokens of a conversation, and which of them the assistant says. `tools` are tables, or JSON of them."""
        return self._chatting("encode_chat")(messages, _table(tools))

    def encoded(self, texts: Sequence[str]) -> list[list[int]]:
        batch = getattr(self.tokenizer, "encode_batch", None)
        return batch(texts) if batch else [self.tokenizer.encode(text) for text in texts]

    def _chatting(self, method: str) -> Any:
        if not hasattr(self.tokenizer, method):
            raise DataError(
                f"rows of messages need a tokenizer with a chat template, and {type(self.tokenizer).__name__} has none. "
                'Take tokenizer "hf" of a model that chats.'
            )
        return getattr(self.tokenizer, method)


def example(prompt: Sequence[int], answer: Sequence[int]) -> Example:
    """A document of which the answer is learned."""
    return Example(ints(prompt, answer), np.arange(len(prompt) + len(answer)) >= len(prompt))


def ints(*parts: Sequence[int]) -> Ints:
    return np.array([*itertools.chain(*parts)], np.int32)


def _are_texts(*said: Said | None) -> bool:
    return all(each is None or isinstance(each, str) for each in said)


def _turn(answer: Said) -> list[Any]:
    return [{"role": "assistant", "content": answer}] if isinstance(answer, str) else list(answer)


def _conversation(prompt: Said | None, said: list[Any]) -> list[Any]:
    if prompt is None or said[0]["role"] != "assistant":
        return said
    return [*([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt), *said]


def _table(tools: Any) -> Any:
    return json.loads(tools) if isinstance(tools, str) else tools
