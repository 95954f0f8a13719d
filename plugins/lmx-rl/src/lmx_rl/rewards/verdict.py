"""What another model says when it is asked about a completion."""

from collections.abc import Sequence
from typing import Any

import attrs
import mlx.core as mx
from mlx.core import array

from lmx_core.config import Field, exact_types
from lmx_core.errors import ConfigError
from lmx_rl.rewards.frozen import Frozen, FrozenOptions

QUESTION = "{prompt}{completion}\n\nIs this right and helpful? Answer yes or no.\nAnswer:"


def asks(instance: object, attribute: Field, value: str) -> None:
    try:
        value.format(prompt="", completion="", answer="")
    except (LookupError, ValueError) as error:
        raise ValueError(f"expected a text with {{prompt}}, {{completion}} and {{answer}}; {error!r}") from None
    if "{completion}" not in value:
        raise ValueError(f"expected a text with {{completion}}, got {value!r}")


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class VerdictOptions(FrozenOptions):
    """Options of `reward="verdict"`."""

    question: str = attrs.field(default=QUESTION, validator=asks)
    """What the model is asked, with `{prompt}`, `{completion}` and `{answer}` where these stand."""
    yes: str = " yes"
    """What it would say of a good completion; the first token counts, with the space before it."""
    no: str = " no"
    """And of another one."""
    chat: bool = False
    """Whether it is asked in a conversation, by its chat template; `yes` and `no` then begin its answer."""


class Verdict:
    """How sure a frozen model is of its yes: `p(yes) / (p(yes) + p(no))`, by the first token that it would say.

    None where the question needs an answer and the row has none, where the tokenizer has no token for what is asked, and
    where it is longer than the model reads. What a completion says the model reads, too: one may talk it into a yes.
    """

    Options = VerdictOptions

    def __init__(self, options: VerdictOptions) -> None:
        self.options, self.frozen = options, Frozen(options)
        if options.chat and not hasattr(self.frozen.tokenizer, "apply_chat_template"):
            raise ConfigError(f"the tokenizer of {options.model} has no chat template. Leave out chat = true.")
        self.said = mx.array([self._first(options.yes), self._first(options.no)])
        if self.said[0].item() == self.said[1].item():
            raise ConfigError(f"yes={options.yes!r} and no={options.no!r} begin with one token. Give others.")

    def _first(self, word: str) -> int:
        tokens = self.frozen.continued(word)
        if not tokens:
            raise ConfigError(f"the tokenizer of {self.options.model} has no token for {word!r}. Give another word.")
        return tokens[0]

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None:
        return self.all([prompt], [completion], [answer])[0]

    def all(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[Any]) -> list[float | None]:
        rows = [self._asked(*each) for each in zip(prompts, completions, answers, strict=True)]
        return self.frozen.at_the_end(rows, self._sure)

    def _asked(self, prompt: str, completion: str, answer: Any) -> list[int] | None:
        if answer is None and "{answer}" in self.options.question:
            return None
        question = self.options.question.format(prompt=prompt, completion=completion, answer=answer)
        return self.frozen.asked(question) if self.options.chat else self.frozen.begun(question)

    def _sure(self, hidden: array) -> array:
        """(B,): of what follows, (B, D)."""
        logits = self.frozen.model.logits(hidden[:, None])[:, 0].astype(mx.float32)
        return mx.softmax(logits[:, self.said], axis=-1)[:, 0]
