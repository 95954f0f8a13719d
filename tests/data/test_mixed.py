"""Several sources as one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmx_core import spec
from lmx_core.data.corpus import DataConfig
from lmx_core.data.documents import Documents
from lmx_core.data.sources import Mixed, training_source
from lmx_core.data.sources.mixed import joined_rows
from lmx_core.errors import ConfigError, DataError
from lmx_core.train.config import TrainConfig

quick = settings(max_examples=100, deadline=None)


def documents(*lengths):
    """Of these lengths; token i of the stream is i + 1."""
    ends = np.cumsum(lengths)
    return Documents(np.arange(1, ends[-1] + 1, dtype=np.uint16), ends)


class Numbered:
    """Says which part it is, and which sample."""

    def __init__(self, part, length=7, width=3, **more):
        self.part, self.length, self.width, self.more = part, length, width, more

    def __len__(self):
        return self.length

    def batch(self, samples, step):
        rows = np.array([[self.part, sample, step] for sample in samples], np.int32)[:, : self.width]
        return {"inputs": rows, "targets": rows + 1} | {
            name: np.broadcast_to(value, rows.shape).copy() for name, value in self.more.items()
        }


weights = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9)


@given(weights)
@quick
def test_every_prefix_has_the_weights(parts):
    """After n samples a part of weight w has `round(n * w)` of them, or one more or fewer; none is left out or doubled."""
    mixed = Mixed([Numbered(i) for i in range(len(parts))], parts)
    shares = np.array(parts) / sum(parts)
    counts = np.zeros(len(parts), int)
    for n in range(400):
        part, number = mixed.place(n)
        assert number == counts[part]
        counts[part] += 1
        assert np.abs(counts - np.round((n + 1) * shares)).max() <= 1


def test_weights_do_not_drift():
    mixed = Mixed([Numbered(i) for i in range(3)], [0.1, 0.2, 0.7])
    found = dict(mixed.place(n) for n in range(10**12, 10**12 + 20))
    assert found == {0: 10**11 + 1, 1: 2 * 10**11 + 3, 2: 7 * 10**11 + 13}


def test_samples_of_several_sources_lie_in_the_order_of_their_numbers():
    mixed = Mixed([Numbered(0), Numbered(1)], [3, 1])
    batch = mixed.batch([5, 4, 0, 1, 2, 3], 9)
    assert [tuple(row) for row in batch["inputs"].tolist()] == [
        (*mixed.place(number), 9) for number in (5, 4, 0, 1, 2, 3)
    ]
    assert (batch["targets"] == batch["inputs"] + 1).all()
    assert set(batch) == {"inputs", "targets"}
    assert len(mixed) == 14


def test_batches_that_differ_are_made_alike():
    """The shorter is padded, which is neither learned nor part of a document; who has no mask learns everything."""
    short = Numbered(0, width=2, segments=np.int32(0)).batch([0, 1], 5)
    long = Numbered(1, mask=np.array([True, False, True])).batch([7], 5)
    batch = joined_rows([short, long], [[2, 0], [1]])
    assert batch["inputs"].tolist() == [[0, 1, 0], [1, 7, 5], [0, 0, 0]]
    assert batch["mask"].tolist() == [[True, True, False], [True, False, True], [True, True, False]]
    assert batch["segments"].tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 1]]
    assert {batch["segments"].dtype, batch["inputs"].dtype} == {np.dtype(np.int32)}


def test_batches_that_do_not_go_together_are_refused():
    mixed = Mixed([Numbered(0, reward=1.0), Numbered(1)], [1, 1])
    with pytest.raises(DataError, match="do not go together: 1 of 2 have no 'reward'"):
        mixed.batch([0, 1], 0)


@pytest.mark.parametrize("wrong", [[], [1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_weights_are_above_0(wrong):
    with pytest.raises(ConfigError, match="each source needs one, a number above 0"):
        Mixed([Numbered(0), Numbered(1)], wrong)


def test_a_run_reads_its_parts_by_weight():
    """Each in the form that the config names, with an order of its own."""
    parts = [(documents(5, 5, 5, 5), 3.0), (documents(5, 5, 5, 5), 1.0)]
    config = TrainConfig(seq_len=8, batch_size=4)
    made = training_source(parts, DataConfig(source=spec("padded", multiple=1)), config)
    batch = made.batch(range(16), 0)
    assert batch["inputs"].shape == (16, 4)
    alone = training_source(parts[:1], DataConfig(source=spec("padded", multiple=1)), config)
    rows = [i for i in range(16) if made.place(i)[0] == 0]
    assert len(rows) == 12
    assert (batch["inputs"][rows] == alone.batch(range(12), 0)["inputs"]).all()
    orders = [made.sources[i].batch(range(40), 0)["inputs"].tolist() for i in (0, 1)]
    assert orders[0] != orders[1]


def test_the_largest_seed_has_one_after_it():
    """That of the second part; a seed has 64 bits."""
    made = training_source([(documents(5, 5), 1.0)] * 2, DataConfig(), TrainConfig(seq_len=2, seed=2**64 - 1))
    assert [each.seed for each in made.sources] == [2**64 - 1, 0]


@pytest.mark.parametrize("name", ["windows", "packed", "padded"])
def test_weights_are_shares_of_the_tokens(name):
    """Also where the rows of one part are longer than those of another."""
    parts = [(documents(*[4] * 30), 0.25), (documents(*[16] * 30), 0.75)]
    made = training_source(parts, DataConfig(source=name), TrainConfig(seq_len=18, batch_size=4))
    places = [made.place(i)[0] for i in range(2000)]
    tokens = [places.count(part) * made.sources[part].row_tokens for part in (0, 1)]
    assert tokens[1] / sum(tokens) == pytest.approx(0.75, abs=0.01)
    sizes = [
        source.batch(range(len(source)), 0).get("mask", np.ones((len(source), 18))).sum() / len(source)
        for source in made.sources
    ]
    assert [source.row_tokens for source in made.sources] == pytest.approx(sizes, rel=0.35)


def test_a_curriculum_is_of_each_part():
    """So that the weights hold at every step."""
    parts = [(documents(*[9] * 20), 1.0), (documents(*range(2, 10)), 1.0)]
    data = DataConfig(source=spec("padded"), curriculum=spec("length", steps=10, start=2, multiple=1))
    made = training_source(parts, data, TrainConfig(seq_len=8, batch_size=4))
    assert [made.batch(range(4), step)["inputs"].shape[1] for step in (0, 5, 10)] == [2, 5, 8]
