"""What a run reads that learns from comparisons, as tokens."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from lmx_core.construct import build
from lmx_core.data.corpus import DataConfig, tokenizer_of
from lmx_core.data.prompts import Judged, Pair
from lmx_core.data.reading import shares_of
from lmx_core.errors import ConfigError, DataError, LmxError
from lmx_core.protocols import Tokenizer
from lmx_core.registry import registry
from lmx_rl.preference.rows import Row, Rows, Truncation, shortened

Bools = NDArray[np.bool_]


@attrs.frozen(eq=False, kw_only=True)
class Split:
    """Pairs, of which rows 2 i and 2 i + 1 are one, or completions that were judged."""

    rows: Rows
    good: Bools | None = None
    """Of each completion, where they were judged."""
    left_out: int
    """Pairs, or completions, that do not fit into `train.seq_len`."""

    @property
    def count(self) -> int:
        return len(self.rows) // (2 if self.good is None else 1)

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(self.rows.sha256.encode())
        digest.update(b"" if self.good is None else self.good.tobytes())
        return digest.hexdigest()


@attrs.frozen(eq=False, kw_only=True)
class Comparisons:
    """Training and held-out comparisons, and the tokenizer that made tokens of them."""

    tokenizer: Any
    train: Split
    validation: Split
    what: str = "pairs"
    """What they are, as a summary counts them."""

    @property
    def identity(self) -> str:
        return self.train.sha256

    @property
    def held_out(self) -> Mapping[str, str]:
        return {"all": self.validation.sha256}

    @property
    def beginning(self) -> Sequence[int]:
        """The first held-out prompt."""
        rows = self.validation.rows
        return rows.tokens[: rows.prompts[0]].tolist()

    def fingerprint(self) -> dict[str, Any]:
        splits = {"train": self.train, "validation": self.validation}
        found: dict[str, Any] = {f"{name}_{self.what}": split.count for name, split in splits.items()}
        found |= {f"{name}_sha256": split.sha256 for name, split in splits.items()}
        return found | {f"{name}_left_out": split.left_out for name, split in splits.items() if split.left_out}


def read_pairs(
    config: DataConfig, longest: int, how: Truncation = "keep_end", tokenizer: Tokenizer | None = None
) -> Comparisons:
    """The pairs of a dataset that has some: `ConfigError` where it has none, `DataError` where one has an empty completion
    or none fits into `longest` targets.
    """

    def split(which: str, pairs: Iterable[Pair]) -> Split:
        return pairs_of(pairs, longest, how, which)

    return _read(config, tokenizer, "pairs", split)


def read_judged(
    config: DataConfig, longest: int, how: Truncation = "keep_end", tokenizer: Tokenizer | None = None
) -> Comparisons:
    """The judged completions of a dataset, or its pairs taken apart where it has none."""

    def split(which: str, judged: Iterable[Judged]) -> Split:
        return judged_of(judged, longest, how, which)

    def apart(which: str, pairs: Iterable[Pair]) -> Split:
        return judged_of(taken_apart(pairs), longest, how, which)

    dataset = build("dataset", config.dataset)
    if _offered(dataset, "judged") is None and _offered(dataset, "pairs") is not None:
        return attrs.evolve(_read(config, tokenizer, "pairs", apart), what="judged")
    return _read(config, tokenizer, "judged", split)


def pairs_of(pairs: Iterable[Pair], longest: int, how: Truncation = "keep_end", where: str = "") -> Split:
    """Pairs as rows; those that do not fit are left out, both completions behind the same part of the prompt."""
    kept: list[Row] = []
    left_out = 0
    for number, pair in enumerate(pairs):
        both = Row(pair.prompt, pair.chosen), Row(pair.prompt, pair.rejected)
        for name, row in zip(("chosen", "rejected"), both, strict=True):
            _check(row, f"{where} pair {number}".strip(), f"{name} completion")
        room = max(len(row.completion) for row in both)
        found = [shortened(row, longest, room, how) for row in both]
        fitting = [row for row in found if row is not None]
        kept += fitting if len(fitting) == 2 else []
        left_out += len(fitting) < 2
    return Split(rows=_some(kept, left_out, longest, how, where, "pairs"), left_out=left_out)


def judged_of(judged: Iterable[Judged], longest: int, how: Truncation = "keep_end", where: str = "") -> Split:
    """Judged completions as rows; those that do not fit are left out."""
    kept: list[Row] = []
    good: list[bool] = []
    left_out = 0
    for number, each in enumerate(judged):
        row = Row(each.prompt, each.completion)
        _check(row, f"{where} completion {number}".strip(), "completion")
        found = shortened(row, longest, len(row.completion), how)
        kept += [found] if found else []
        good += [each.good] if found else []
        left_out += found is None
    rows = _some(kept, left_out, longest, how, where, "completions")
    return Split(rows=rows, good=np.array(good, np.bool_), left_out=left_out)


def taken_apart(pairs: Iterable[Pair]) -> Iterator[Judged]:
    """Of each pair the chosen completion as a good one, the rejected one as another."""
    for pair in pairs:
        yield from pair.apart()


def mismatched(rows: Rows, longest: int) -> Rows:
    """Each prompt with a completion that answers another one: of the rows from half of all further on, the first whose
    prompt differs. A completion too long for `longest` targets loses its end.
    """
    prompts, completions = [*_parts(rows, first=True)], [*_parts(rows, first=False)]
    known: dict[bytes, int] = {}
    kinds = np.array([known.setdefault(prompt.tobytes(), len(known)) for prompt in prompts])
    places = (np.arange(len(rows)) + len(rows) // 2) % len(rows)
    begins = np.flatnonzero(kinds != np.roll(kinds, 1))  # of prompts that differ from the one before
    if len(begins):
        further = begins[np.searchsorted(begins, places, side="right") % len(begins)]
        places = np.where(kinds[places] == kinds, further, places)
    pairs = zip(prompts, places.tolist(), strict=True)
    return Rows(Row(prompt, completions[place][: longest + 1 - len(prompt)]) for prompt, place in pairs)


def _parts(rows: Rows, first: bool) -> Iterator[NDArray[np.int32]]:
    begins = rows.ends - rows.inputs - 1
    for begin, length, end in zip(begins.tolist(), rows.prompts.tolist(), rows.ends.tolist(), strict=True):
        yield rows.tokens[begin : begin + length] if first else rows.tokens[begin + length : end]


def _check(row: Row, where: str, what: str) -> None:
    if len(row.completion) == 0:
        raise DataError(f"{where}: its {what} is empty, so that there is nothing to compare. Leave such rows out.")
    if row.targets <= 0:
        raise DataError(
            f"{where}: its prompt is empty and its {what} is one token, which nothing predicts. Give it a prompt, if only "
            "the token that begins every text."
        )


def _some(kept: Sequence[Row], left_out: int, longest: int, how: Truncation, where: str, what: str) -> Rows:
    if kept:
        return Rows(kept)
    if not left_out:
        raise DataError(f"the dataset has no {f'{where} {what}'.strip()}. Both splits need some.")
    too_long = "completion" if how == "keep_end" else "prompt"
    raise DataError(
        f"none of {left_out} {f'{where} {what}'.strip()} fits into train.seq_len={longest} tokens: every {too_long} is "
        "longer. Raise train.seq_len."
    )


def _read(
    config: DataConfig, tokenizer: Tokenizer | None, what: str, split: Callable[[str, Iterable[Any]], Split]
) -> Comparisons:
    dataset = build("dataset", config.dataset)
    offered = _offered(dataset, what)
    if offered is None:
        raise _has_none(config, what)
    known = tokenizer_of(config, shares_of(dataset, config.dataset), tokenizer)
    found = [offered(known, which) for which in ("train", "validation")]
    if any(each is None for each in found):
        raise _has_none(config, what)
    train, validation = (split(which, each) for which, each in zip(("training", "held-out"), found, strict=True))
    return Comparisons(tokenizer=known, train=train, validation=validation, what=what)


def _offered(dataset: Any, what: str) -> Any:
    return getattr(dataset, what, None)


def _has_none(config: DataConfig, what: str) -> ConfigError:
    having = [ref.name for ref in registry("dataset").refs() if _has(ref.qualified, what)]
    known = (
        f"Of those installed these may have some: {', '.join(sorted(having))}."
        if having
        else "None installed has some."
    )
    meant = "completions that were judged" if what == "judged" else what
    return ConfigError(f"data.dataset={config.dataset.name!r} has no {meant} to learn from. {known}")


def _has(name: str, what: str) -> bool:
    try:
        return hasattr(registry("dataset").get(name), what)
    except LmxError:
        return False
