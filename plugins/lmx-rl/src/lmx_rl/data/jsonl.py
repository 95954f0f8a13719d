"""Rows of your own: texts, answers, comparisons and questions."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import numpy as np
from attrs import validators

from lmx_core.config import Field, exact_types
from lmx_core.data.answers import Answers, Continued, example, ints
from lmx_core.data.datasets.files import Split, in_order, matching, side
from lmx_core.data.datasets.rows import share
from lmx_core.data.documents import Example
from lmx_core.data.prompts import Ints, Judged, Pair, Prompt
from lmx_core.errors import ConfigError, DataError, did_you_mean
from lmx_rl.data.lines import Row, rows_of

T = TypeVar("T")
CHUNK = 1000
"""Rows that become tokens together."""
ROLES = ("text", "messages", "prompt", "completion", "label", "chosen", "rejected", "answer", "tools")
ASKED = ("prompt", "answer", "tools")


def _paths(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else value


def _not_empty(instance: object, attribute: Field, value: Sequence[Any]) -> None:
    if not value or not all(value):
        raise ValueError(f"must name files, got {value!r}")


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class JSONLinesOptions:
    """Options of `dataset="jsonl"`."""

    paths: Sequence[str] | str = attrs.field(converter=_paths, validator=_not_empty)
    """Files, globs (`**` for any depth) and directories, or one of them; `~` is the home directory."""
    suffixes: Sequence[str] | str = attrs.field(default=(".jsonl",), converter=_paths, validator=_not_empty)
    """What is read of a directory, at any depth, hidden files and directories left out."""
    validation_paths: Sequence[str] | str = attrs.field(default=(), converter=_paths)
    """What is held out instead of a fraction, and left out of the training split where `paths` names it too."""
    validation_fraction: float = attrs.field(default=0.1, validator=[validators.ge(0), validators.lt(1)])
    """Share of the rows that is held out, by what they ask: all rows with one prompt are on one side."""
    columns: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """The names of fields that are called otherwise: `{ prompt = "question", answer = "solution" }`."""
    end: str = ""
    """What ends an answer where the tokenizer has no token that does."""
    separator: str = "\n"
    """What ends each document where documents are text."""

    def __attrs_post_init__(self) -> None:
        for role, name in self.columns.items():
            if role not in ROLES:
                raise ConfigError(f"columns: no {role!r}. {did_you_mean(role, ROLES)}There are {', '.join(ROLES)}.")
            if [*self.columns.values()].count(name) > 1:
                raise ConfigError(f"columns: {name!r} stands for several fields. Give each its own.")


class JSONLines:
    """A table in each line of a file. Its fields say what it is for; other fields, and blank lines, are left aside.

    `text`: learned as a whole. `prompt` and `completion`, or `messages` of roles and contents: what answers is learned,
    unless `label` is false. `prompt`, `chosen` and `rejected`: `pairs`. `prompt`, `completion` and `label`, true or
    false: `judged`, which takes pairs apart. `prompt`: `prompts`, with the `answer` that rewards are told, and all
    other fields. Prompts and answers are texts, or messages, which need a tokenizer with a chat template; `tools` goes
    with them.

    `DataError` names the file, the line and the field of a row that lacks what is asked for.
    """

    Options = JSONLinesOptions

    def __init__(self, options: JSONLinesOptions) -> None:
        self.options = options

    def documents(self, split: Split) -> Iterator[str]:
        """Texts, and prompts with each of their answers."""
        for row in self._rows(split):
            yield from (f"{text}{self.options.separator}" for text in _texts(row) if text)

    def encoded(self, tokenizer: Any, split: Split) -> Iterator[Example] | None:
        """None where rows are texts. `DataError` for those that only a trainer of another kind learns from."""
        rows = self._rows(split)
        first = next(rows)
        rows = itertools.chain([first], rows)
        answers = self._answers(tokenizer)
        if "messages" in first:
            return _each(rows, lambda row: _conversation(answers, row))
        if "completion" in first:
            good = (row for row in rows if row.fields.get("label") is not False)
            return (example(*found) for _, found in _answered(answers, good))
        if "text" in first:
            return None
        kind = "dpo" if "chosen" in first else "grpo"
        raise first.error(
            f"it has {', '.join(first.fields)}, of which nothing is learned as a text. Rows with text, messages, or prompt "
            f'and completion are; these need another trainer: train.trainer = "{kind}", or see `lmx list trainer`.'
        )

    def pairs(self, tokenizer: Any, split: Split) -> Iterator[Pair]:
        return _pairs(self._answers(tokenizer), self._rows(split))

    def judged(self, tokenizer: Any, split: Split) -> Iterator[Judged]:
        """Answers with a label; pairs, where the first row is one, taken apart into a good one and another."""
        rows = self._rows(split)
        first = next(rows)
        rows = itertools.chain([first], rows)
        answers = self._answers(tokenizer)
        if "chosen" in first and "completion" not in first:
            for pair in _pairs(answers, rows):
                yield from pair.apart()
            return
        for row, (prompt, completion) in _answered(answers, rows):
            _begun(row, prompt)
            yield Judged(ints(prompt), ints(completion), good=row.flag("label"))

    def prompts(self, tokenizer: Any, split: Split) -> Iterator[Prompt]:
        answers = self._answers(tokenizer)
        return _each(self._rows(split), lambda row: _question(answers, row))

    def _answers(self, tokenizer: Any) -> Answers:
        return Answers.of(tokenizer, self.options.end)

    def _rows(self, split: Split) -> Iterator[Row]:
        """Those of a split. `DataError` where there are none."""
        chosen = self.options
        held_out = side(split, False, True)
        apart = bool(chosen.validation_paths)
        held = _files(chosen.validation_paths, chosen.suffixes) if apart else []
        files = (
            held if held_out and apart else [file for file in _files(chosen.paths, chosen.suffixes) if file not in held]
        )
        count = 0
        for row in rows_of(files, chosen.columns):
            if apart or (share(row.fields) < chosen.validation_fraction) == held_out:
                count += 1
                yield row
        if not count:
            raise DataError(
                f"no row of {', '.join(chosen.validation_paths if held_out and apart else chosen.paths)} is for {split}. "
                "Give more rows, another validation_fraction, or files of their own, validation_paths."
            )


def _files(paths: Sequence[str], suffixes: Sequence[str]) -> list[Path]:
    found = {Path(os.path.realpath(file)) for path in paths for file in matching(path, tuple(suffixes))}
    return in_order(found, Path(os.path.commonpath([file.parent for file in found])))


def _texts(row: Row) -> Iterator[str]:
    roles = [role for role in ("completion", "chosen", "rejected") if role in row]
    said = [row.said(role) for role in ("prompt", *roles) if role in row]
    if "messages" in row or not all(isinstance(each, str) for each in said):
        raise row.error(
            'messages become text by a chat template, which a tokenizer has: take one, such as data.tokenizer "hf"'
        )
    if "prompt" in row:
        yield from (row.text("prompt") + answer for answer in map(row.text, roles)) if roles else [row.text("prompt")]
    else:
        yield row.text("text")


def _prompt(row: Row) -> Any:
    """Whole conversations need none of their own."""
    whole = "prompt" not in row and not isinstance(row.fields.get("chosen"), str)
    return None if whole else row.said("prompt")


def _tools(row: Row) -> Any:
    return row.fields.get("tools")


def _conversation(answers: Answers, row: Row) -> Example:
    tokens, learn = answers.chat(row.messages("messages"), _tools(row))
    return Example(ints(tokens), np.array(learn, np.bool_))


def _question(answers: Answers, row: Row) -> Prompt:
    tokens, text = answers.asked(row.said("prompt"), _tools(row))
    _begun(row, tokens)
    about = {name: value for name, value in row.fields.items() if name not in ASKED}
    return Prompt(tokens=ints(tokens), text=text, answer=row.fields.get("answer"), about=about)


def _begun(row: Row, prompt: Sequence[int] | Ints) -> None:
    if not len(prompt):
        raise row.error("its prompt has no tokens, and an answer needs one to begin with. Give it a text.")


def _pairs(answers: Answers, rows: Iterable[Row]) -> Iterator[Pair]:
    """The tokens of comparisons."""

    def found(part: Sequence[Row]) -> Iterable[Pair]:
        return answers.pairs(
            [(_prompt(row), row.answer("chosen"), row.answer("rejected"), _tools(row)) for row in part]
        )

    for row, pair in _together(rows, found):
        _begun(row, pair.prompt)
        yield pair


def _answered(answers: Answers, rows: Iterable[Row]) -> Iterator[tuple[Row, Continued]]:
    """The tokens of completions."""
    return _together(
        rows,
        lambda part: answers.answered([(row.said("prompt"), row.answer("completion"), _tools(row)) for row in part]),
    )


def _together(rows: Iterable[Row], made: Callable[[Sequence[Row]], Iterable[T]]) -> Iterator[tuple[Row, T]]:
    """Rows, and what is made of many of them at once."""
    rows = iter(rows)
    while part := [*itertools.islice(rows, CHUNK)]:
        try:
            found = [*made(part)]
        except DataError:  # whose is it?
            found = [*_each(part, lambda row: next(iter(made([row]))))]
        yield from zip(part, found, strict=True)


def _each(rows: Iterable[Row], made: Callable[[Row], T]) -> Iterator[T]:
    """What is made of each row. An error, such as of a tokenizer, is told with the row that it is of."""
    for row in rows:
        try:
            found = made(row)
        except DataError as error:
            raise (error if str(error).startswith(row.place) else row.error(str(error))) from None
        yield found
