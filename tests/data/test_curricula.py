"""At what length, and in what order, rows are read as training goes on."""

import attrs
import numpy as np
import pytest

from lmx_core import spec
from lmx_core.construct import build
from lmx_core.data.documents import Documents
from lmx_core.errors import ConfigError
from lmx_core.train.config import TrainConfig

CONFIG = TrainConfig(seq_len=64, batch_size=4)


def of_lengths(*lengths, tokens=None):
    ends = np.cumsum(lengths)
    return Documents(np.arange(ends[-1]) if tokens is None else np.array(tokens), ends)


def over(curriculum, documents, source="padded", config=CONFIG):
    """A curriculum over a source, and the source."""
    made = build("source", source, documents, config)
    return build("curriculum", curriculum, made, config), made


# Length -----------------------------------------------------------------------------------------------------------------


def lengths(at, **options):
    curriculum, _ = over(spec("length", **options), of_lengths(1000), "windows")
    found = []
    for step in at:
        batch = curriculum.batch(range(2), step)
        assert batch["inputs"].shape == batch["targets"].shape
        found.append(batch["inputs"].shape[1])
    return found


def test_rows_grow_on_a_straight_line():
    """From `start` to `seq_len`, 64, in multiples, and stay."""
    at = (0, 1, 25, 50, 75, 99, 100, 10**6)
    assert lengths(at, steps=100, start=16, multiple=8) == [16, 16, 24, 40, 48, 56, 64, 64]
    assert lengths(at, steps=100, start=4, multiple=1) == [4, 4, 19, 34, 49, 63, 64, 64]
    assert lengths((0, 4, 10), steps=100, start=5, multiple=8) == [5, 5, 8]


def test_rows_may_grow_in_stages():
    found = lengths(range(101), steps=100, start=16, multiple=1, stages=3)
    assert sorted(set(found)) == [16, 32, 48, 64]
    assert [found.count(length) for length in (16, 32, 48)] == [34, 33, 33]


def test_a_row_is_cut_at_its_end():
    curriculum, source = over(spec("length", steps=100, start=16), of_lengths(300, 700), "packed")
    cut, whole = (each.batch([3, 0], 50) for each in (curriculum, source))
    assert set(cut) == {"inputs", "targets", "mask", "segments"}
    for name, value in cut.items():
        assert (value == whole[name][:, :40]).all()
    assert len(curriculum) == len(source)


def test_a_start_beyond_the_end_is_refused():
    with pytest.raises(ConfigError, match="start=65 of the curriculum is longer than train.seq_len=64. Lower start"):
        over(spec("length", steps=100, start=65), of_lengths(1000), "windows")


# Difficulty -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0.01, 0.2, 1.0])
def test_competence_is_the_papers(start):
    """arXiv:1903.09848, equation 7."""
    curriculum, _ = over(spec("difficulty", by="length", steps=1000, start=start), of_lengths(*range(2, 60)))
    assert curriculum.competence(0) == pytest.approx(start)
    assert curriculum.competence(1000) == 1
    assert curriculum.competence(10**9) == 1
    for step in (1, 250, 999):
        assert curriculum.competence(step) == pytest.approx(np.sqrt(step * (1 - start**2) / 1000 + start**2))


def test_the_shortest_come_first():
    """At step t the rows are drawn from the easiest share, evenly."""
    curriculum, source = over(
        spec("difficulty", by="length", steps=1000, start=0.1),
        of_lengths(*np.random.default_rng(0).permutation(62)[:60] + 2),
    )
    found = [curriculum.batch(range(2000), step)["mask"].sum(axis=1) for step in (0, 500, 999)]
    ordered = np.sort(source.lengths)
    for counts, step in zip(found, (0, 500, 999), strict=True):
        easiest = int(np.ceil(curriculum.competence(step) * 60))
        assert sorted(set(counts)) == sorted(set(ordered[:easiest]))
    assert found[0].max() < found[1].max() < found[2].max()
    share = np.mean(found[1] <= np.median(ordered))
    assert share == pytest.approx(30 / np.ceil(60 * curriculum.competence(500)), abs=0.05)


def test_seeds_draw_other_rows():
    chosen, documents = spec("difficulty", by="length", steps=10), of_lengths(*range(2, 60))
    drawn = [
        over(chosen, documents, config=attrs.evolve(CONFIG, seed=seed))[0].batch(range(30), 5)["inputs"][:, 0].tolist()
        for seed in (0, 1, 0)
    ]
    assert drawn[0] == drawn[2] != drawn[1]


def test_in_the_end_the_order_is_the_sources():
    curriculum, source = over(spec("difficulty", by="length", steps=10), of_lengths(*range(2, 60)))
    assert (curriculum.batch(range(9), 10)["inputs"] == source.batch(range(9), 10)["inputs"]).all()


def test_a_batch_may_draw_from_as_many_rows_as_it_has():
    """However small the share is."""
    curriculum, _ = over(spec("difficulty", by="length", steps=10, start=0.001), of_lengths(*range(2, 60)))
    assert set(curriculum.batch(range(400), 0)["mask"].sum(axis=1)) == {1, 2, 3, 4}


def test_rare_tokens_are_hard():
    """The mean of `-log p` over what a row predicts, not what it begins with."""
    rows = [[9, 1, 1, 1], [9, 2, 2, 1], [9, 3, 2, 1], [5, 1, 1, 1]]
    documents = of_lengths(4, 4, 4, 4, tokens=[token for row in rows for token in row])
    curriculum, _ = over(spec("difficulty", steps=10), documents)
    counts = {1: 8, 2: 3, 3: 1}
    hard = [-np.mean([np.log(counts[token] / 12) for token in row[1:]]) for row in rows]
    assert curriculum.ranked.tolist() == np.argsort(hard, kind="stable").tolist() == [0, 3, 1, 2]


def test_rarity_counts_no_padding_and_nothing_that_is_not_learned():
    """Token 0 is what rows are padded with; token 70, which is never learned, is the highest."""
    tokens = [9, 1, 2, 9, 1, 1, 1, 1, 1, 9, 0, 1, 9, 70, 1]
    learn = np.array([True] * 13 + [False] + [True])
    documents = Documents(np.array(tokens), np.array([3, 9, 12, 15]), learn)
    curriculum, _ = over(spec("difficulty", steps=10), documents)
    p = {1: 8 / 10, 2: 1 / 10, 0: 1 / 10}
    hard = [-np.mean(np.log([p[token] for token in row])) for row in ([1, 2], [1] * 5, [0, 1], [1])]
    assert curriculum.ranked.tolist() == np.argsort(hard, kind="stable").tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("source", ["windows", "packed"])
def test_windows_and_packed_rows_are_ranked_too(source):
    random = np.random.default_rng(0)
    tokens = np.minimum(random.geometric(0.2, 20_000), 40)
    curriculum, made = over(spec("difficulty", steps=100), of_lengths(*[50] * 400, tokens=tokens), source)
    assert len(curriculum.ranked) == made.rows
    rare = [np.mean(curriculum.batch(range(100), step)["inputs"]) for step in (0, 99)]
    assert rare[0] < rare[1]


def test_rows_that_are_all_alike_cannot_be_ranked():
    with pytest.raises(ConfigError, match="all 15 rows are as difficult by 'length'"):
        over(spec("difficulty", by="length", steps=10), of_lengths(1000), "windows")


def test_a_source_must_give_its_rows():
    class Stream:
        def __len__(self):
            return 10

        def batch(self, samples, step):
            return {}

    with pytest.raises(ConfigError, match=r"Stream does not give rows by number, with `rows` and `read\(rows\)`"):
        build("curriculum", spec("difficulty", steps=10), Stream(), CONFIG)
