"""The one decode loop."""

from collections.abc import Container, Iterator, Sequence
from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.errors import ConfigError
from lmx_core.model import LanguageModel, evaluating
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
    same prompt draws the same tokens. A `cache` continues what it holds; afterwards it holds all before the last token
    drawn, a stop token included, also where the stream was left early.
    """
    tokens = _checked(model, prompt)
    rule = Sampling(**sampling)
    if max_tokens < 1:
        raise ConfigError(f"max_tokens={max_tokens}: it must be at least 1")
    memory = model.make_cache() if cache is None else cache
    limit = model.longest()
    seen = max((layer.offset for layer in memory), default=0)
    if limit is not None and seen + len(tokens) + max_tokens - 1 > limit:
        raise ConfigError(
            f"{seen + len(tokens)} tokens and max_tokens={max_tokens} do not fit the model's max_seq_len={limit}; "
            f"at most {max(limit + 1 - seen - len(tokens), 0)} can follow"
        )
    return _decode(model, tokens, rule, max_tokens, stop, seed, memory)


def _checked(model: LanguageModel, prompt: Sequence[int]) -> list[int]:
    if isinstance(prompt, str):
        raise ConfigError(f"the prompt is a text, {prompt[:20]!r}; give its tokens: tokenizer.encode(...)")
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
    key = None if seed is None else mx.random.key(seed)
    seen = mx.zeros((1, model.config.vocab_size), mx.bool_)
    if rule.repetition_penalty is not None:
        seen[:, mx.array(prompt)] = True

    def draw(tokens: array) -> array:
        nonlocal key
        with evaluating(model):
            logits, _ = model(tokens, cache=cache)
        now = None
        if key is not None:
            key, now = mx.random.split(key)
        drawn = rule.draw(logits[:, -1], seen, now)
        if rule.repetition_penalty is not None:
            seen[:, drawn] = True
        mx.async_eval(drawn)
        return drawn

    *chunks, last = (prompt[i : i + PREFILL] for i in range(0, len(prompt), PREFILL))
    for chunk in chunks:
        with evaluating(model):
            model(mx.array([chunk]), cache=cache)
        mx.eval([memory.state for memory in cache])
    token = draw(mx.array([last]))
    for left in range(max_tokens - 1, -1, -1):
        marks = [memory.checkpoint() for memory in cache]
        following = draw(token[:, None]) if left else None  # runs while this token is read
        drawn: Any = token.item()
        read_on = False
        try:
            if drawn in stop:
                return
            yield drawn
            read_on = True
        finally:
            if not read_on:  # the token that was fed ahead is taken back
                for memory, mark in zip(cache, marks, strict=True):
                    memory.restore(mark)
        if following is not None:
            token = following
