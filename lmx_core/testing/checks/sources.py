"""What holds for sources of training samples and for curricula."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from lmx_core.construct import build
from lmx_core.data.documents import Documents
from lmx_core.errors import DataError
from lmx_core.testing.candidate import Candidate
from lmx_core.testing.subjects import current_seed

LATER = (0, 1, 7, 1000)
"""Epochs."""
STEPS = (0, 1, 40, 10**6)
NAMES = {"inputs": np.int32, "targets": np.int32, "mask": np.bool_, "segments": np.int32}
Sources = Callable[[], Any]


def _documents(**changes: Any) -> Documents:
    """Sixty of 1 to 40 tokens, no two of which are the same, read-only."""
    lengths = np.random.default_rng(current_seed()).permutation(np.arange(60) % 40 + 1)
    ends = np.cumsum(lengths)
    tokens = np.arange(1, ends[-1] + 1, dtype=np.int32)
    tokens.flags.writeable = False
    return attrs.evolve(Documents(tokens, ends), **changes)


def _made(source: Candidate, documents: Documents) -> Any:
    return build(source.kind, source.chosen, documents, source.config)


class _Lines:
    """A source of rows by number: of 1 to 24 targets, and the later in the alphabet the rarer."""

    rows = 24

    def __init__(self, length: int) -> None:
        random = np.random.default_rng(current_seed())
        self.tokens = np.minimum(random.geometric(0.2, (self.rows, length + 1)), 30).astype(np.int32)
        self.tokens[:, 0] = 40 + np.arange(self.rows)  # which row it is
        self.mask = np.arange(length) < 1 + np.arange(self.rows)[:, None] % length

    def __len__(self) -> int:
        return self.rows

    def batch(self, samples: Sequence[int], step: int) -> dict[str, NDArray[Any]]:
        return self.read([(5 * sample + sample // self.rows) % self.rows for sample in samples])

    def read(self, rows: Sequence[int]) -> dict[str, NDArray[Any]]:
        taken = list(rows)
        return {
            "inputs": self.tokens[taken, :-1],
            "targets": self.tokens[taken, 1:],
            "mask": self.mask[taken],
        }


def _over_lines(curriculum: Candidate) -> tuple[Any, _Lines]:
    lines = _Lines(curriculum.config.seq_len)
    return build(curriculum.kind, curriculum.chosen, lines, curriculum.config), lines


def _of(candidate: Candidate) -> Any:
    """A source, or a curriculum over one."""
    return _over_lines(candidate)[0] if candidate.kind == "curriculum" else _made(candidate, _documents())


def _batches(made: Any, size: int) -> Iterator[dict[str, Any]]:
    """Batches from several epochs, at several steps."""
    for epoch in LATER:
        for step in STEPS:
            first = epoch * len(made) + step % 5
            yield dict(made.batch(range(first, first + size), step))


def _row(batch: dict[str, Any], i: int) -> list[tuple[Any, ...]]:
    """What is learned in a row: column, input, target, segment."""
    inputs, targets = batch["inputs"][i], batch["targets"][i]
    mask = batch["mask"][i] if "mask" in batch else np.ones(inputs.shape, bool)
    segments = batch["segments"][i] if "segments" in batch else np.zeros(inputs.shape, int)
    columns = np.flatnonzero(mask)
    return list(zip(columns, inputs[mask], targets[mask], segments[mask], strict=True))


def batches_have_their_shapes(source: Candidate) -> None:
    """`inputs` and `targets` are int32, one row for each sample and at most `seq_len` long; so are `mask`, boolean, and
    `segments`, which count the documents of a row from 0 on.
    """
    made, longest = _of(source), source.config.seq_len
    assert len(made) >= 1, f"an epoch has {len(made)} samples"
    for size in (1, source.config.batch_size):
        for batch in _batches(made, size):
            missing = {"inputs", "targets"} - set(batch)
            assert not missing, f"a batch has no {' and no '.join(sorted(missing))}"
            shape = batch["inputs"].shape
            assert len(shape) == 2, f"inputs have the shape {shape}"
            assert shape[0] == size, f"{size} samples are {shape[0]} rows"
            assert 1 <= shape[1] <= longest, f"rows are {shape[1]} tokens long, seq_len is {longest}"
            for name in set(NAMES) & set(batch):
                found = batch[name]
                assert found.dtype == NAMES[name], f"{name} are {found.dtype}, not {np.dtype(NAMES[name])}"
                assert found.shape == shape, f"{name} have the shape {found.shape}, inputs {shape}"
            if "segments" in batch:
                rises = np.diff(batch["segments"], axis=1, prepend=batch["segments"][:, :1])
                counted = (batch["segments"][:, 0] == 0).all() and ((rises == 0) | (rises == 1)).all()
                assert counted, "segments do not count from 0 on, one by one"


def targets_come_next(source: Candidate) -> None:
    """The target of a token that is learned is the next token of its row, unless that is of another document."""
    made = _of(source)
    for batch in _batches(made, source.config.batch_size):
        for i, inputs in enumerate(batch["inputs"]):
            segments = batch["segments"][i] if "segments" in batch else np.zeros(inputs.shape, int)
            for column, _, target, segment in _row(batch, i):
                if column + 1 < len(inputs) and segments[column + 1] == segment:
                    found = inputs[column + 1]
                    # A document may go on in another row, and padding begin here.
                    learned = "mask" not in batch or batch["mask"][i][column + 1]
                    assert found == target or not learned, f"token {target} is to be predicted, {found} comes next"


def samples_depend_on_their_number_alone(source: Candidate) -> None:
    """A sample is the same in any batch, after any others and in any process: a run goes on where it stopped, with as many
    ranks as it likes. What a curriculum makes of it depends on the step, too.
    """
    made, anew = _of(source), _of(source)
    curriculum = source.kind == "curriculum"
    numbers = [epoch * len(made) + i for epoch in LATER for i in (0, 1, 2, len(made) // 2, len(made) - 1)]
    for step in STEPS:
        together = dict(made.batch(numbers, step))
        whole = {number: _row(together, i) for i, number in enumerate(numbers)}
        for number in reversed(numbers):
            again = dict(anew.batch([number], step if curriculum else 3))
            assert _row(again, 0) == whole[number], f"sample {number} is another one the second time"


def epochs_read_a_row_once(source: Candidate) -> None:
    """An epoch, of `len(source)` samples, reads no row twice."""
    made = _made(source, _documents())
    for epoch in LATER:
        batch = dict(made.batch(range(epoch * len(made), (epoch + 1) * len(made)), 0))
        rows = {row.tobytes() for row in batch["inputs"]}
        assert len(rows) == len(made), f"the {len(made)} samples of epoch {epoch} are {len(rows)} rows"


def what_is_not_learned_is_masked(source: Candidate) -> None:
    """No token counts as a target that the documents say is not learned; those that are do."""
    plain = _documents()
    learn = plain.tokens % 3 != 0
    made = _made(source, attrs.evolve(plain, learn=learn))
    counted: set[int] = set()
    for batch in _batches(made, source.config.batch_size):
        for i in range(len(batch["inputs"])):
            counted |= {int(target) for _, _, target, _ in _row(batch, i)}
    wrong = sorted(token for token in counted if token % 3 == 0)
    assert not wrong, f"tokens {wrong[:5]} count as targets, which the documents say are not learned"
    assert counted, "nothing is learned"


def nothing_to_learn_is_an_error(source: Candidate) -> None:
    """Documents without a target that counts, and no documents, are a `DataError` when the source is built."""
    plain = _documents()
    empty = Documents(plain.tokens[:0], plain.ends[:0])
    for what, documents in (
        ("documents of which nothing is learned", attrs.evolve(plain, learn=np.zeros(len(plain.tokens), bool))),
        ("no documents", empty),
    ):
        try:
            _made(source, documents)
        except DataError:
            continue
        raise AssertionError(f"{what}: no DataError")


def batches_may_be_written_to(source: Candidate) -> None:
    """What becomes of a batch changes neither the documents nor a later batch."""
    documents = _documents()
    before = documents.tokens.copy()
    writable = attrs.evolve(documents, tokens=documents.tokens.copy())
    made = _of(source) if source.kind == "curriculum" else _made(source, writable)
    for step in STEPS:
        first = dict(made.batch(range(4), step))
        copies = {name: np.array(value) for name, value in first.items()}
        for value in first.values():
            if isinstance(value, np.ndarray) and value.flags.writeable:
                value[...] = 0
        assert (writable.tokens == before).all(), "a batch is a part of the documents, not a copy"
        for name, value in made.batch(range(4), step).items():
            assert (np.array(value) == copies[name]).all(), (
                f"{name} of a batch change when the batch before is written to"
            )


def rows_are_the_sources(curriculum: Candidate) -> None:
    """Each row is one of the source's, or the beginning of one."""
    made, lines = _over_lines(curriculum)
    for batch in _batches(made, curriculum.config.batch_size):
        for i, inputs in enumerate(batch["inputs"]):
            number = int(inputs[0]) - 40
            assert 0 <= number < lines.rows, f"a row begins with {inputs[0]}, which no row of the source does"
            expected = lines.read([number])
            length = len(inputs)
            same = all((batch[name][i] == value[0, :length]).all() for name, value in expected.items())
            assert same, f"row {number} of the source is another one in the curriculum"


def all_is_read_in_the_end(curriculum: Candidate) -> None:
    """At last every row is read, and whole."""
    made, lines = _over_lines(curriculum)
    batch = dict(made.batch(range(40 * lines.rows), 10**9))
    length = batch["inputs"].shape[1]
    assert length == curriculum.config.seq_len, f"at step 10^9 rows are still {length} tokens long"
    found = {int(first) - 40 for first in batch["inputs"][:, 0]}
    assert found == set(range(lines.rows)), f"at step 10^9 only {len(found)} of {lines.rows} rows are read"
