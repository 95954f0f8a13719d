"""The one decode loop."""

from collections.abc import Container, Iterator, Sequence
from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.errors import ConfigError
from lmx_core.model import LanguageModel
from lmx_core.sampling import Sampling

PREFILL = 512
"""Prompt tokens that run at once: bounds the memory of a long prompt."""


def generate(model: LanguageModel, prompt: Sequence[int], **settings: Any) -> list[int]:
    """The tokens that follow `prompt`; settings as in `stream_generate`."""
    return list(stream_generate(model, prompt, **settings))


def stream_generate(
    model: LanguageModel,
    prompt: Sequence[int],
    *,
    max_tokens: int = 100,
    stop: Container[int] = (),
    seed: int | None = None,
    cache: Sequence[Any] | None = None,
    **sampling: Any,
) -> Iterator[int]:
    """Tokens as they are drawn, at most `max_tokens`, ending before one of `stop`.

    `sampling` holds the fields of `Sampling` (temperature, top_k, top_p, min_p, repetition_penalty). With a `seed` the
    same call draws the same tokens. A `cache` continues what it holds; afterwards it holds all but the last token drawn.
    """
    tokens = _checked(model, prompt)
    rule = Sampling(**sampling)
    if max_tokens < 1:
        raise ConfigError(f"max_tokens={max_tokens}: it must be at least 1")
    limit = model.longest()
    if limit is not None and len(tokens) + max_tokens - 1 > limit:
        raise ConfigError(
            f"{len(tokens)} prompt tokens and max_tokens={max_tokens} do not fit the model's max_seq_len={limit}; "
            f"at most {max(limit + 1 - len(tokens), 0)} can follow"
        )
    return _decode(model, tokens, rule, max_tokens, stop, seed, model.make_cache() if cache is None else cache)


def _checked(model: LanguageModel, prompt: Sequence[int]) -> list[int]:
    tokens = [int(token) for token in prompt]
    vocab_size = model.config.vocab_size
    if not tokens:
        raise ConfigError("the prompt is empty; a model continues at least one token")
    if outside := [token for token in tokens if not 0 <= token < vocab_size]:
        raise ConfigError(f"token {outside[0]} of the prompt is outside the model's vocabulary of {vocab_size}")
    return tokens


def _decode(
    model: LanguageModel,
    prompt: list[int],
    rule: Sampling,
    max_tokens: int,
    stop: Container[int],
    seed: int | None,
    cache: Sequence[Any],
) -> Iterator[int]:
    keys = None if seed is None else iter(mx.random.split(mx.random.key(seed), max_tokens))
    seen = mx.zeros((1, model.config.vocab_size), mx.bool_)
    if rule.repetition_penalty is not None:
        seen[:, mx.array(prompt)] = True

    def draw(tokens: array) -> array:
        logits, _ = model(tokens, cache=cache)
        drawn = rule.draw(logits[:, -1], seen, None if keys is None else next(keys))
        if rule.repetition_penalty is not None:
            seen[:, drawn] = True
        return drawn

    training = model.training
    model.eval()
    try:
        *chunks, last = (prompt[i : i + PREFILL] for i in range(0, len(prompt), PREFILL))
        for chunk in chunks:
            model(mx.array([chunk]), cache=cache)
            mx.eval([memory.state for memory in cache if memory is not None])
        token = draw(mx.array([last]))
        mx.async_eval(token)
        for left in range(max_tokens - 1, -1, -1):
            following = draw(token[:, None]) if left else None  # runs while this token is read
            if following is not None:
                mx.async_eval(following)
            drawn: Any = token.item()
            if drawn in stop:
                return
            yield drawn
            if following is not None:
                token = following
    finally:
        model.train(training)
