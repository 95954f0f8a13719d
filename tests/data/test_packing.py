"""Which pieces of documents share a row."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmx_core.data.sources.packing import STRATEGIES, best_fit

VECTORS = Path(__file__).parents[3] / "shared/vectors/packing.json"
LENGTHS = [5, 2, 3, 1, 8, 6, 2, 7, 4, 3, 10, 1]
ROWS = {
    "bfd": [[8], [8], [7, 1], [6, 2], [5, 3], [4, 3, 1], [2]],
    "bfd_split": [[8], [8], [7, 1], [6, 2], [5, 3], [4, 3, 1], [2, 2]],
    "wrapped": [[5, 2, 1], [2, 1, 5], [3, 5], [1, 2, 5], [2, 4, 2], [1, 7], [3, 1]],
}
"""The lengths of the pieces of each row of 8; the first two are TRL's."""
lengths = st.lists(st.integers(1, 60), min_size=1, max_size=60)
quick = settings(max_examples=150, deadline=None)


def laid_out(strategy, sizes, room):
    """The rows, each with the tokens of its pieces: token i of the stream is i."""
    sizes = np.array(sizes)
    pieces = STRATEGIES[strategy](np.cumsum(sizes) - sizes, sizes, room)
    rows = [[] for _ in range(pieces.rows[-1] + 1)]
    for start, length, row in zip(pieces.starts, pieces.lengths, pieces.rows, strict=True):
        rows[row].append(list(range(start, start + length)))
    return rows


def slow_best_fit(sizes, room):
    """Piece by piece into the row with the least room that is enough, of several into the one that has it longest."""
    left, since, rows = [], [], []
    for now, size in enumerate(sizes):
        fitting = [row for row, space in enumerate(left) if space >= size]
        row = min(fitting, key=lambda row: (left[row], since[row]), default=len(left))
        if row == len(left):
            left.append(room)
            since.append(now)
        left[row] -= size
        since[row] = now
        rows.append(row)
    return rows


@pytest.mark.parametrize("strategy", ROWS)
def test_pieces_lie_where_they_should(strategy):
    assert sorted([len(piece) for piece in row] for row in laid_out(strategy, LENGTHS, 8)) == sorted(ROWS[strategy])


@pytest.mark.parametrize("strategy", ROWS)
def test_rows_are_trls(strategy):
    """As `pack_dataset` gave them."""
    if not VECTORS.exists():
        pytest.skip(f"{VECTORS} is not there")
    vectors = json.loads(VECTORS.read_text())
    tokens = [token for document in vectors["input"] for token in document]
    rows = laid_out(strategy, [len(document) for document in vectors["input"]], vectors["seq_length"])
    found = [([tokens[i] for piece in row for i in piece], [len(piece) for piece in row]) for row in rows]
    expected = vectors[strategy]
    assert sorted(row for row, _ in found) == sorted(expected["input_ids"])
    if "seq_lengths" in expected:
        assert sorted(found) == sorted(map(tuple, zip(expected["input_ids"], expected["seq_lengths"], strict=True)))


@given(lengths, st.integers(1, 60))
@quick
def test_placing_many_at_once_is_placing_them_one_by_one(sizes, room):
    sizes = sorted((min(size, room) for size in sizes), reverse=True)
    assert best_fit(np.array(sizes), room).tolist() == slow_best_fit(sizes, room)


@given(lengths, st.integers(1, 40), st.sampled_from(["bfd_split", "wrapped"]))
@quick
def test_no_token_is_lost_or_doubled(sizes, room, strategy):
    rows = laid_out(strategy, sizes, room)
    assert sorted(token for row in rows for piece in row for token in piece) == list(range(sum(sizes)))
    assert max(sum(map(len, row)) for row in rows) <= room


@given(lengths, st.integers(1, 40))
@quick
def test_long_documents_lose_their_ends_alone(sizes, room):
    rows = laid_out("bfd", sizes, room)
    pieces = sorted(piece for row in rows for piece in row)
    begins = np.cumsum([0, *sizes[:-1]])
    assert pieces == [list(range(at, at + min(size, room))) for at, size in zip(begins, sizes, strict=True)]
    assert max(sum(map(len, row)) for row in rows) <= room


def test_a_million_documents_fill_their_rows():
    """In seconds: pieces of one length are placed together."""
    random = np.random.default_rng(0)
    sizes = np.minimum(random.lognormal(5.5, 1.2, 1_000_000).astype(np.int64) + 1, 100_000)
    pieces = STRATEGIES["bfd_split"](np.cumsum(sizes) - sizes, sizes, 1024)
    assert pieces.lengths.sum() == sizes.sum()
    filled = np.bincount(pieces.rows, weights=pieces.lengths)
    assert filled.max() == 1024
    assert filled.mean() > 0.999 * 1024
