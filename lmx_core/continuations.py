"""Several answers to each of many prompts, whole: the rollouts of reinforcement learning, the samples of pass@k."""

from collections.abc import Container, Sequence
from typing import Any

import attrs

from lmx_core.config import ComponentSpec
from lmx_core.decoding import Decoding, checked_rows, kind_of, room, rule_of
from lmx_core.errors import ConfigError
from lmx_core.model import LanguageModel, evaluating


@attrs.frozen
class Continuation:
    """What follows a prompt."""

    tokens: list[int]
    """As drawn, the stop token at their end included where one was."""
    ended: bool
    """Whether a stop token ended it; otherwise `max_tokens` cut it off."""


def continuations(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    repeats: int = 1,
    max_tokens: int,
    stop: Container[int] = (),
    seeds: Sequence[int] | None = None,
    cache: str | ComponentSpec | None = None,
    **sampling: Any,
) -> list[Continuation]:
    """`repeats` continuations of each prompt, those of the first prompt first.

    All are drawn together. A prompt is read once however many continue it, and a row that ended leaves the batch. A row gets
    the tokens that `stream_generate` draws for it alone with the same seed: `seeds` holds one for each row,
    `len(prompts) * repeats` of them. `sampling` and `cache` as in `stream_batch`.
    """
    rows = checked_rows(model, prompts)
    if repeats < 1:
        raise ConfigError(f"repeats={repeats}: it must be at least 1")
    if seeds is not None and len(seeds) != len(rows) * repeats:
        raise ConfigError(
            f"{len(seeds)} seeds were given for {len(rows)} prompts with repeats={repeats}; "
            f"give one for each row, {len(rows) * repeats}"
        )
    loop = Decoding(
        model, rule_of(sampling), rows, None if seeds is None else list(seeds), kind=kind_of(cache), repeats=repeats
    )
    answers: list[list[int]] = [[] for _ in range(len(rows) * repeats)]
    with evaluating(model):  # once, not for each token
        for step in loop.steps(room(model, max(map(len, rows)), max_tokens), stop):
            for row, token in step:
                answers[row].append(token)
    return [Continuation(tokens, tokens[-1] in stop) for tokens in answers]
