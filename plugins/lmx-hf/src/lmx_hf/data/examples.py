"""What the rows of each format become: tokens, and which of them are to be learned."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from lmx_core.data.documents import Example
from lmx_core.errors import DataError
from lmx_hf.data.rows import Format, Row

Ints = NDArray[np.int32]


@attrs.frozen(eq=False)
class Pair:
    """A prompt and two answers, of which the first is the better one; each ends as a text of the model does."""

    prompt: Ints
    chosen: Ints
    rejected: Ints


@attrs.frozen
class Encoder:
    """Rows to examples, or to pairs, many at once."""

    tokenizer: Any
    begin: Sequence[int]
    """The tokens before a text or a prompt. A chat template writes its own."""
    end: Sequence[int]
    """The tokens after a text or an answer."""

    def __call__(self, kind: Format, rows: Sequence[Row]) -> list[Any]:
        make: Mapping[Format, Callable[[Sequence[Row]], list[Any]]] = {
            "text": self.texts,
            "prompt": self.completions,
            "messages": self.conversations,
            "preference": self.pairs,
        }
        return make[kind](rows)

    def texts(self, rows: Sequence[Row]) -> list[Example]:
        encoded = self._encoded([row["text"] for row in rows])
        around = len(self.begin) + len(self.end)
        stops = np.cumsum([len(tokens) + around for tokens in encoded])
        parts = ((self.begin, tokens, self.end) for tokens in encoded)
        numbers = itertools.chain.from_iterable(itertools.chain.from_iterable(parts))
        all_tokens = np.fromiter(numbers, np.int32, count=stops[-1])
        learn = np.ones(len(all_tokens), np.bool_)
        cuts = zip([0, *stops[:-1].tolist()], stops.tolist(), strict=True)
        return [Example(all_tokens[start:stop], learn[start:stop]) for start, stop in cuts]

    def completions(self, rows: Sequence[Row]) -> list[Example]:
        plain = iter(self._continued([(row["prompt"], row["completion"]) for row in rows if _is_plain(row)]))
        return [_joined(*(next(plain) if _is_plain(row) else self._answer(row, "completion"))) for row in rows]

    def conversations(self, rows: Sequence[Row]) -> list[Example]:
        found = [self._chat(row["messages"], row) for row in rows]
        return [Example(_ints(tokens), np.array(learn, np.bool_)) for tokens, learn in found]

    def pairs(self, rows: Sequence[Row]) -> list[Pair]:
        """The prompt is what both answers have before them, or of whole conversations what comes before the last turn."""
        roles = ("chosen", "rejected")
        plain = [(row.get("prompt", ""), row[role]) for row in rows if _is_plain(row) for role in roles]
        continued = iter(self._continued(plain))
        found: list[Pair] = []
        for row in rows:
            (prompt, chosen), (other, rejected) = (
                next(continued) if _is_plain(row) else self._answer(row, role) for role in roles
            )
            if prompt != other:
                raise DataError(f"the answers of a preference row have different prompts: {row!r:.200}")
            found.append(Pair(_ints(prompt), _ints(chosen), _ints(rejected)))
        return found

    def _continued(self, texts: Sequence[tuple[str, str]]) -> Iterator[tuple[list[int], list[int]]]:
        """Prompts and answers.

        The prompt's tokens are those that it has alone, as when a model is asked. An answer is encoded as what follows it,
        or by itself where a token would span both.
        """
        prompts = self._encoded([prompt for prompt, _ in texts])
        both = self._encoded([prompt + answer for prompt, answer in texts])
        alone = self._encoded([answer for _, answer in texts])
        for prompt, whole, answer in zip(prompts, both, alone, strict=True):
            rest = whole[len(prompt) :] if whole[: len(prompt)] == prompt else answer
            yield [*self.begin, *prompt], [*rest, *self.end]

    def _answer(self, row: Row, role: str) -> tuple[list[int], list[int]]:
        """What comes before the last turn of the assistant's, and that turn."""
        tokens, learn = self._chat(_conversation(row.get("prompt"), row[role]), row)
        if not any(learn):
            raise DataError(f"the assistant says nothing in {row[role]!r:.200}. Leave such rows out.")
        stop = len(learn) - learn[::-1].index(True)
        start = stop - sum(1 for _ in itertools.takewhile(bool, reversed(learn[:stop])))
        return tokens[:start], tokens[start:stop]

    def _chat(self, messages: Sequence[Any], row: Row) -> tuple[list[int], list[bool]]:
        if not hasattr(self.tokenizer, "encode_chat"):
            raise DataError(
                f"rows of messages need a tokenizer with a chat template, and {type(self.tokenizer).__name__} has none. "
                'Take tokenizer "hf" of a model that chats.'
            )
        tools = row.get("tools")
        return self.tokenizer.encode_chat(messages, json.loads(tools) if isinstance(tools, str) else tools)

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        batch = getattr(self.tokenizer, "encode_batch", None)
        return batch(texts) if batch else [self.tokenizer.encode(text) for text in texts]


def _is_plain(row: Row) -> bool:
    return all(isinstance(row.get(role, ""), str) for role in ("prompt", "completion", "chosen", "rejected"))


def _conversation(prompt: Any, answer: Any) -> list[Any]:
    """All messages: an answer may be a text, the assistant's turn, or the whole conversation."""
    said = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else list(answer)
    if prompt is None or said[0]["role"] != "assistant":
        return said
    return [*([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt), *said]


def _ints(*parts: Sequence[int]) -> Ints:
    return np.array([*itertools.chain(*parts)], np.int32)


def _joined(prompt: list[int], answer: list[int]) -> Example:
    return Example(_ints(prompt, answer), np.arange(len(prompt) + len(answer)) >= len(prompt))
