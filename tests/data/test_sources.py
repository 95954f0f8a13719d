"""Documents become samples that a number determines."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmx_core import spec
from lmx_core.construct import build
from lmx_core.data.documents import Documents, Example, joined
from lmx_core.errors import DataError
from lmx_core.train.config import TrainConfig

quick = settings(max_examples=100, deadline=None)


def documents(*lengths, learn=None):
    """Of these lengths; token i of the stream is i + 1."""
    ends = np.cumsum(lengths)
    return Documents(np.arange(1, ends[-1] + 1, dtype=np.uint16), ends, learn)


def source(name, of, seq_len=10, batch_size=4, seed=3, **options):
    config = TrainConfig(seq_len=seq_len, batch_size=batch_size, seed=seed)
    return build("source", spec(name, **options), of, config)


def firsts(made, samples):
    return made.batch(samples, 0)["inputs"][:, 0].tolist()


# Windows ----------------------------------------------------------------------------------------------------------------


def test_windows_cover_an_epoch_once_and_come_in_another_order_next():
    """Each epoch reads disjoint windows of the stream."""
    windows = source("windows", documents(400, 600))
    epochs = [windows.batch(range(start, start + len(windows)), 0) for start in (0, len(windows))]
    for epoch in epochs:
        assert (epoch["targets"] == epoch["inputs"] + 1).all()
        assert len(np.unique(epoch["inputs"])) == epoch["inputs"].size
    orders = [epoch["inputs"][:, 0].tolist() for epoch in epochs]
    assert sorted(orders[0]) != orders[0]
    assert orders[0] != orders[1]
    assert firsts(source("windows", documents(1000), seed=4), range(5)) != orders[0][:5]


def test_runs_of_before_go_on_with_the_windows_they_would_have_read():
    """Numbers of the first release: a run that is resumed reads what it would have."""
    windows = source("windows", documents(1000))
    assert len(windows) == 98
    assert [first - 1 for first in firsts(windows, range(6))] == [836, 456, 236, 26, 356, 246]
    assert [first - 1 for first in firsts(windows, range(98, 102))] == [319, 89, 329, 769]
    assert [first - 1 for first in firsts(windows, range(10**6, 10**6 + 3))] == [379, 339, 189]


def test_the_shortest_stream_is_one_window():
    windows = source("windows", documents(11))
    assert windows.batch([5], 0)["targets"].tolist() == [list(range(2, 12))]
    with pytest.raises(DataError, match="seq_len=10 needs 11 tokens, the training split has 10. Shorten train.seq_len"):
        source("windows", documents(10))


def test_windows_may_come_in_order():
    windows = source("windows", documents(45), shuffle=False)
    assert firsts(windows, range(6)) == [1, 11, 21, 31, 1, 11]


def test_windows_of_a_file_are_read_where_they_are(tmp_path):
    """A file of 800 MB, most of which is not even on the disk, costs no memory."""
    import tracemalloc

    file = tmp_path / "tokens.bin"
    with file.open("wb") as out:
        out.truncate(800_000_000)
    tokens = np.memmap(file, np.uint16, mode="r")
    tracemalloc.start()
    windows = source("windows", Documents(tokens, np.array([len(tokens)])), seq_len=100_000)
    windows.batch(range(8), 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_a_window_learns_what_the_documents_say():
    learn = np.arange(40) % 3 == 0
    batch = source("windows", documents(40, learn=learn), shuffle=False).batch(range(3), 0)
    assert (batch["mask"] == (batch["targets"] % 3 == 1)).all()
    assert "mask" not in source("windows", documents(40)).batch([0], 0)


@pytest.mark.parametrize("name", ["windows", "packed", "padded"])
def test_masks_that_leave_nothing_are_an_error(name):
    with pytest.raises(DataError, match="the masks of the dataset leave nothing to train on"):
        source(name, documents(20, 30, learn=np.zeros(50, bool)))


# Packed -----------------------------------------------------------------------------------------------------------------


def told(batch, row):
    """A row as `document: inputs -> targets`, where `.` is not learned."""
    return [
        [segment, token, target if counts else None]
        for segment, token, target, counts in zip(
            batch["segments"][row], batch["inputs"][row], batch["targets"][row], batch["mask"][row], strict=True
        )
    ]


def test_documents_of_a_row_are_kept_apart():
    """The last token of a document predicts nothing, and what is left of a row is a segment of its own."""
    batch = source("packed", documents(4, 3), seq_len=9).batch([0], 0)
    assert told(batch, 0) == [
        *([0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, None]),
        *([1, 5, 6], [1, 6, 7], [1, 7, None]),
        *([2, 0, None], [2, 0, None]),
    ]


def test_without_boundaries_one_document_predicts_the_next():
    batch = source("packed", documents(4, 1, 3), seq_len=9, boundaries=False).batch([0], 0)
    assert "segments" not in batch
    assert batch["inputs"].tolist() == [[1, 2, 3, 4, 6, 7, 8, 5, 0]]
    assert batch["targets"][batch["mask"]].tolist() == [2, 3, 4, 6, 7, 8, 5]


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split", "wrapped"])
def test_a_document_that_is_cut_predicts_the_token_after_the_cut(strategy):
    """Else one target in `seq_len` would be lost."""
    packed = source("packed", documents(10, 25), strategy=strategy, shuffle=False)
    batch = packed.batch(range(len(packed)), 0)
    predicted = sorted(batch["targets"][batch["mask"]].tolist())
    kept = 21 if strategy == "bfd" else 35
    assert predicted == [token for token in range(1, kept + 1) if token not in (1, 11)]
    assert (batch["targets"] == batch["inputs"] + 1)[batch["mask"]].all()


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=20).filter(lambda lengths: max(lengths) > 1),
    st.integers(1, 20),
    st.sampled_from(["bfd_split", "wrapped"]),
    st.booleans(),
)
@quick
def test_every_token_but_the_first_of_a_document_is_predicted_once(lengths, seq_len, strategy, some):
    """And those alone that are learned."""
    learn = np.arange(sum(lengths)) % 2 == 1 if some else None
    of = documents(*lengths, learn=learn)
    wanted = set(of.tokens.tolist()) - {int(start) + 1 for start in of.starts}
    if some:
        wanted = {token for token in wanted if token % 2 == 0}
    if not wanted:
        return
    packed = source("packed", of, seq_len=seq_len, strategy=strategy)
    batch = packed.batch(range(len(packed)), 0)
    assert sorted(batch["targets"][batch["mask"]].tolist()) == sorted(wanted)
    assert (batch["targets"] == batch["inputs"] + 1)[batch["mask"]].all()


def test_documents_without_a_target_take_no_room():
    learn = np.array([True] * 5 + [False] * 4 + [True] * 3 + [True])
    packed = source("packed", documents(5, 4, 3, 1, learn=learn))
    assert packed.left_out == 2
    assert sorted(packed.batch([0], 0)["inputs"][0].tolist()) == [0, 0, *range(1, 6), *range(10, 13)]
    cut = source("packed", documents(20, 5, learn=np.arange(25) > 15), strategy="bfd")
    assert cut.left_out == 1  # what is learned of the first document is dropped


@pytest.mark.parametrize("name", ["packed", "padded"])
def test_documents_of_one_token_are_no_data(name):
    with pytest.raises(DataError, match="none of 3 documents has 2 tokens"):
        source(name, documents(1, 1, 1))
    with pytest.raises(DataError, match="none of 0 documents"):
        source(name, joined([], 50))


# Padded -----------------------------------------------------------------------------------------------------------------


def test_a_document_a_row():
    learn = np.array([False, False, True, True, True, True, True, False, True])
    of = documents(4, 5, learn=learn)
    batch = source("padded", of, seq_len=8, multiple=3, shuffle=False).batch([0, 1], 0)
    assert batch["inputs"].tolist() == [[1, 2, 3, 0, 0, 0], [5, 6, 7, 8, 0, 0]]
    assert batch["targets"].tolist() == [[2, 3, 4, 0, 0, 0], [6, 7, 8, 9, 0, 0]]
    assert batch["mask"].tolist() == [[False, True, True, *[False] * 3], [True, True, False, True, False, False]]


def test_rows_are_as_long_as_the_longest_of_their_batch_in_multiples():
    padded = source("padded", documents(3, 9, 30), multiple=4, shuffle=False)
    assert [padded.batch([i], 0)["inputs"].shape[1] for i in range(3)] == [4, 8, 10]  # seq_len at most
    assert padded.batch([2], 0)["targets"][0].tolist() == list(range(14, 24))


def test_a_prompt_that_fills_the_row_is_left_out():
    examples = [Example(np.arange(1, 16), np.arange(15) > limit) for limit in (3, 9, 10)]
    padded = source("padded", joined(examples, 50))
    assert (padded.rows, padded.left_out) == (2, 1)
    with pytest.raises(DataError, match=r"among its first 10 \(train.seq_len\).*Raise train.seq_len, or see to it"):
        source("padded", joined(examples[2:], 50))


def test_many_documents_are_sifted_in_parts():
    """As many as several chunks, each of them by itself."""
    learn = np.random.default_rng(0).random(9000) < 0.2
    of = documents(*[3] * 3000, learn=learn)
    expected = learn.reshape(3000, 3)[:, 1:].any(axis=1)
    padded = source("padded", of, shuffle=False)
    assert firsts(padded, range(len(padded))) == (3 * np.flatnonzero(expected) + 1).tolist()


@pytest.mark.parametrize("name", ["packed", "padded", "windows"])
def test_each_epoch_of_each_seed_has_an_order_of_its_own(name):
    """Or all have one, where nothing is shuffled."""
    of = documents(*range(2, 40))
    orders = []
    for seed in (3, 4):
        made = source(name, of, seed=seed)
        orders += [firsts(made, range(start, start + len(made))) for start in (0, len(made))]
    assert len({tuple(order) for order in orders}) == 4
    if name != "windows":  # whose epochs begin at other tokens, too
        assert len({tuple(sorted(order)) for order in orders}) == 1
    made = source(name, of, shuffle=False)
    assert firsts(made, range(2 * len(made))) == 2 * firsts(made, range(len(made)))
    assert firsts(made, range(len(made))) == made.read(range(made.rows))["inputs"][:, 0].tolist()


def test_buckets_are_of_like_length_and_lose_nothing():
    """Less than a tenth is padding, where a random order pads half; but for the last, incomplete batch all is read."""
    lengths = np.random.default_rng(0).permutation(np.arange(1003) % 100 + 2)
    of = documents(*lengths)
    plain, bucketed = (
        source("padded", of, seq_len=200, multiple=1, batch_size=10, bucketed=bucketed) for bucketed in (False, True)
    )
    shares = []
    for made in (plain, bucketed):
        masks = [made.batch(range(i, i + 10), 0)["mask"] for i in range(0, 1000, 10)]
        shares.append(1 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks))
    assert shares[0] > 0.4
    assert shares[1] < 0.1
    assert len(bucketed) == 1000
    epochs = [firsts(bucketed, range(start, start + 1000)) for start in (0, 1000)]
    assert [len(set(epoch)) for epoch in epochs] == [1000, 1000]
    assert epochs[0] != epochs[1]
    widths = [bucketed.batch(range(i, i + 10), 0)["inputs"].shape[1] for i in range(0, 200, 10)]
    assert widths != sorted(widths)
