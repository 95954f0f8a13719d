"""Any dataset of the library `datasets` as text, as examples, or as packed rows of tokens."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
from attrs import validators

from lmx_core.config import exact_types
from lmx_core.data.documents import Example
from lmx_core.data.prompts import Judged, Pair, Prompt
from lmx_core.errors import ConfigError, DataError, did_you_mean
from lmx_core.serialize import plain
from lmx_hf.data.examples import Encoder
from lmx_hf.data.opening import opened
from lmx_hf.data.packing import PackedRows, Source, Stream
from lmx_hf.data.rows import OPTIONAL, ROLES, Columns, Format, Row, Rows, Wanted

Split = Literal["train", "validation"]
LEARNED: tuple[Format, ...] = ("text", "prompt", "messages")
TRAINERS: Mapping[Format, str] = {
    "preference": 'a preference trainer, such as train.trainer = "dpo" of lmx-rl, which reads them as pairs(tokenizer)',
    "question": 'a trainer that asks, such as train.trainer = "grpo" of lmx-rl, which reads them as prompts(tokenizer)',
}
"""What learns from rows that are neither texts nor answers."""


def _files(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else value


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class HFDatasetOptions:
    """Options of `dataset="hf"`."""

    path: str
    """A name on the hub, a folder that `save_to_disk` wrote or that holds files of data, or what reads `data_files`: "json"
    (also jsonl), "text" (a row a line), "parquet", "csv" or "arrow"."""
    name: str | None = None
    """One of the several configurations that a dataset may have."""
    split: str = "train"
    """What is read; a part of it is held out, unless `validation_split` or `validation_files` are."""
    data_files: Sequence[str] | str = attrs.field(default=(), converter=_files)
    """Files and globs."""
    revision: str | None = None
    """A branch, tag or commit on the hub."""
    streaming: bool = True
    """Read as it is used, in memory that does not grow. False downloads and keeps all of it first."""
    format: Literal["auto", "text", "prompt", "messages", "preference"] = "auto"
    """What the rows are: `text`; `prompt` and `completion`, with a `label` that may be false for what is not to be learned;
    `messages` of roles and contents; `prompt`, `chosen` and `rejected`. Unless given, the columns tell."""
    columns: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """The names of columns that are called otherwise: `{ text = "content" }`."""
    shuffle_buffer: int = attrs.field(default=0, validator=validators.ge(0))
    """How many rows are read and shuffled together, for training; 0 leaves them in order."""
    seed: int = attrs.field(default=0, validator=validators.ge(0))
    """Of the shuffling."""
    validation_split: str | None = None
    """The split that is held out instead of a fraction."""
    validation_files: Sequence[str] | str = attrs.field(default=(), converter=_files)
    """The files that are held out instead of a fraction."""
    validation_fraction: float = attrs.field(default=0.1, validator=[validators.ge(0), validators.lt(1)])
    """Share of the rows that is held out, by what they say: equal texts, and answers to one prompt, are on one side."""
    separator: str = "\n"
    """What ends each document where documents are text: `lmx train` puts one after another."""

    def __attrs_post_init__(self) -> None:
        if not self.path.strip():
            raise ConfigError("path: it is empty. Give a name on the hub, a folder, or what reads data_files.")
        known = [*dict.fromkeys(role for roles in (*ROLES.values(), *OPTIONAL.values()) for role in roles)]
        for role in self.columns:
            if role not in known:
                raise ConfigError(f"columns: no {role!r}. {did_you_mean(role, known)}There are {', '.join(known)}.")
        if self.validation_split is not None and self.validation_files:
            raise ConfigError("validation_split and validation_files: give one of them")


class HFDataset:
    """Rows of text, of prompts and completions, of messages or of preferences, in an order that the options alone decide.

    `lmx train` reads rows of text as `documents` and others as `encoded`: it learns completions, and what the assistant
    says. `packed`, `examples` and `pairs` give tokens, and may be left and taken up at any place.
    """

    Options = HFDatasetOptions

    def __init__(self, options: HFDatasetOptions) -> None:
        self.options = options

    def documents(self, split: Split) -> Iterable[str]:
        """Texts, or prompts with each of their answers, with the separator behind each."""
        for _, columns, rows in self._rows(split).chunks({}):
            for row in rows:
                yield from (text + self.options.separator for text in self._texts(columns, row))

    def encoded(self, tokenizer: Any, split: Split) -> Iterable[Example] | None:
        """Rows of prompts and of messages as examples, of which the answers are learned; None where rows are text.

        `DataError` for preferences, which are pairs, and for prompts without an answer.
        """
        kind = self._format
        if kind in TRAINERS:
            columns = ROLES[kind]
            raise DataError(
                f'{self._rows("train").where} has rows of format "{kind}", of which nothing is learned as a text: they need '
                f"{TRAINERS[kind]}. Or choose a column that holds a text: "
                f'format = "text", columns = {{ text = "{columns[0]}" }}.'
            )
        return None if kind == "text" else self.examples(tokenizer, split)

    @functools.cached_property
    def _format(self) -> Format:
        """What the rows are: the first of them tell, unless the options do."""
        wanted = self.options.format
        return next(columns.format for _, columns, _ in self._rows("train").chunks({})) if wanted == "auto" else wanted

    def packed(
        self,
        tokenizer: Any,
        seq_len: int,
        split: Split = "train",
        *,
        epochs: int | None = 1,
        begin: Sequence[int] | None = None,
        end: Sequence[int] | None = None,
    ) -> PackedRows:
        """Rows of `seq_len` tokens: one document after another, each between `begin` and `end`.

        These are, unless given, what the tokenizer puts before a text (`<s>`, where it does) and its `eos_token`; without
        one, the separator. Messages are written by the chat template alone. `epochs=None` never ends.
        """
        return PackedRows(self._source(tokenizer, split, LEARNED, epochs, begin, end, seq_len=seq_len), seq_len)

    def examples(
        self,
        tokenizer: Any,
        split: Split = "train",
        *,
        epochs: int | None = 1,
        begin: Sequence[int] | None = None,
        end: Sequence[int] | None = None,
    ) -> Stream[Example]:
        """The rows one by one as tokens, with what of them is to be learned; otherwise as `packed`."""
        return Stream[Example](self._source(tokenizer, split, LEARNED, epochs, begin, end))

    def pairs(
        self,
        tokenizer: Any,
        split: Split = "train",
        *,
        epochs: int | None = 1,
        begin: Sequence[int] | None = None,
        end: Sequence[int] | None = None,
    ) -> Stream[Pair]:
        """The tokens of preference rows; otherwise as `packed`."""
        return Stream[Pair](self._source(tokenizer, split, ("preference",), epochs, begin, end))

    def judged(
        self,
        tokenizer: Any,
        split: Split = "train",
        *,
        epochs: int | None = 1,
        begin: Sequence[int] | None = None,
        end: Sequence[int] | None = None,
    ) -> Iterable[Judged]:
        """The tokens of rows that have a `prompt`, a `completion` and a `label`, true or false, otherwise as `packed`; of
        preference rows the better answer as a good one, and the other.
        """
        if self._format == "preference":
            pairs = self.pairs(tokenizer, split, epochs=epochs, begin=begin, end=end)
            return (judged for pair in pairs for judged in pair.apart())
        return Stream[Judged](self._source(tokenizer, split, ("judged",), epochs, begin, end))

    def prompts(
        self,
        tokenizer: Any,
        split: Split = "train",
        *,
        epochs: int | None = 1,
        begin: Sequence[int] | None = None,
    ) -> Stream[Prompt]:
        """What rows with a `prompt` ask, with their `answer`, if they have one, and with their other columns."""
        return Stream[Prompt](self._source(tokenizer, split, ("question",), epochs, begin, ()))

    def _source(
        self,
        tokenizer: Any,
        split: Split,
        formats: tuple[Format, ...],
        epochs: int | None,
        begin: Sequence[int] | None,
        end: Sequence[int] | None,
        **more: Any,
    ) -> Source:
        ends = getattr(tokenizer, "eos_tokens", ())[:1] or tokenizer.encode(self.options.separator)
        before = getattr(tokenizer, "prefix", ())
        encode = Encoder(tokenizer, [*(before if begin is None else begin)], [*(ends if end is None else end)])
        signature = {**plain(self.options), "of": split, "begin": encode.begin, "end": encode.end, **more}
        (first, *_) = formats
        wanted = first if first in ("judged", "question") else self.options.format
        return Source(rows=self._rows(split, epochs, wanted), encode=encode, formats=formats, signature=signature)

    def _rows(self, split: Split, epochs: int | None = 1, wanted: Wanted | None = None) -> Rows:
        if split not in ("train", "validation"):
            raise DataError(f"there is no split {split!r}; there are 'train' and 'validation'")
        chosen, held_out = self.options, split == "validation"
        apart = chosen.validation_split is not None or bool(chosen.validation_files)
        fraction = chosen.validation_fraction
        if held_out and not apart and not fraction:
            raise DataError("validation_fraction=0 holds nothing out. Give it, validation_split or validation_files.")
        name = (chosen.validation_split if held_out else None) or chosen.split
        files = (chosen.validation_files if held_out else ()) or chosen.data_files
        opening = functools.partial(
            opened, chosen.path, chosen.name, name, tuple(files), chosen.revision, chosen.streaming
        )
        return Rows(
            opened=opening,
            where=f"{', '.join(files) or chosen.path} ({name})",
            format=wanted or chosen.format,
            names=chosen.columns,
            keep=(lambda share: (share < fraction) == held_out) if fraction and not apart else None,
            block=0 if held_out else chosen.shuffle_buffer,
            seed=chosen.seed,
            epochs=epochs,
        )

    def _texts(self, columns: Columns, row: Row) -> Iterator[str]:
        answers = {"preference": ("chosen", "rejected"), "prompt": ("completion",), "judged": ("completion",)}
        prompt, found = row.get("prompt", ""), [row[role] for role in answers.get(columns.format, ())]
        if columns.format == "messages" or not all(isinstance(each, str) for each in (prompt, *found)):
            raise DataError(
                f'rows of format "{columns.format}" become text by a chat template, which a tokenizer has: train with such a '
                'tokenizer (name = "hf"), or read them as packed(tokenizer, seq_len), examples(tokenizer) or '
                "pairs(tokenizer)."
            )
        if columns.format == "text":
            yield row["text"]
        elif not found:
            yield prompt
        yield from (prompt + each for each in found)
