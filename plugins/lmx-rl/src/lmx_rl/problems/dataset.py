"""Problems as a dataset: to be asked, or to be learned with their solutions."""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
from attrs import validators

from lmx_core.config import as_tuple, exact_types
from lmx_core.data.answers import Answers, example, ints
from lmx_core.data.datasets.files import Split, side
from lmx_core.data.documents import Example
from lmx_core.data.prompts import Prompt
from lmx_core.errors import ConfigError, DataError
from lmx_rl.problems.files import problems_of, unique
from lmx_rl.problems.generator import generate, matching
from lmx_rl.problems.problem import INSTRUCTION, Problem


def _texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else as_tuple(value)


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class CodeProblemsOptions:
    """Options of `dataset="code_problems"`."""

    paths: Sequence[str] | str = attrs.field(default=(), converter=_texts)
    """Files of problems in JSON Lines, or the word "handwritten" for those of this package; unless given, problems are
    generated."""
    kinds: Sequence[str] | str = attrs.field(default=("*",), converter=_texts, validator=validators.min_len(1))
    """Which kinds: names, or patterns such as "lists.*"."""
    per_kind: int = attrs.field(default=60, validator=validators.ge(1))
    """Generated problems of each kind, shared out among the difficulties."""
    difficulties: Sequence[int] | None = attrs.field(default=None, converter=as_tuple)
    """Which difficulties; all unless given. Generated problems have 1, 2 and 3."""
    seed: int = attrs.field(default=0, validator=validators.ge(0))
    """Of generated problems."""
    held_out: Sequence[str] | str | None = attrs.field(default=None, converter=_texts)
    """The kinds for validation, as names or patterns; a part of them, chosen by their names, unless given."""
    held_out_share: float = attrs.field(default=0.2, validator=[validators.gt(0), validators.lt(1)])
    """Share of the kinds that is for validation where `held_out` does not say which; one at least."""
    chat: bool = False
    """Whether a model is asked in its chat template, with `instruction` before the prompt."""
    instruction: str = INSTRUCTION
    """What a model that chats is told before the prompt."""
    separator: str = "\n\n"
    """What ends a document, and a solution where the tokenizer has no token that ends a text."""

    def __attrs_post_init__(self) -> None:
        if self.difficulties is not None and not self.difficulties:
            raise ConfigError("difficulties: there are none in the list; leave it out to take all")


class CodeProblems:
    """Functions to be written, with tests. No kind of problem is in both splits.

    For every way to learn: `prompts`, whose `answer` is what `reward.code_tests` needs and whose `about` has the kind and
    difficulty; `encoded`, solutions to be learned after their prompts; `documents`, both as a text.
    """

    Options = CodeProblemsOptions

    def __init__(self, options: CodeProblemsOptions | None = None) -> None:
        self.options = options or CodeProblemsOptions()

    def documents(self, split: Split) -> Iterator[str]:
        return (f"{each.prompt}{each.solution}{self.options.separator}" for each in self._solved(split))

    def encoded(self, tokenizer: Any, split: Split) -> Iterator[Example]:
        answers = Answers.of(tokenizer, self.options.separator)
        for each in self._solved(split):
            solution = f"```python\n{each.prompt}{each.solution}```" if self.options.chat else each.solution or ""
            for prompt, answer in answers.answered([(self._asked(each), solution, None)]):
                yield example(prompt, answer)

    def prompts(self, tokenizer: Any, split: Split) -> Iterator[Prompt]:
        answers = Answers.of(tokenizer)
        for each in self.problems(split):
            tokens, text = answers.asked(self._asked(each))
            yield Prompt(tokens=ints(tokens), text=text, answer=each.task.plain(), about=each.about)

    def problems(self, split: Split) -> Sequence[Problem]:
        """Those of a split, in the order of their files or kinds."""
        held_out = {*self._held_out}
        train, validation = ([each for each in self._all if (each.kind in held_out) is held] for held in (False, True))
        return side(split, train, validation)

    def _asked(self, problem: Problem) -> Any:
        return problem.asked(self.options.instruction if self.options.chat else None)

    def _solved(self, split: Split) -> Sequence[Problem]:
        found = [each for each in self.problems(split) if each.solution is not None]
        if not found:
            raise DataError(
                f"none of the {len(self.problems(split))} problems of the {split} split has a solution to be learned. "
                "Give them one, or train with a trainer that learns from rewards."
            )
        return found

    @functools.cached_property
    def _all(self) -> Sequence[Problem]:
        options = self.options
        if not options.paths:
            return generate(
                kinds=[*options.kinds],
                per_kind=options.per_kind,
                difficulties=options.difficulties or (1, 2, 3),
                seed=options.seed,
            )
        found = unique([problem for path in options.paths for problem in problems_of(path)])
        kinds = {*matching([*options.kinds], _kinds(found))}
        levels = options.difficulties
        chosen = [each for each in found if each.kind in kinds and (levels is None or each.difficulty in levels)]
        if not chosen:
            raise DataError(
                f"{', '.join(options.paths)}: no problem is of the kinds and difficulties that are asked for"
            )
        return chosen

    @functools.cached_property
    def _held_out(self) -> Sequence[str]:
        """Kinds. `DataError` where one side of the split would be empty."""
        kinds = _kinds(self._all)
        if self.options.held_out is not None:
            found = matching([*self.options.held_out], kinds)
        else:
            found = sorted(kinds, key=_digest)[: max(round(len(kinds) * self.options.held_out_share), 1)]
        if len(found) in (0, len(kinds)):
            raise DataError(
                f"the problems are of {len(kinds)} kinds ({', '.join(kinds)}), of which {len(found)} are held out; both "
                "splits need one. Choose held_out, or give problems of more kinds."
            )
        return found


def _kinds(problems: Sequence[Problem]) -> list[str]:
    return [*dict.fromkeys(each.kind for each in problems)]


def _digest(kind: str) -> bytes:
    return hashlib.sha256(kind.encode()).digest()
