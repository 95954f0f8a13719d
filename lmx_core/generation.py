"""Tokens that follow a prompt, or each of many, as they are drawn."""

from collections.abc import Container, Iterator, Sequence
from typing import Any

from lmx_core.config import ComponentSpec
from lmx_core.decoding import Decoding, checked, checked_rows, kind_of, room, rule_of
from lmx_core.model import LanguageModel


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
    same prompt draws the same tokens. A `cache` continues what it holds; whenever a token comes, and afterwards, it holds all
    before the last token drawn, a stop token included.
    """
    tokens = checked(model, prompt)
    seen = 0 if cache is None else max((layer.offset for layer in cache), default=0)
    memories = None if cache is None else [cache]
    loop = Decoding(model, rule_of(sampling), [tokens], None if seed is None else [seed], memories)
    steps = loop.steps(room(model, seen + len(tokens), max_tokens), stop)
    return (token for step in steps for _, token in step if token not in stop)


def generate_batch(model: LanguageModel, prompts: Sequence[Sequence[int]], **settings: Any) -> list[list[int]]:
    """The tokens that follow each of `prompts`; settings as in `stream_batch`."""
    answers: list[list[int]] = [[] for _ in prompts]
    for step in stream_batch(model, prompts, **settings):
        for row, token in step:
            answers[row].append(token)
    return answers


def stream_batch(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int = 100,
    stop: Container[int] = (),
    seed: int | None = None,
    cache: str | ComponentSpec | None = None,
    **sampling: Any,
) -> Iterator[list[tuple[int, int]]]:
    """Prompts of any lengths continued together: for each step (row, token) of the rows that go on.

    A row gets the tokens that it gets alone: row i those of `stream_generate` with the seed `seed + i`. One that reaches
    `stop` leaves the batch, which is then smaller. `cache` is a kind of cache for `model.make_cache`, by name or with
    options: `spec("quantised", bits=4)`.
    """
    rows = checked_rows(model, prompts)
    seeds = None if seed is None else [seed + i for i in range(len(rows))]
    loop = Decoding(model, rule_of(sampling), rows, seeds, kind=kind_of(cache))
    steps = loop.steps(room(model, max(map(len, rows)), max_tokens), stop)
    going = ([(row, token) for row, token in step if token not in stop] for step in steps)
    return (step for step in going if step)
