"""How well another model expects a completion."""

from collections.abc import Sequence
from typing import Any

import attrs
import mlx.core as mx
from mlx.core import array

from lmx_core.config import exact_types
from lmx_rl.rewards.frozen import Frozen, FrozenOptions


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class LikelihoodOptions(FrozenOptions):
    """Options of `reward="likelihood"`."""


class Likelihood:
    """The mean log-probability, in nats per token, of the completion after the prompt, by a frozen model and its tokenizer.

    None where the completion is empty, or holds what the tokenizer has no token for, or both are longer than the model reads.
    Without tokens of a prompt the first one of the completion is given.
    """

    Options = LikelihoodOptions

    def __init__(self, options: LikelihoodOptions) -> None:
        self.frozen = Frozen(options)

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None:
        return self.all([prompt], [completion], [answer])[0]

    def all(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[Any]) -> list[float | None]:
        begun, follow = self.frozen.both(prompts, completions)
        rows = [a + b if a is not None and b else None for a, b in zip(begun, follow, strict=True)]
        first = [max(len(a or ()), 1) for a in begun]
        rows = [row if row and len(row) > start else None for row, start in zip(rows, first, strict=True)]
        found: list[float | None] = [None] * len(rows)
        for numbers, tokens in self.frozen.batches(rows):
            lengths = [len(rows[i] or ()) for i in numbers]
            means: Any = self._means(tokens, mx.array([first[i] for i in numbers]), mx.array(lengths)).tolist()
            for i, mean in zip(numbers, means, strict=True):
                found[i] = mean
        return found

    def _means(self, tokens: array, first: array, lengths: array) -> array:
        """(B,): over the tokens from `first` on, (B,), to the end of each row."""
        from lmx_core.losses import hidden_logps, sequence_means

        hidden, targets = self.frozen.hidden(tokens[:, :-1]), tokens[:, 1:]
        place = mx.arange(1, tokens.shape[1])[None]
        counts = (place >= first[:, None]) & (place < lengths[:, None])
        return sequence_means(hidden_logps(self.frozen.model, hidden, targets), counts)
