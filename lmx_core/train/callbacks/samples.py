"""What a model writes while it learns to."""

import json
from collections.abc import Sequence
from typing import Any

import attrs
from attrs import validators

from lmx_core.config import as_tuple, at_least_one, exact_types
from lmx_core.data.tokenizers import decode
from lmx_core.errors import ConfigError
from lmx_core.files import write_text
from lmx_core.generation import generate
from lmx_core.train.callback import SAMPLES, Callback
from lmx_core.train.callbacks.measurement import some_steps
from lmx_core.train.callbacks.probe import untouched
from lmx_core.train.config import TrainConfig
from lmx_core.train.trainer import Trainer


def _not_empty(instance: object, attribute: Any, value: Sequence[str]) -> None:
    if not all(value):
        raise ValueError(f"expected texts that are not empty, got {list(value)!r}")


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class SamplesOptions:
    """Options of `callback="samples"`."""

    prompts: Sequence[str] = attrs.field(default=(), converter=as_tuple, validator=_not_empty)
    """What is continued; `train.sample_prompt`, or a line break, unless given."""
    every: int | None = attrs.field(default=None, validator=some_steps)
    """Steps from one to the next; with each evaluation unless given."""
    tokens: int = attrs.field(default=100, validator=at_least_one)
    """How many are drawn."""
    temperature: float = attrs.field(default=0.8, validator=validators.ge(0))
    seed: int = attrs.field(default=0, validator=validators.ge(0))
    """The same prompt is continued with the same luck each time, so that samples differ by what was learnt."""


class Samples(Callback):
    """Text of the model in training, a line `{"step", "prompt", "text"}` each in the run's samples.jsonl, and to loggers.

    With `train.ema_decay` it is that of the averaged weights, which a checkpoint's model has.
    """

    Options = SamplesOptions

    def __init__(self, config: TrainConfig, options: SamplesOptions) -> None:
        self.options = options
        self.prompts = options.prompts or (config.sample_prompt or "\n",)
        self._tokens: dict[str, list[int]] = {}

    def on_train_begin(self, trainer: Trainer) -> None:
        """Read the prompts, so that one that is not possible is told before the training; drop what is sampled again."""
        tokenizer = trainer.tokenizer
        if tokenizer is None:
            raise ConfigError("samples need a run with a tokenizer (trainer.tokenizer). Leave the callback out.")
        encode = getattr(tokenizer, "encode_prompt", tokenizer.encode)
        limit = trainer.model.longest()
        self._tokens = {prompt: encode(prompt)[:limit] for prompt in self.prompts}
        if trainer.path and trainer.ranks.first and (trainer.path / SAMPLES).exists():
            lines = (trainer.path / SAMPLES).read_text(encoding="utf-8").splitlines()
            write_text(trainer.path / SAMPLES, "".join(f"{line}\n" for line in lines if _step(line) <= trainer.step))

    def on_step_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        if self.options.every and trainer.step % self.options.every == 0:
            self._sample(trainer)

    def on_eval_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        if not self.options.every:
            self._sample(trainer)

    def _sample(self, trainer: Trainer) -> None:
        with untouched(trainer.model), trainer.update.joined(), trainer.averaged():
            texts = {prompt: self._continued(trainer, tokens) for prompt, tokens in self._tokens.items()}
        if not trainer.ranks.first:
            return
        if trainer.path:
            with (trainer.path / SAMPLES).open("a", encoding="utf-8") as file:
                for prompt, text in texts.items():
                    file.write(json.dumps({"step": trainer.step, "prompt": prompt, "text": text}) + "\n")
        for each in trainer.callbacks:
            if hasattr(each, "on_text"):
                each.on_text(trainer, texts)

    def _continued(self, trainer: Trainer, tokens: list[int]) -> str:
        options, model = self.options, trainer.model
        wanted = model.room_after(len(tokens), options.tokens)
        drawn = generate(model, tokens, max_tokens=wanted, temperature=options.temperature, seed=options.seed)
        return decode(trainer.tokenizer, [*tokens, *drawn])


def _step(line: str) -> float:
    """That of a line, infinite where a kill left half of it."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
