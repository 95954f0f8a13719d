"""Models that judge: read once, never trained, with their own tokenizers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs
import mlx.core as mx
import numpy as np
from attrs import validators
from mlx.core import array

from lmx_core.config import exact_types
from lmx_core.errors import CheckpointError, DataError

Tokens = Sequence[int]


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class FrozenOptions:
    """Which model judges."""

    model: str
    """A run, a saved model, or what an installed plugin opens."""
    batch_size: int = attrs.field(default=8, validator=validators.ge(1))
    """Texts that it reads at once."""


class Frozen:
    """A model and its tokenizer. `CheckpointError` where the model has none."""

    def __init__(self, options: FrozenOptions) -> None:
        from lmx_core.opening import open_model

        opened = open_model(options.model)
        if opened.tokenizer is None:
            raise CheckpointError(f"{options.model} has no tokenizer, so that it can read no text. Save one with it.")
        self.place, self.batch_size = options.model, options.batch_size
        self.model: Any = opened.model
        self.model.freeze()
        self.model.eval()
        self.tokenizer: Any = opened.tokenizer

    def begun(self, text: str) -> list[int] | None:
        """The tokens of a text with those that begin every text; None where the tokenizer has none for it."""
        return self._tokens(getattr(self.tokenizer, "encode_prompt", self.tokenizer.encode), text)

    def continued(self, text: str) -> list[int] | None:
        """The same of a text that follows another one."""
        return self._tokens(self.tokenizer.encode, text)

    def both(self, prompts: Sequence[str], completions: Sequence[str]) -> tuple[list[Any], list[Any]]:
        """The tokens of each prompt, and of each completion."""
        return [self.begun(prompt) for prompt in prompts], [self.continued(completion) for completion in completions]

    def asked(self, question: str) -> list[int] | None:
        """The tokens of a conversation in which the model is asked this, by its chat template."""
        message = {"role": "user", "content": question}
        return self._tokens(self.tokenizer.apply_chat_template, [message])

    def _tokens(self, encode: Callable[[Any], list[int]], text: Any) -> list[int] | None:
        try:
            return [*encode(text)]
        except DataError:
            return None

    def reads(self, tokens: Tokens) -> bool:
        """Whether so many fit."""
        limit = self.model.longest()
        return bool(tokens) and (limit is None or len(tokens) <= limit)

    def batches(self, rows: Iterable[Tokens | None]) -> Iterator[tuple[list[int], array]]:
        """The rows that it can read, of like length together: their numbers, and tokens (B, L), filled up behind."""
        from lmx_core.evaluate import STRETCH

        kept = sorted((len(row), i, row) for i, row in enumerate(rows) if row and self.reads(row))
        for start in range(0, len(kept), self.batch_size):
            some = kept[start : start + self.batch_size]
            tokens = np.zeros((len(some), -(-some[-1][0] // STRETCH) * STRETCH), np.int32)
            for place, (length, _, row) in enumerate(some):
                tokens[place, :length] = row
            yield [i for _, i, _ in some], mx.array(tokens[:, : self._longest(tokens.shape[1])])

    def _longest(self, wanted: int) -> int:
        limit = self.model.longest()
        return wanted if limit is None else min(wanted, limit)

    def at_the_end(self, rows: Sequence[Tokens | None], read: Callable[[array], array]) -> list[float | None]:
        """What is read, (B,), of what the head reads at the last token of each row, (B, D), in float32; None of a row that
        cannot be read."""
        found: list[float | None] = [None] * len(rows)
        for numbers, tokens in self.batches(rows):
            last = mx.array([len(rows[i] or ()) - 1 for i in numbers])
            values: Any = read(self.hidden(tokens)[mx.arange(len(numbers)), last].astype(mx.float32)).tolist()
            for i, value in zip(numbers, values, strict=True):
                found[i] = value
        return found

    def hidden(self, tokens: array) -> array:
        """What the head reads, (B, L, D)."""
        from lmx_core.objective import take_reports

        found: array = self.model.hidden(tokens)[0]
        take_reports(self.model)
        return found
