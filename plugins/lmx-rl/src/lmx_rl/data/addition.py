"""Sums of two numbers, written so that a small model can learn them."""

import functools
from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
from attrs import validators
from numpy.typing import NDArray

from lmx_core.config import exact_types
from lmx_core.data.answers import Answers, example, ints
from lmx_core.data.datasets.files import Split, side
from lmx_core.data.documents import Example
from lmx_core.data.prompts import Judged, Pair, Prompt
from lmx_core.errors import ConfigError

CHUNK = 1000
"""Problems that become tokens together."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class AdditionOptions:
    """Options of `dataset="addition"`."""

    digits: int = attrs.field(default=2, validator=[validators.ge(1), validators.le(3)])
    """Of each of the two numbers, with leading zeros."""
    held_out: int = attrs.field(default=1000, validator=validators.ge(1))
    """How many of the problems are for validation: of two digits there are 10,000."""
    seed: int = attrs.field(default=0, validator=validators.ge(0))
    """Of the order of the problems, which decides what is held out, and of the wrong answers."""

    def __attrs_post_init__(self) -> None:
        if self.held_out >= self.problems:
            raise ConfigError(
                f"held_out={self.held_out} leaves nothing to train on: of digits={self.digits} there are {self.problems} "
                "problems. Hold out fewer."
            )

    @property
    def problems(self) -> int:
        return 100**self.digits


@attrs.frozen
class Sum:
    """A problem."""

    prompt: str
    """As in `12+34=`."""
    right: str
    """The sum with its last digit first, one digit more than the numbers have: 46 is `640`."""
    wrong: str
    """Some other number, written alike."""


class Addition:
    """All sums of two numbers of so many digits, each once: `12+34=` and `640`, which is 046 backwards.

    Written backwards, each digit needs only what stands before it. For every way to learn: whole texts (`documents`),
    answers (`encoded`), right ones against wrong ones (`pairs`), right or wrong ones, each of half of the problems
    (`judged`), and questions (`prompts`), whose `answer` is the text that is right. Twelve characters are enough for these;
    a document of `documents` has a line break behind it as the thirteenth.
    """

    Options = AdditionOptions

    def __init__(self, options: AdditionOptions | None = None) -> None:
        self.options = options or AdditionOptions()

    def documents(self, split: Split) -> Iterator[str]:
        return (f"{each.prompt}{each.right}\n" for each in self.sums(split))

    def encoded(self, tokenizer: Any, split: Split) -> Iterator[Example]:
        for _, (prompt, right), _ in self._tokens(tokenizer, split):
            yield example(prompt, right)

    def pairs(self, tokenizer: Any, split: Split) -> Iterator[Pair]:
        for _, (prompt, right), (_, wrong) in self._tokens(tokenizer, split):
            yield Pair(ints(prompt), ints(right), ints(wrong))

    def judged(self, tokenizer: Any, split: Split) -> Iterator[Judged]:
        for i, (_, right, wrong) in enumerate(self._tokens(tokenizer, split)):
            prompt, completion = wrong if i % 2 else right
            yield Judged(ints(prompt), ints(completion), good=i % 2 == 0)

    def prompts(self, tokenizer: Any, split: Split) -> Iterator[Prompt]:
        answers = Answers.of(tokenizer)
        for each in self.sums(split):
            tokens, text = answers.asked(each.prompt)
            yield Prompt(tokens=ints(tokens), text=text, answer=each.right)

    def sums(self, split: Split) -> Iterator[Sum]:
        """The problems of a split."""
        order, offsets = self._drawn
        held_out = self.options.held_out
        chosen = side(split, slice(held_out, None), slice(held_out))
        return map(self._sum, order[chosen].tolist(), offsets[chosen].tolist())

    def _sum(self, number: int, offset: int) -> Sum:
        digits, one = self.options.digits, 10**self.options.digits
        a, b = divmod(number, one)
        answers = (a + b, (a + b + offset) % (10 * one))
        right, wrong = (f"{answer:0{digits + 1}}"[::-1] for answer in answers)
        return Sum(f"{a:0{digits}}+{b:0{digits}}=", right, wrong)

    @functools.cached_property
    def _drawn(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The problems in their order, and by what the wrong answer to each is off."""
        draw = np.random.default_rng(self.options.seed)
        order = draw.permutation(self.options.problems)
        return order, draw.integers(1, 10 ** (self.options.digits + 1), len(order))

    def _tokens(self, tokenizer: Any, split: Split) -> Iterator[tuple[Sum, Any, Any]]:
        """Each problem, and the tokens of its prompt with the right answer and with the wrong one."""
        answers = Answers.of(tokenizer)
        sums = [*self.sums(split)]
        for start in range(0, len(sums), CHUNK):
            part = sums[start : start + CHUNK]
            right = answers.answered([(each.prompt, each.right, None) for each in part])
            wrong = answers.answered([(each.prompt, each.wrong, None) for each in part])
            yield from zip(part, right, wrong, strict=True)
