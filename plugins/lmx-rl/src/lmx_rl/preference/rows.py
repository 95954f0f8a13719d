"""Prompts with a completion each, as arrays."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from lmx_core.data.prompts import Ints
from lmx_core.data.sources.rows import Arrays
from lmx_core.evaluate import STRETCH

Truncation = Literal["keep_end", "keep_start"]
Numbers = NDArray[np.int64]
Floats = NDArray[np.float32]


@attrs.frozen
class Row:
    """A prompt and what follows it."""

    prompt: Ints
    completion: Ints

    @property
    def targets(self) -> int:
        """The tokens of the completion that something predicts: all, but the first where there is no prompt."""
        return len(self.completion) - (len(self.prompt) == 0)


def shortened(row: Row, longest: int, room: int, how: Truncation) -> Row | None:
    """A row of at most `longest + 1` tokens, which makes `longest` targets; None where nothing of worth would be left.

    `keep_end` takes away the beginning of the prompt, so that `room` tokens fit behind it, and never a part of a
    completion: the row is left out where no token of its prompt would stay. `keep_start` takes away the end of the
    completion, and never a part of the prompt.
    """
    if how == "keep_end":
        kept = min(len(row.prompt), longest + 1 - room)
        whole = kept > 0 or len(row.prompt) == 0
        row = Row(row.prompt[len(row.prompt) - max(kept, 0) :], row.completion)
        return row if whole and len(row.prompt) + room <= longest + 1 else None
    row = Row(row.prompt, row.completion[: max(longest + 1 - len(row.prompt), 0)])
    return row if row.targets > 0 else None


class Rows:
    """Rows of any length, one after another. Row i is `tokens[ends[i - 1] : ends[i]]`; `prompts` are the lengths of prompts.

    A target is a token of a completion that something predicts. `targets` says how many each row has; values of all of
    them stand in one array, those of row i from `firsts[i]` on.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        listed = list(rows)
        empty = np.zeros(0, np.int32)
        self.tokens: Ints = np.concatenate([empty, *(part for row in listed for part in (row.prompt, row.completion))])
        self.tokens = self.tokens.astype(np.int32)
        lengths = np.array([len(row.prompt) + len(row.completion) for row in listed], np.int64)
        self.ends: Numbers = np.cumsum(lengths)
        self.prompts: Numbers = np.array([len(row.prompt) for row in listed], np.int64)
        self.targets: Numbers = np.array([row.targets for row in listed], np.int64)
        self.inputs: Numbers = lengths - 1
        """What is read of each row: all but the last token."""
        self.firsts: Numbers = np.cumsum(self.targets) - self.targets
        self.widths = int(self.inputs.max(initial=0)), int(self.targets.max(initial=0))
        self.largest = int(self.tokens.max(initial=0))

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def sha256(self) -> str:
        """Of the tokens, of where rows end and where their prompts do."""
        digest = hashlib.sha256()
        for array in (self.tokens, self.ends, self.prompts):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def batch(self, numbers: Sequence[int] | Numbers) -> Arrays:
        """`inputs`, (B, L), rows filled up behind; `targets`, `mask`, (B, C), the completions; `starts`, (B,), the input
        behind which the first target comes.

        L and C are multiples of 32, so that few shapes are compiled, but not more than the longest of all rows needs.
        """
        length, width = self.width(self.inputs[numbers], 0), self.width(self.targets[numbers], 1)
        inputs, targets = (np.zeros((len(numbers), size), np.int32) for size in (length, width))
        for place, number in enumerate(numbers):
            end, read, count = self.ends[number], self.inputs[number], self.targets[number]
            inputs[place, :read] = self.tokens[end - 1 - read : end - 1]
            targets[place, :count] = self.tokens[end - count : end]
        starts = (self.inputs[numbers] - self.targets[numbers]).astype(np.int32)
        mask = np.arange(width) < self.targets[numbers][:, None]
        return {"inputs": inputs, "targets": targets, "mask": mask, "starts": starts}

    def width(self, lengths: Numbers, which: int) -> int:
        return min(-(-int(lengths.max()) // STRETCH) * STRETCH, self.widths[which])

    def spread(self, values: Floats, numbers: Sequence[int] | Numbers) -> Floats:
        """Values of targets as (B, C), like `targets` of a batch; 0 behind them."""
        found = np.zeros((len(numbers), self.width(self.targets[numbers], 1)), np.float32)
        for place, number in enumerate(numbers):
            first, count = self.firsts[number], self.targets[number]
            found[place, :count] = values[first : first + count]
        return found

    def gather(self, values: Floats, numbers: Sequence[int] | Numbers, spread: Floats) -> None:
        """Write into `values` what stands in a (B, C) array of these rows: `spread` the other way round."""
        for place, number in enumerate(numbers):
            first, count = self.firsts[number], self.targets[number]
            values[first : first + count] = spread[place, :count]
