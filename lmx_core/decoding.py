"""The one decode loop, of one prompt or of many."""

import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import attrs
import mlx.core as mx
from mlx.core import array

from lmx_core.config import ComponentSpec, as_spec
from lmx_core.errors import ConfigError, LmxWarning, did_you_mean
from lmx_core.model import LanguageModel, evaluating
from lmx_core.sampling import Sampling

PREFILL = 512
"""Prompt tokens that run at once: bounds the memory of a long prompt."""


def rule_of(settings: Mapping[str, Any]) -> Sampling:
    known = [field.name for field in attrs.fields(Sampling)]
    for name in settings.keys() - {*known}:
        raise ConfigError(f"no setting named {name!r}. {did_you_mean(name, known)}Settings: {', '.join(known)}.")
    return Sampling(**settings)


def room(model: LanguageModel, before: int, max_tokens: int) -> int:
    """`max_tokens`, if so many can follow as many."""
    if max_tokens < 1:
        raise ConfigError(f"max_tokens={max_tokens}: it must be at least 1")
    limit = model.longest()
    if limit is not None and before + max_tokens - 1 > limit:
        raise ConfigError(
            f"{before} tokens and max_tokens={max_tokens} do not fit the model's max_seq_len={limit}; "
            f"at most {max(limit + 1 - before, 0)} can follow"
        )
    return max_tokens


def checked(model: LanguageModel, prompt: Sequence[int]) -> list[int]:
    if isinstance(prompt, str):
        raise ConfigError(f"the prompt is a text, {prompt[:20]!r}; give its tokens: tokenizer.encode(...)")
    tokens = [int(token) for token in prompt]
    vocab_size = model.config.vocab_size
    if not tokens:
        raise ConfigError("the prompt is empty; a model continues at least one token")
    if outside := [token for token in tokens if not 0 <= token < vocab_size]:
        raise ConfigError(f"token {outside[0]} of the prompt is outside the model's vocabulary of {vocab_size}")
    return tokens


def checked_rows(model: LanguageModel, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    if isinstance(prompts, str) or not prompts:
        raise ConfigError(f"prompts={prompts!r:.40}: give a list of prompts, each a list of tokens")
    return [checked(model, prompt) for prompt in prompts]


def kind_of(cache: Any) -> ComponentSpec | None:
    """The kind of cache that a batch makes for itself."""
    if not isinstance(cache, str | ComponentSpec | None):
        raise ConfigError("cache is a kind of cache here, by name or as a spec; a batch makes its own")
    return as_spec(cache)


class Decoding:
    """The rows of a batch that are being continued, one token a step."""

    def __init__(
        self,
        model: LanguageModel,
        rule: Sampling,
        prompts: list[list[int]],
        seeds: list[int] | None,
        caches: list[Sequence[Any]] | None = None,
        kind: ComponentSpec | None = None,
        repeats: int = 1,
    ) -> None:
        """`caches` are somebody's own, to be continued; otherwise they are made, of a `kind`. Each prompt is read once and
        continued in `repeats` rows.
        """
        self.model, self.rule, self.repeats = model, rule, repeats
        self.texts = [list(prompt) for prompt in prompts for _ in range(repeats)]
        self.caches, self.kind, self.horizons = caches, kind, model.horizons()
        before = max((memory.offset for cache in caches or () for memory in cache), default=0)
        self.knows_all = before == 0
        self.lengths = [before + len(text) for text in self.texts]
        self.rows = list(range(len(self.texts)))
        self.keys = None if seeds is None else mx.stack([mx.random.key(seed) for seed in seeds])
        self.seen: array | None = None
        if rule.repetition_penalty is not None:
            self.seen = mx.zeros((len(self.texts), model.config.vocab_size), mx.bool_)
            for row, prompt in enumerate(self.texts):
                self.seen[row, mx.array(prompt)] = True

    def steps(self, max_tokens: int, stop: Container[int]) -> Iterator[list[tuple[int, int]]]:
        """The row and token of all that were drawn; a row that drew one of `stop` has left before the next step."""
        logits, cache = self.begun()
        token, following = self.draw(logits), None
        for left in range(max_tokens - 1, -1, -1):
            if left and self.caches is None:  # the next one is on its way while this one is read
                logits, cache = self.fed(token, cache)
                following = self.draw(logits)
            drawn: Any = token.tolist()
            for text, each in zip(self.texts, drawn, strict=True):
                text.append(each)
            yield list(zip(self.rows, drawn, strict=True))
            going = [i for i, each in enumerate(drawn) if each not in stop]
            if not (going and left):
                return
            if following is None:  # nobody's cache holds a token before it was given out
                logits, cache = self.fed(token, cache)
                following = self.draw(logits)
            token = following if len(going) == len(self.rows) else self.left(going, cache, following)
            following = None

    def begun(self) -> tuple[array, Sequence[Any]]:
        """Logits after the prompts, and their memory, a row for each row to come."""
        logits, cache = self.prefilled(self.texts[:: self.repeats], self.caches)
        if self.repeats == 1:
            return logits, cache
        rows = [row for row in range(len(logits)) for _ in range(self.repeats)]
        for memory in cache:
            chosen(memory, rows)
        return logits[mx.array(rows)], cache

    def fed(self, token: array, cache: Sequence[Any]) -> tuple[array, Sequence[Any]]:
        """Logits after one more token a row. Where that places all before it in another way, it is read again."""
        before, self.lengths = self.lengths, [length + 1 for length in self.lengths]
        if any(length in self.horizons for length in before) and self.can_start_anew(cache):
            tokens: Any = token.tolist()
            texts = [[*text[:n], each] for text, n, each in zip(self.texts, before, tokens, strict=True)]
            return self.prefilled(texts, self.caches)
        return self.logits(token[:, None], cache), cache

    def can_start_anew(self, cache: Sequence[Any]) -> bool:
        """Whether all tokens can be read again: somebody's own cache is then emptied for it."""
        if self.caches is None:
            return True
        if not self.knows_all or not all(memory.is_trimmable() for memory in cache):
            warnings.warn(
                f"beyond {self.lengths[0] - 1} tokens the model's positions place all that came before in another way, but "
                "what the cache holds cannot be read again. What follows differs from what it would be in one pass; give "
                "the whole text as prompt, without a cache.",
                LmxWarning,
                stacklevel=4,
            )
            return False
        for memory in cache:
            memory.trim(self.lengths[0] - 1)
        return True

    def make_caches(self, texts: list[list[int]]) -> list[Sequence[Any]]:
        """One for all rows, padded for them, or, of a kind that takes no padding, one for each."""
        name, options = (None, {}) if self.kind is None else (self.kind.name, self.kind.thawed())
        lengths = [len(text) for text in texts]
        if len(lengths) == 1 or all(hasattr(memory, "pad") for memory in self.model.make_cache(name, **options)):
            padding = [max(lengths) - length for length in lengths]
            padded = {"padding": padding} if any(padding) else {}
            return [self.model.make_cache(name, length=lengths, **padded, **options)]
        return [self.model.make_cache(name, length=[length], **options) for length in lengths]

    def prefilled(
        self, texts: list[list[int]], caches: list[Sequence[Any]] | None = None
    ) -> tuple[array, Sequence[Any]]:
        """Logits after these tokens, and what the model then remembers of them."""
        caches = caches or self.make_caches(texts)
        if self.caches is not None:
            for memory in self.caches[0]:
                if hasattr(memory, "expect"):
                    memory.expect(self.lengths)
        if len(caches) == 1:
            longest = max(map(len, texts))
            filled = [[0] * (longest - len(text)) + text for text in texts]
            return self.prefill(mx.array(filled), caches[0]), caches[0]
        logits = [self.prefill(mx.array([text]), cache) for text, cache in zip(texts, caches, strict=True)]
        first, *others = caches
        for cache in others:
            for memory, other in zip(first, cache, strict=True):
                joined(memory, other)
        return mx.concatenate(logits), first

    def prefill(self, tokens: array, cache: Sequence[Any]) -> array:
        last = (tokens.shape[1] - 1) // PREFILL * PREFILL
        for start in range(0, last, PREFILL):
            with evaluating(self.model):
                self.model.hidden(tokens[:, start : start + PREFILL], cache)
            mx.eval([memory.state for memory in cache])
        return self.logits(tokens[:, last:], cache)

    def logits(self, tokens: array, cache: Sequence[Any]) -> array:
        with evaluating(self.model):
            return self.model(tokens, cache=cache, last_only=True)[0][:, -1]

    def draw(self, logits: array) -> array:
        now = None
        if self.keys is not None:
            both = mx.vmap(mx.random.split)(self.keys)
            self.keys, now = both[:, 0], both[:, 1]
        drawn = self.rule.draw(logits, self.seen, now)
        if self.seen is not None:
            self.seen[mx.arange(len(self.rows)), drawn] = True
        mx.async_eval(drawn)
        return drawn

    def left(self, going: list[int], cache: Sequence[Any], following: array) -> array:
        """What was drawn for the rows that go on, once the others are gone."""
        for memory in cache:
            chosen(memory, going)
        index = mx.array(going)
        for name in ("rows", "texts", "lengths"):
            setattr(self, name, [getattr(self, name)[i] for i in going])
        self.keys = None if self.keys is None else self.keys[index]
        self.seen = None if self.seen is None else self.seen[index]
        return following[index]


def chosen(memory: Any, rows: Sequence[int]) -> None:
    """Go on with these rows of a memory; `ConfigError` where it has none."""
    able(memory, "filter").filter(rows)


def joined(memory: Any, other: Any) -> None:
    """Take the rows of another memory in; `ConfigError` where memories of that kind cannot."""
    able(memory, "extend").extend(other)


def able(memory: Any, method: str) -> Any:
    if not hasattr(memory, method):
        raise ConfigError(
            f"a {type(memory).__name__} cannot join a batch: it has no extend(other) and filter(rows). "
            "Generate for one prompt at a time."
        )
    return memory
