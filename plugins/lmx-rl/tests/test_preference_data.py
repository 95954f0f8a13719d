"""What is read of comparisons, and what is wrong with some."""

import numpy as np
import pytest

from lmx_core import spec
from lmx_core.data.corpus import DataConfig
from lmx_core.data.prompts import Judged
from lmx_core.errors import ConfigError, DataError
from lmx_core.train.config import RunConfig
from lmx_rl.preference import DPO, KTO, DPOOptions, KTOOptions, judged_of, pairs_of, taken_apart
from lmx_rl.preference.material import mismatched
from lmx_rl.preference.source import PairSource

from .preferred import job_of, material_of, model_of, pair_of, some_pairs, trainer_of

pytestmark = pytest.mark.once


def test_a_batch_keeps_pairs_together():
    """Chosen above, rejected below, of the same sample; an epoch reads each pair once, the next in another order."""
    rows = material_of(pairs=12).train.rows
    source = PairSource("train", rows, seed=3)
    batch = source.batch(range(5), 0)
    assert batch["inputs"].shape[0] == 10
    for i in range(5):
        start = batch["starts"][i]
        assert start == batch["starts"][5 + i]
        assert (batch["inputs"][i, : start + 1] == batch["inputs"][5 + i, : start + 1]).all()
        assert (batch["targets"][i][batch["mask"][i]] % 2 == 0).all()
        assert (batch["targets"][5 + i][batch["mask"][5 + i]] % 2 == 1).all()
    orders = [source.numbers(range(12 * epoch, 12 * epoch + 12)).tolist() for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert orders[0] != orders[1]


def lengths(split):
    """Of the prompts and of the completions."""
    rows = split.rows
    return list(zip(rows.prompts.tolist(), (rows.inputs + 1 - rows.prompts).tolist(), strict=True))


def test_what_is_too_long_is_cut():
    """10 targets are 11 tokens. The end of the prompt stays with `keep_end`, as much for both; its beginning otherwise."""
    pairs = [pair_of(20, 3, 5), pair_of(4, 2, 2), pair_of(5, 10, 1), pair_of(5, 11, 1), pair_of(10, 4, 1)]
    end, start = (pairs_of(pairs, 10, how) for how in ("keep_end", "keep_start"))
    assert lengths(end) == [(6, 3), (6, 5), (4, 2), (4, 2), (1, 10), (1, 1), (7, 4), (7, 1)]
    assert (end.left_out, end.count) == (1, 4)
    assert end.rows.tokens[:6].tolist() == [14, 15, 16, 17, 18, 19]
    assert lengths(start) == [(4, 2), (4, 2), (5, 6), (5, 1), (5, 6), (5, 1), (10, 1), (10, 1)]
    assert (start.left_out, start.count) == (1, 4)


def test_batches_are_as_long_as_they_must_be():
    """A multiple of 32, and never more than the longest row."""
    rows = pairs_of([pair_of(40, 3, 5), pair_of(60, 8, 2), pair_of(2, 2, 2)], 100).rows
    assert [rows.batch(numbers)["inputs"].shape[1] for numbers in ([4, 5], [0, 1], [2, 3])] == [32, 64, 67]
    assert rows.batch([0])["targets"].shape[1] == 8


def test_mismatched_completions_answer_other_prompts():
    """Wherever there is another prompt; each stays behind its own."""
    pairs = [*some_pairs(7)] * 2
    rows = judged_of(taken_apart(pairs), 16).rows
    others = mismatched(rows, 16)
    assert others.prompts.tolist() == rows.prompts.tolist()
    right = {(pair.prompt.tobytes(), each.tobytes()) for pair in pairs for each in (pair.chosen, pair.rejected)}
    for i in range(len(rows)):
        begin = others.ends[i] - others.inputs[i] - 1
        prompt = others.tokens[begin : begin + others.prompts[i]]
        completion = others.tokens[begin + others.prompts[i] : others.ends[i]]
        assert (prompt.tobytes(), completion.tobytes()) not in right
    alone = judged_of([Judged(np.array([1]), np.array([i]), True) for i in range(4)], 16).rows
    assert mismatched(alone, 16).tokens.tolist() == [1, 2, 1, 3, 1, 0, 1, 1]
    long = [Judged(np.full(prompt, prompt), np.arange(12), True) for prompt in (3, 5)]
    assert mismatched(judged_of(long, 16).rows, 10).inputs.tolist() == [10, 10]


def test_data_is_known_by_all_that_is_learned_of_it():
    """Tokens, where rows end and prompts do, and what was good: a resumed run is held to it, and the reference's cache."""
    pairs = [*some_pairs(4)]
    judged, others = [*taken_apart(pairs)], [*taken_apart(pairs)]
    others[0] = Judged(others[0].prompt, others[0].completion, good=False)
    lengths = pair_of(3, 2, 2), pair_of(3, 3, 1), pair_of(2, 2, 2)
    told = [judged_of(each, 16).sha256 for each in (judged, others, judged[:6])]
    told += [pairs_of([each], 16).sha256 for each in lengths]
    parts = [(np.arange(n), np.arange(n, 4)) for n in (1, 2)]
    told += [judged_of([Judged(prompt, completion, good=True)], 16).sha256 for prompt, completion in parts]
    assert len({*told}) == len(told)
    assert judged_of(judged, 16).sha256 == told[0]
    assert judged_of(judged, 16).good.tolist() == [True, False] * 4


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (pair_of(3, 0, 2), "training pair 1: its chosen completion is empty"),
        (pair_of(3, 2, 0), "training pair 1: its rejected completion is empty"),
        (pair_of(0, 1, 2), "training pair 1: its prompt is empty and its chosen completion is one token"),
    ],
)
def test_a_pair_without_a_completion_is_named(pair, message):
    with pytest.raises(DataError, match=message):
        pairs_of([pair_of(1, 1, 1), pair], 16, where="training")
    judged = [*taken_apart([pair])]
    with pytest.raises(DataError, match=r"completion \d: its (completion|prompt) is empty"):
        judged_of(judged, 16)


def test_pairs_that_all_do_not_fit_are_an_error():
    message = r"none of 2 training pairs fits into train.seq_len=4 tokens: every completion is longer. Raise"
    with pytest.raises(DataError, match=message):
        pairs_of([pair_of(3, 6, 2), pair_of(1, 2, 5)], 4, where="training")
    with pytest.raises(DataError, match="every prompt is longer"):
        pairs_of([pair_of(6, 1, 1)], 4, "keep_start")
    with pytest.raises(DataError, match="the dataset has no held-out pairs. Both splits need some"):
        pairs_of([], 4, where="held-out")


def test_a_dataset_without_pairs_is_named(folder):
    with pytest.raises(ConfigError, match=r"data.dataset='python-stdlib' has no pairs .* may have some: addition, "):
        job_of(folder, "dpo", 'data.dataset="python-stdlib"')
    with pytest.raises(ConfigError, match="'python-stdlib' has no completions that were judged"):
        job_of(folder, "kto", 'data.dataset="python-stdlib"')


def test_a_token_that_the_model_does_not_know_is_refused():
    with pytest.raises(DataError, match="the data has token 15, and the model knows 0 to 14"):
        trainer_of(DPO, DPOOptions(), model_of(vocabulary=15))


def test_judged_completions_are_read_as_they_are():
    """Of a dataset that has them, in place of its pairs, which are taken apart where it has none."""
    config = RunConfig(model=model_of().config, data=DataConfig(dataset=spec("addition", digits=1, held_out=10)))
    material = KTO(config, KTOOptions()).read(None)
    assert material.train.count == 90
    assert material.train.good.tolist() == [True, False] * 45
    assert material.fingerprint()["validation_judged"] == 10
