"""What the rows of each format become: tokens, and which of them are to be learned."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from lmx_core.data.answers import Answers, Continued, example, ints
from lmx_core.data.documents import Example
from lmx_core.data.prompts import Judged, Pair, Prompt
from lmx_hf.data.rows import Format, Row


@attrs.frozen
class Encoder:
    """Rows to examples, or to what a format is for, many at once."""

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
            "judged": self.judged,
            "question": self.prompts,
        }
        return make[kind](rows)

    @property
    def answers(self) -> Answers:
        return Answers(self.tokenizer, self.begin, self.end)

    def texts(self, rows: Sequence[Row]) -> list[Example]:
        encoded = self.answers.encoded([row["text"] for row in rows])
        around = len(self.begin) + len(self.end)
        stops = np.cumsum([len(tokens) + around for tokens in encoded])
        parts = ((self.begin, tokens, self.end) for tokens in encoded)
        numbers = itertools.chain.from_iterable(itertools.chain.from_iterable(parts))
        all_tokens = np.fromiter(numbers, np.int32, count=stops[-1])
        learn = np.ones(len(all_tokens), np.bool_)
        cuts = zip([0, *stops[:-1].tolist()], stops.tolist(), strict=True)
        return [Example(all_tokens[start:stop], learn[start:stop]) for start, stop in cuts]

    def completions(self, rows: Sequence[Row]) -> list[Example]:
        """Of an answer that is labelled as bad, nothing is learned."""
        found = [example(*each) for each in self._answered(rows)]
        return [
            Example(each.tokens, np.zeros(len(each.tokens), np.bool_)) if row.get("label") is False else each
            for row, each in zip(rows, found, strict=True)
        ]

    def conversations(self, rows: Sequence[Row]) -> list[Example]:
        found = [self.answers.chat(row["messages"], row.get("tools")) for row in rows]
        return [Example(ints(tokens), np.array(learn, np.bool_)) for tokens, learn in found]

    def pairs(self, rows: Sequence[Row]) -> list[Pair]:
        return self.answers.pairs(
            [(row.get("prompt"), row["chosen"], row["rejected"], row.get("tools")) for row in rows]
        )

    def judged(self, rows: Sequence[Row]) -> list[Judged]:
        answers = zip(rows, self._answered(rows), strict=True)
        return [Judged(ints(prompt), ints(answer), good=row["label"]) for row, (prompt, answer) in answers]

    def prompts(self, rows: Sequence[Row]) -> list[Prompt]:
        asked = [(row, *self.answers.asked(row["prompt"], row.get("tools"))) for row in rows]
        return [
            Prompt(tokens=ints(tokens), text=text, answer=row.get("answer"), about=row["about"])
            for row, tokens, text in asked
        ]

    def _answered(self, rows: Sequence[Row]) -> list[Continued]:
        return self.answers.answered([(row["prompt"], row["completion"], row.get("tools")) for row in rows])
